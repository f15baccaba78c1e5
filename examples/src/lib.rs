//! Small programs against each crate of ferry6. Each runs by itself, with no root, device or network:
//!
//! - `cargo run -p ferry6-examples --example esp_packet`: seal an ESP packet, open it, and see what is refused.
//! - `cargo run -p ferry6-examples --example ike_message [HEX]`: take an IKE message apart.
//! - `cargo run -p ferry6-examples --example ike_handshake`: IKEv2 without I/O: two endpoints and a loop that carries their
//!   messages and the time.
//! - `cargo run -p ferry6-examples --example ike_rekey`: two endpoints on a fake clock, over a network that loses
//!   the first message; then a rekey and the end.
//! - `cargo run -p ferry6-examples --example two_routers`: an IPv6 packet goes through a worker of a client, over a
//!   pretended wire, and through a worker of a broker.

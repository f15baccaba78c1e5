//! Interop tests of ferry6 against real peers.
fn main() {}

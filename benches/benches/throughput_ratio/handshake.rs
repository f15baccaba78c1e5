//! What each end of a handshake works, in memory.

use super::median;
use ferry6_benches::handshakes::{Auth, Handshake};
use ferry6_benches::providers;

const ROUNDS: usize = 50;

/// Measures and prints.
pub(super) fn run() {
    println!("\nhandshakes: IKE_SA_INIT and IKE_AUTH with X25519, µs of each end (medians of {ROUNDS})");
    println!("{:<11} {:<9} {:>10} {:>10}", "provider", "by", "initiator", "responder");
    for provider in providers() {
        for auth in Auth::ALL {
            let handshake = Handshake::new(provider, auth);
            let (client, broker): (Vec<_>, Vec<_>) =
                (0..ROUNDS).map(|_| handshake.run()).map(|times| (times.client, times.broker)).unzip();
            println!(
                "{:<11} {:<9} {:>10.0} {:>10.0}",
                provider.name,
                auth.to_string(),
                median(client, 1000),
                median(broker, 1000)
            );
        }
    }
}

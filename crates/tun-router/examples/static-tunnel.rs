//! The data path with fixed keys and without IKE, to measure it between two network namespaces. No secrecy at all.
//!
//! `static-tunnel left|right TUN LOCAL REMOTE SUITE WORKERS auto|tun-tap [ipcomp]`, SUITE one of `aes128gcm`, `aes256gcm`,
//! `chacha`, `aes128cbc-sha1`, `aes256cbc-sha256`.

use ferry6_crypto::{Cipher, CipherSuite, Integ};
use ferry6_tun_router::DeviceKind;
use ferry6_tun_router::testing::{StaticConfig, StaticTunnel};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [side, tun_name, local, remote, suite, workers, device, rest @ ..] = arguments.as_slice() else {
        return Err(
            "usage: static-tunnel left|right TUN LOCAL REMOTE SUITE WORKERS auto|tun-tap [ipcomp]".into()
        );
    };
    let (cipher, integ) = match suite.as_str() {
        "aes128gcm" => (Cipher::Aes128Gcm16, None),
        "aes256gcm" => (Cipher::Aes256Gcm16, None),
        "chacha" => (Cipher::ChaCha20Poly1305, None),
        "aes128cbc-sha1" => (Cipher::Aes128Cbc, Some(Integ::HmacSha1_96)),
        "aes256cbc-sha256" => (Cipher::Aes256Cbc, Some(Integ::HmacSha256_128)),
        other => return Err(format!("unknown suite {other}").into()),
    };
    let mut tunnel = StaticTunnel::start(&StaticConfig {
        tun_name: tun_name.clone(),
        device: if device == "tun-tap" { DeviceKind::TunTap } else { DeviceKind::Auto },
        mtu: 1400,
        local: local.parse()?,
        remote: remote.parse()?,
        port: 4500,
        workers: workers.parse()?,
        left: side == "left",
        crypto: ferry6_crypto::aws_lc::PROVIDER,
        suite: CipherSuite::new(cipher, integ).ok_or("not a suite")?,
        ipcomp: rest.iter().any(|word| word == "ipcomp"),
    })?;
    println!("{}", tunnel.description);
    let mut last = tunnel.counters();
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let counters = tunnel.counters();
        if counters != last {
            println!("{side}: in {:?} out {:?} drops {:?}", counters.0, counters.1, counters.2);
            last = counters;
        }
    }
}

//! What the tests of whole processes share.

use ferry6::lab::{Error, Host, Lab};

/// A broker at 10.0.0.1 and 2a00::2, and a client at 10.0.0.2, on one cable.
pub(crate) struct Cable {
    pub(crate) broker: Host,
    pub(crate) client: Host,
    _lab: Lab,
}

impl Cable {
    /// None where this user may make no namespaces.
    pub(crate) fn new() -> Option<Self> {
        let lab = match Lab::new() {
            Ok(lab) => lab,
            Err(Error::Privilege(why)) if !nix::unistd::geteuid().is_root() => {
                eprintln!("SKIPPED: {why}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let (broker, client) = (lab.host("broker").unwrap(), lab.host("client").unwrap());
        lab.link(&broker, "eth0", &client, "eth0").unwrap();
        broker.address("eth0", "10.0.0.1/24").unwrap();
        broker.address("eth0", "2a00::2/64").unwrap();
        client.address("eth0", "10.0.0.2/24").unwrap();
        Some(Self { broker, client, _lab: lab })
    }
}

//! The machine's network has changed: what that means for the tunnels of a client; and signs that a peer hears us no more.

use crate::control::Control;
use ferry6_ike::config::Now;
use ferry6_ike::endpoint::CommandError;
use ferry6_ike::event::{IkeSaId, Path};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

/// Seconds since the first of our packets that nothing came back for, after which a client behind a NAT asks whether it is
/// heard.
const UNANSWERED: u32 = 3;
/// In so many of them it sent: one packet alone, such as the last one of a conversation, need not be answered.
const SENDING: u32 = 2;

/// What became of an IKE SA when the machine's network changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// It goes out from the address as before; the peer is asked how it sees us.
    Same,
    /// It moved, by MOBIKE.
    Moved(Path),
    /// There is no way to the peer now: it waits.
    NoRoute,
    /// Our address is another one and MOBIKE is not there to tell the peer: only a new IKE SA helps.
    Stuck,
}

/// Packets of one child, for [`Control::look_for_activity`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Activity {
    sent: u64,
    /// Seconds since the first packet without an answer.
    unanswered: u32,
    /// Of those, in how many there were packets.
    sending: u32,
}

impl Activity {
    /// One second has passed. Whether it is time to ask the peer.
    pub(crate) fn second(&mut self, received: bool, sent: u64) -> bool {
        let sending = std::mem::replace(&mut self.sent, sent) != sent;
        if received {
            (self.unanswered, self.sending) = (0, 0);
            return false;
        }
        self.sending += u32::from(sending);
        self.unanswered += u32::from(self.sending > 0);
        let due = self.unanswered >= UNANSWERED && self.sending >= SENDING;
        if due || self.unanswered > 10 * UNANSWERED {
            (self.unanswered, self.sending) = (0, 0);
        }
        due
    }
}

impl Control {
    /// See [`crate::RouterHandle::network_changed`].
    pub(crate) fn network_changed(
        &mut self,
        now: Now,
        ike: IkeSaId,
        addresses: Vec<Ipv4Addr>,
    ) -> Result<PathState, CommandError> {
        let sas = self.endpoint.ike_sas();
        let sa = sas.iter().find(|sa| sa.ike == ike).ok_or(CommandError::UnknownSa)?;
        let Path { local, remote } = sa.path;
        let SocketAddr::V4(broker) = remote else { return Err(CommandError::UnknownSa) };
        let Ok(source) = self.source_towards(broker) else {
            self.endpoint.network_gone(ike)?;
            return Ok(PathState::NoRoute);
        };
        self.endpoint.set_addresses(now, addresses);
        if local.ip() == source && sa.established.is_some() {
            self.endpoint.network_back(now, ike)?;
            return Ok(PathState::Same);
        }
        let path = Path { local: SocketAddr::new(source, local.port()), remote };
        match self.endpoint.update_path(now, ike, path) {
            Ok(()) => Ok(PathState::Moved(path)),
            Err(CommandError::NotNow(_)) if local.ip() == source => Ok(PathState::Same),
            Err(CommandError::NotNow(_)) => Ok(PathState::Stuck),
            Err(error) => Err(error),
        }
    }

    /// The address that the kernel would send from. The tunnel carries IPv6 alone, so that it is never the tunnel's.
    fn source_towards(&self, remote: SocketAddrV4) -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((self.parts.config.listen, 0))?;
        socket.connect(remote)?;
        Ok(socket.local_addr()?.ip())
    }

    /// The same, for NAT detection; unspecified where it can't tell yet.
    pub(crate) fn local_address(&self, remote: SocketAddrV4) -> IpAddr {
        self.source_towards(remote).unwrap_or(IpAddr::V4(self.parts.config.listen))
    }
}

#[cfg(test)]
mod tests {
    use super::Activity;

    #[test]
    fn silence_of_the_peer_is_noticed_while_we_send() {
        let mut activity = Activity::default();
        // Both silent, then both talking.
        assert!((0..10).all(|_| !activity.second(false, 0)));
        assert!((1..10).all(|n| !activity.second(true, n)));
        // We talk alone, now and then.
        assert!(!activity.second(false, 11));
        assert!(!activity.second(false, 11));
        assert!(!activity.second(false, 11));
        assert!(activity.second(false, 12));
        // Asked, and then again after as long.
        assert!(!activity.second(false, 13));
        assert!(!activity.second(true, 14));
        assert!(!activity.second(false, 15));
        assert!(!activity.second(false, 16));
        assert!(activity.second(false, 16));
        // The last packet of a conversation.
        assert!(!activity.second(true, 17));
        assert!(!activity.second(false, 18));
        assert!((0..100).all(|_| !activity.second(false, 18)));
    }
}

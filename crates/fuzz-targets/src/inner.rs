//! What comes out of the tunnel device and out of ESP: inner packets, super-packets; and certificates.

use crate::input::Input;
use ferry6_crypto::aws_lc;
use ferry6_ike::Identity;
use ferry6_ike::certs::{chain_from_payloads, check_crl, verify_peer};
use ferry6_ike::config::Revocation;
use ferry6_ike::wire::cert::encoding;
use ferry6_tun_router::classify::{Ports, parse};
use ferry6_tun_router::gso::Segments;
use ferry6_tun_router::virtio::{Gso, Header};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::time::{Duration, SystemTime};

/// Selector values of any packet.
pub fn inner_packet(data: &[u8]) {
    let Ok(parsed) = parse(data) else { return };
    assert_eq!(data[0] >> 4, 6);
    assert!(parsed.len >= 40 && parsed.len <= data.len());
    assert!(parsed.transport <= data.len() && parsed.transport >= 40);
    assert_eq!(parsed.flow.source.to_be_bytes(), data[8..24]);
    assert_eq!(parsed.flow.destination.to_be_bytes(), data[24..40]);
    assert_eq!(parsed.traffic_class, data[0] << 4 | data[1] >> 4);
    // what lies behind the packet decides nothing
    assert_eq!(parse(&data[..parsed.len]), Ok(parsed));
    if let (Ports::Known(source, destination), 6 | 17) = (parsed.flow.ports, parsed.flow.protocol) {
        let ports = &data[parsed.transport..][..4];
        assert_eq!([source.to_be_bytes(), destination.to_be_bytes()].concat(), ports);
    }
}

/// Splits a super-packet. The segments must be whole packets that carry the same octets, none larger than was said.
///
/// Input: kind, segment size, header length, checksum start and offset, then the packet.
pub fn gso_split(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.u8();
    let header = Header {
        needs_csum: kind & 4 != 0,
        data_valid: kind & 8 != 0,
        gso: match kind & 3 {
            0 => Gso::None,
            1 => Gso::Tcp6,
            2 => Gso::Udp,
            _ => Gso::Other(kind),
        },
        gso_size: input.u16(),
        hdr_len: input.u16(),
        csum_start: input.u16(),
        csum_offset: input.u16(),
    };
    let packet = input.rest();
    let Ok(segments) = Segments::new(&header, packet) else { return };
    let mut out = vec![0; segments.max_len()];
    let mut payload = 0;
    for index in 0..segments.count() {
        let len = segments.write(index, &mut out);
        assert_eq!(len, segments.len(index));
        assert!(len <= segments.max_len());
        payload += len;
        if header.gso == Gso::None {
            assert_eq!(len, packet.len());
        }
    }
    assert!(payload >= packet.len(), "octets were lost");
}

/// A peer's certificate chain, and the anchors and CRLs of a configuration.
///
/// Input: anchor length, leaf length, then anchor, leaf and the rest as a CRL.
pub fn certificates(data: &[u8]) {
    let mut input = Input(data);
    let (anchor, leaf) = (usize::from(input.u16()), usize::from(input.u16()));
    let (anchor, rest) = input.0.split_at(anchor.min(input.0.len()));
    let (leaf, crl) = rest.split_at(leaf.min(rest.len()));
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let anchors = [CertificateDer::from(anchor)];
    let crls = [CertificateRevocationListDer::from(crl)];
    let _ = check_crl(&crls[0]);
    let Ok(chain) =
        chain_from_payloads([(encoding::X509_SIGNATURE, leaf), (encoding::X509_SIGNATURE, anchor)])
    else {
        return;
    };
    let identity = Identity::Rfc822("client@my.domain".to_owned());
    for revocation in [Revocation::Off, Revocation::IfUri, Revocation::Strict] {
        let _ = verify_peer(&aws_lc::PROVIDER, &chain, &identity, &anchors, &crls, revocation, wall);
    }
}

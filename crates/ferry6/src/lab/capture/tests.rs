use super::*;

/// An Ethernet frame with IPv4.
fn ipv4(protocol: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + body.len() as u16).to_be_bytes());
    frame.extend([1, 2]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, protocol, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    frame.extend(body);
    frame
}

fn udp_frame(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    body.extend((8 + payload.len() as u16).to_be_bytes());
    body.extend([0, 0]);
    body.extend(payload);
    ipv4(17, 0, &body)
}

fn ike(length: usize) -> Vec<u8> {
    let mut message = vec![0x55; length];
    message[17] = 0x20;
    message[24..28].copy_from_slice(&(length as u32).to_be_bytes());
    message
}

fn classify(frame: &[u8]) -> FrameKind {
    Classifier::default().classify(frame, &[])
}

#[test]
fn each_kind() {
    let marked = |message: Vec<u8>| [vec![0; 4], message].concat();
    let mut arp = vec![0; 42];
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(classify(&arp), FrameKind::Arp);
    assert_eq!(classify(&udp_frame(40_000, 500, &ike(200))), FrameKind::Ike);
    assert_eq!(classify(&udp_frame(500, 500, &ike(28))), FrameKind::Ike);
    assert_eq!(classify(&udp_frame(4500, 40_000, &marked(ike(80)))), FrameKind::IkeNat);
    assert_eq!(classify(&udp_frame(4500, 4500, &[0xff])), FrameKind::Keepalive);
    assert_eq!(classify(&udp_frame(4500, 4500, &[0, 0, 1, 0, 0, 0, 0, 1, 9, 9])), FrameKind::EspInUdp(0x100));
    assert_eq!(classify(&ipv4(50, 0, &[1, 2, 3, 4, 0, 0, 0, 1])), FrameKind::Esp(0x0102_0304));
    // A frame padded to the Ethernet minimum is what its header says.
    let mut padded = udp_frame(4500, 4500, &[0xff]);
    padded.resize(60, 0);
    assert_eq!(classify(&padded), FrameKind::Keepalive);
}

#[test]
fn what_only_looks_like_ipsec_is_other() {
    let other = |frame: &[u8]| match classify(frame) {
        FrameKind::Other(kind) => kind,
        kind => panic!("taken for {kind:?}"),
    };
    let mut wrong_length = ike(100);
    wrong_length.push(0);
    let mut version_1 = ike(100);
    version_1[17] = 0x10;
    assert_eq!(other(&udp_frame(500, 500, &wrong_length)), "UDP 500 to 500, not IKEv2");
    assert_eq!(other(&udp_frame(500, 500, &version_1)), "UDP 500 to 500, not IKEv2");
    assert_eq!(
        other(&udp_frame(4500, 1, &[0, 0, 0, 0, 1])),
        "UDP 4500 to 1 with a non-ESP marker, not IKEv2"
    );
    assert_eq!(other(&udp_frame(4500, 1, &[0, 0, 0, 99, 0, 0, 0, 1])), "UDP 4500 to 1, neither IKE nor ESP");
    assert_eq!(other(&udp_frame(4500, 1, &[1, 2, 3])), "UDP 4500 to 1, neither IKE nor ESP");
    assert_eq!(other(&udp_frame(53, 1, b"query")), "UDP 53 to 1");
    assert_eq!(other(&ipv4(6, 0, &[0; 20])), "IPv4, protocol 6");
    assert_eq!(other(&ipv4(41, 0, &[0x60; 40])), "IPv4, protocol 41");
    assert_eq!(other(&ipv4(1, 0, &[3, 4, 0, 0])), "ICMP type 3 code 4");
    let mut ipv6 = vec![0; 54];
    ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
    ipv6[20] = 58;
    assert_eq!(other(&ipv6), "IPv6, next header 58");
}

#[test]
fn fragments_belong_to_their_first() {
    let mut body = [4500u16.to_be_bytes(), 4500u16.to_be_bytes()].concat();
    body.extend([0, 200, 0, 0, 0, 0, 0, 0]);
    body.extend(ike(160));
    let mut classifier = Classifier::default();
    let rest = ipv4(17, 21, &[9; 80]);
    assert!(matches!(classifier.classify(&rest, &[]), FrameKind::Other(_)), "no first fragment yet");
    assert_eq!(classifier.classify(&ipv4(17, 0x2000, &body), &[]), FrameKind::IkeNat);
    assert_eq!(classifier.classify(&rest, &[]), FrameKind::IkeNat);
}

#[test]
fn no_frame_panics() {
    let frames = [udp_frame(4500, 4500, &ike(100)), ipv4(1, 0, &[3, 4]), ipv4(50, 0, &[1])];
    for frame in &frames {
        for length in 0..=frame.len() {
            for byte in [0x00, 0x41, 0x45, 0x4f, 0xff] {
                let mut cut = frame[..length].to_vec();
                if let Some(first) = cut.get_mut(ETHERNET) {
                    *first = byte;
                }
                classify(&cut);
                for (head, payload) in segments(&cut, Some(7)) {
                    Classifier::default().classify(head, payload);
                }
            }
        }
    }
}

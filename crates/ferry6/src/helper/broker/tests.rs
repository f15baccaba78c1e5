use super::super::LINE_LIMIT;
use super::*;

fn client(number: u128) -> Client {
    Client {
        identity: format!("client{number}@my.domain"),
        address: Some((0x2a00_u128 << 112 | number).into()),
        prefix: String::new(),
    }
}

fn link() -> Link {
    Link { remote: "192.0.2.1:4500".parse().unwrap(), connection: "clients".into() }
}

fn up(queue: &mut Queue, ike: u64, number: u128) -> bool {
    queue.established(IkeSaId(ike), client(number), link())
}

fn down(queue: &mut Queue, ike: u64) {
    queue.closed(IkeSaId(ike), "192.0.2.9:4500".parse().unwrap(), "peer_deleted");
}

/// What the process would be told next, in one word and by whom.
fn say(queue: &mut Queue) -> Option<(&'static str, Client)> {
    let (_, event) = queue.waiting.pop_first()?;
    queue.said(&event);
    match event {
        Event::Up { client, .. } => Some(("up", client)),
        Event::Down { client, link, reason } => {
            assert_eq!(
                (link.remote.to_string().as_str(), reason.as_str()),
                ("192.0.2.9:4500", "peer_deleted")
            );
            Some(("down", client))
        }
        Event::Stopping => None,
    }
}

#[test]
fn up_and_down_in_their_order() {
    let mut queue = Queue::default();
    up(&mut queue, 1, 1);
    up(&mut queue, 2, 2);
    assert_eq!(say(&mut queue), Some(("up", client(1))));
    down(&mut queue, 1);
    // The same client comes again before its `down` was run.
    up(&mut queue, 3, 1);
    assert_eq!(say(&mut queue), Some(("up", client(2))));
    assert_eq!(say(&mut queue), Some(("down", client(1))));
    assert_eq!(say(&mut queue), Some(("up", client(1))));
    assert_eq!(say(&mut queue), None);
    // An IKE SA that nobody told of.
    down(&mut queue, 77);
    assert_eq!(say(&mut queue), None);
}

/// A client that authenticates anew has two IKE SAs for a while, and is up all the time.
#[test]
fn a_new_ike_sa_of_the_same_client_is_no_event() {
    let mut queue = Queue::default();
    up(&mut queue, 1, 1);
    assert_eq!(say(&mut queue), Some(("up", client(1))));
    up(&mut queue, 2, 1);
    down(&mut queue, 1);
    assert_eq!(say(&mut queue), None);
    down(&mut queue, 2);
    assert_eq!(say(&mut queue), Some(("down", client(1))));
}

/// The helper stands at a hook while clients come and go: what waits does not grow.
#[test]
fn a_flood_leaves_nothing_behind() {
    let mut queue = Queue::default();
    up(&mut queue, 0, 0);
    assert_eq!(say(&mut queue), Some(("up", client(0))));
    for n in 1..100_000 {
        up(&mut queue, n, 1 + u128::from(n % 50));
        down(&mut queue, n);
        // One that was told of, too: one `down` and one `up` of it may wait, not more.
        down(&mut queue, if n == 1 { 0 } else { 1_000_000 + n - 1 });
        up(&mut queue, 1_000_000 + n, 0);
        assert!(queue.waiting.len() <= 2, "{} wait", queue.waiting.len());
    }
    assert_eq!(say(&mut queue), Some(("down", client(0))));
    assert_eq!(say(&mut queue), Some(("up", client(0))));
    assert_eq!(say(&mut queue), None);
    down(&mut queue, 1_099_999);
    assert_eq!(say(&mut queue), Some(("down", client(0))));
    let Queue { live, count, waiting, next: _, ups, told } = queue;
    assert!(live.is_empty() && count.is_empty() && waiting.is_empty() && ups.is_empty() && told.is_empty());
}

/// Nor with clients that stay; those for whom no `up` is run have no `down` either.
#[test]
fn those_beyond_the_limit_go_without() {
    let mut queue = Queue::default();
    let limit = WAITING_LIMIT as u64;
    for n in 0..limit {
        assert!(up(&mut queue, n, n.into()));
    }
    assert!(!up(&mut queue, limit, limit.into()));
    assert_eq!(queue.waiting.len(), WAITING_LIMIT);
    down(&mut queue, limit);
    assert_eq!(queue.waiting.len(), WAITING_LIMIT);
}

/// An identity is what a certificate says, or a peer with a pre-shared key for any.
#[test]
fn what_an_identity_holds_breaks_no_line_and_no_environment() {
    assert_eq!(shown("a\0b\nc\u{7f}ä"), "a?b?c?ä");
    for long in ["ä".repeat(5000), "\"".repeat(5000), "\u{2028}".repeat(5000)] {
        let client =
            Client { identity: shown(&long), address: Some([0xffff; 8].into()), prefix: "f".repeat(43) };
        let link = Link {
            remote: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(),
            connection: shown(&long),
        };
        let line =
            serde_json::to_vec(&Event::Down { client, link, reason: "protocol_error".into() }).unwrap();
        assert!((line.len() as u64) < LINE_LIMIT, "{}", line.len());
    }
}

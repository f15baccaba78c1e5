//! The control socket: what anybody who may connect can write into it, and what its commands read from it.

use crate::input::Input;
use ferry6::control::server::{Call, converse};
use ferry6::control::{Request, Response, render};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

/// The daemon's bound of a request, line end and all.
const REQUEST_LIMIT: usize = 16 * 1024;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
}

/// A conversation with the daemon: each line gets its answer, in order, and no other. Or a daemon's answer, as the
/// commands read and show it.
///
/// Input: which of them, then the octets.
pub fn control_socket(data: &[u8]) {
    let mut input = Input(data);
    let answer = input.u8() & 1 == 1;
    let octets = input.rest();
    if answer {
        let Ok(response) = serde_json::from_slice::<Response>(octets) else { return };
        if let Response::Status(status) = &response {
            assert!(render::status(status).ends_with('\n'));
        }
        let text = serde_json::to_vec(&response).expect("a response is JSON");
        let again: Response = serde_json::from_slice(&text).expect("our own response");
        assert_eq!(serde_json::to_vec(&again).expect("JSON"), text);
        return;
    }
    let said = RUNTIME.with(|runtime| runtime.block_on(conversation(octets)));
    let mut lines = said.split_inclusive(|octet| *octet == b'\n');
    for request in octets.split_inclusive(|octet| *octet == b'\n') {
        let line = lines.next().expect("an answer to each");
        assert_eq!(line.last(), Some(&b'\n'));
        let response: Response = serde_json::from_slice(line).expect("the answer is JSON");
        let too_long =
            request.len() > REQUEST_LIMIT || request.len() == REQUEST_LIMIT && !request.ends_with(b"\n");
        match (response, serde_json::from_slice::<Request>(request)) {
            (Response::Error(text), _) if too_long => {
                assert_eq!(text, "request too long");
                break;
            }
            (Response::Done(echo), Ok(request)) => {
                assert_eq!(echo, format!("{request:?}"));
                let text = serde_json::to_vec(&request).expect("a request is JSON");
                assert_eq!(serde_json::from_slice::<Request>(&text).expect("our own request"), request);
            }
            (Response::Error(text), Err(_)) => assert!(text.starts_with("not a request: "), "{text}"),
            (response, request) => panic!("{response:?} to {request:?}"),
        }
    }
    assert!(lines.next().is_none(), "more answers than requests");
}

/// What the daemon says to these octets. It answers each request with the request.
async fn conversation(octets: &[u8]) -> Vec<u8> {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let (calls, mut called) = mpsc::channel::<Call>(1);
    let daemon = async {
        let _ = converse(theirs, &calls, false).await;
        drop(calls);
    };
    let answers = async {
        while let Some((request, answer)) = called.recv().await {
            let _ = answer.send(Response::Done(format!("{request:?}")));
        }
    };
    let (mut read, mut write) = ours.into_split();
    let asks = async {
        // It hangs up on whoever asks for too much.
        let _ = write.write_all(octets).await;
        let _ = write.shutdown().await;
    };
    let hears = async {
        let mut said = Vec::new();
        let _ = read.read_to_end(&mut said).await;
        said
    };
    tokio::join!(daemon, answers, asks, hears).3
}

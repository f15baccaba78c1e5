use super::http;
use crate::revocation::cache::Cache;
use ferry6_ike::revocation::Verdict;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant, SystemTime};

/// A server that answers each of so many connections with these octets, then holds the last one open.
fn server(answer: &'static [u8], connections: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
            // Until the asker goes away.
            let _ = stream.read(&mut request);
        }
    });
    format!("http://{address}/ca.crl")
}

const PATIENCE: Duration = Duration::from_millis(700);

#[test]
fn content_within_the_limit() {
    let uri = server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", 3);
    assert_eq!(http::get(&uri, 5, PATIENCE).unwrap(), b"hello");
    assert_eq!(http::post(&uri, "application/ocsp-request", b"?", 5, PATIENCE).unwrap(), b"hello");
    assert!(http::get(&uri, 4, PATIENCE).is_err());
}

#[test]
fn a_body_without_an_end_is_cut() {
    // No Content-Length: it ends with the connection, which does not end.
    let uri = server(b"HTTP/1.1 200 OK\r\n\r\nhello", 1);
    let begin = Instant::now();
    assert!(http::get(&uri, 100, PATIENCE).is_err());
    assert!(begin.elapsed() < PATIENCE * 3, "{:?}", begin.elapsed());
}

#[test]
fn a_silent_server_costs_no_more_than_the_patience() {
    let uri = server(b"", 1);
    let begin = Instant::now();
    assert!(http::get(&uri, 100, PATIENCE).is_err());
    assert!(begin.elapsed() < PATIENCE * 3, "{:?}", begin.elapsed());
}

#[test]
fn refusals() {
    let missing = server(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 1);
    assert!(http::get(&missing, 100, PATIENCE).unwrap_err().contains("404"));
    for uri in ["https://127.0.0.1/x", "file:///etc/passwd", "ldap://127.0.0.1/x", "nonsense", ""] {
        assert!(http::get(uri, 100, PATIENCE).is_err(), "{uri}");
    }
}

#[test]
fn the_cache_outlives_the_process_and_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("crls");
    Cache::new(directory.clone()).keep_crl("http://ca/x.crl", vec![1, 2, 3]);
    let cache = Cache::new(directory.clone());
    assert_eq!(*cache.crl("http://ca/x.crl").unwrap(), [1, 2, 3]);
    assert!(cache.crl("http://ca/y.crl").is_none());
    for n in 0..100 {
        cache.keep_crl(&format!("http://ca/{n}.crl"), vec![n]);
    }
    assert!(std::fs::read_dir(&directory).unwrap().count() <= 32);
    assert_eq!(*cache.crl("http://ca/99.crl").unwrap(), [99]);

    let now = SystemTime::now();
    let until = now + Duration::from_secs(60);
    cache.remember(b"a", Verdict { revoked: true, until: Some(until) });
    cache.remember(b"b", Verdict { revoked: false, until: None });
    assert!(cache.verdict(b"a", now).unwrap().revoked);
    assert!(cache.verdict(b"a", until).is_none());
    assert!(cache.verdict(b"b", now).is_none());
}

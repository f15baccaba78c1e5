//! HTTP with bounds: plain, a few redirects, so many octets, so much time.

use std::time::Duration;
use ureq::Agent;
use ureq::http::Uri;

const REDIRECTS: u32 = 3;

fn agent(patience: Duration) -> Agent {
    Agent::config_builder()
        .timeout_global(Some(patience))
        .max_redirects(REDIRECTS)
        // The environment's proxies are for people.
        .proxy(None)
        .user_agent(concat!("ferry6/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

fn http_only(uri: &str) -> Result<(), String> {
    let parsed: Uri = uri.parse().map_err(|e| format!("not an address: {e}"))?;
    match (parsed.scheme_str(), parsed.host()) {
        (Some("http"), Some(_)) => Ok(()),
        _ => Err("only http:// is asked".to_owned()),
    }
}

/// The content behind an address.
///
/// # Errors
/// Anything but 200, more octets than `limit`, or `patience` is over.
pub(super) fn get(uri: &str, limit: usize, patience: Duration) -> Result<Vec<u8>, String> {
    http_only(uri)?;
    let response = agent(patience).get(uri).call().map_err(|e| e.to_string())?;
    body(response, limit)
}

/// The answer to a question.
///
/// # Errors
/// As [`get`].
pub(super) fn post(
    uri: &str,
    content_type: &str,
    question: &[u8],
    limit: usize,
    patience: Duration,
) -> Result<Vec<u8>, String> {
    http_only(uri)?;
    let request = agent(patience).post(uri).content_type(content_type);
    body(request.send(question).map_err(|e| e.to_string())?, limit)
}

fn body(mut response: ureq::http::Response<ureq::Body>, limit: usize) -> Result<Vec<u8>, String> {
    if response.status() != 200 {
        return Err(format!("HTTP status {}", response.status()));
    }
    let reader = response.body_mut().with_config().limit(limit as u64);
    reader.read_to_vec().map_err(|e| e.to_string())
}

//! HTTP: connections and their bounds, what is asked for, and the headers of the answers.

use super::listen::Watched;
use super::{Known, ailment, metrics, page};
use crate::view::ask;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

/// Connections at a time; more are hung up on.
const CONNECTIONS: usize = 64;
/// How long a connection may stand, whatever it does.
const LONGEST: Duration = Duration::from_secs(120);
/// How long a request may take to come, and a connection to rest.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of a request's head, and of what waits to be sent.
const BUFFER: usize = 16 * 1024;
/// Lines of a request's head.
const HEADERS: usize = 64;

/// No script or style but our own two files, no other source of anything, and no frame around it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What all requests share.
pub(super) struct Site {
    pub(super) known: Known,
    /// The control sockets that were named.
    pub(super) sockets: Vec<PathBuf>,
    /// Whether browsers come here by a name: then only those of this machine are taken.
    pub(super) by_name: bool,
}

/// Answers for ever.
pub(super) async fn serve(listener: &Watched, known: Known, sockets: Vec<PathBuf>) {
    let site = Arc::new(Site { known, sockets, by_name: matches!(listener, Watched::Tcp(_)) });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = match listener {
            Watched::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Watched::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: do not spin.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let site = Arc::clone(&site);
        tokio::spawn(async move {
            match stream {
                Stream::Tcp(stream) => converse(stream, site).await,
                Stream::Unix(stream) => converse(stream, site).await,
            }
            drop(place);
        });
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

/// One connection, to its end.
pub(super) async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, site: Arc<Site>) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = answer(&site, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(LONGEST, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!("connection: {error}"),
    }
}

type Answer = Response<Full<Bytes>>;

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

fn answer<B: hyper::body::Body>(site: &Site, request: &Request<B>) -> Answer {
    let mut response = route(site, request);
    // Nobody reads what comes with a question.
    if !request.body().is_end_stream() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn route<B: hyper::body::Body>(site: &Site, request: &Request<B>) -> Answer {
    if site.by_name && !is_own_name(request) {
        // A page elsewhere whose name was made to point here (DNS rebinding) would read us otherwise.
        let why = "the Host header names no loopback address: use http://127.0.0.1 or http://localhost\n";
        return text(StatusCode::MISDIRECTED_REQUEST, PLAIN, why);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let now = Instant::now();
    match request.uri().path() {
        "/" => text(StatusCode::OK, HTML, page::whole(&site.known.views(), nobody(site).as_deref(), now)),
        "/live" => text(StatusCode::OK, HTML, page::live(&site.known.views(), nobody(site).as_deref(), now)),
        "/metrics" => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            text(StatusCode::OK, kind, metrics::all(&site.known.views(), now))
        }
        "/healthz" => health(site, now),
        "/style.css" => text(StatusCode::OK, "text/css; charset=utf-8", include_str!("style.css")),
        "/live.js" => text(StatusCode::OK, "text/javascript; charset=utf-8", include_str!("live.js")),
        "/icon.svg" => text(StatusCode::OK, "image/svg+xml", include_str!("icon.svg")),
        _ => text(StatusCode::NOT_FOUND, PLAIN, "there are: / /metrics /healthz\n"),
    }
}

/// Whether the Host header (or the request's own address) names this machine.
fn is_own_name<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(host) = host.to_str().ok().and_then(|text| text.parse::<hyper::http::uri::Authority>().ok())
    else {
        return false;
    };
    let name = host.host();
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Why there is no daemon at all, if so.
fn nobody(site: &Site) -> Option<String> {
    ask::sockets(&site.sockets).err().map(|error| format!("{error:#}"))
}

fn health(site: &Site, now: Instant) -> Answer {
    let views = site.known.views();
    let mut ill: Vec<String> =
        views.iter().filter_map(|view| Some(format!("{}: {}\n", view.name(), ailment(view, now)?))).collect();
    if views.is_empty() {
        let why = nobody(site).unwrap_or_else(|| "no daemon has answered yet".to_owned());
        ill.push(format!("{why}\n"));
    }
    if ill.is_empty() {
        text(StatusCode::OK, PLAIN, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, ill.concat())
    }
}

//! The admin server: `/live`, `/ready`, `/metrics`, and pages that the daemon adds. Plain HTTP/1.1, GET and HEAD only.
//!
//! Pages may be kept for callers on the same host: the peer's address decides, which nobody can forge over TCP.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::exposition::{self, OPENMETRICS, OlderType, TEXT};
use crate::readiness::Readiness;

/// Connections served at once; the next ones wait in the kernel's backlog. Prometheus, kubelet and a person need three.
const CONNECTIONS_MAX: usize = 64;
/// Longest time for one connection: a scrape takes milliseconds, and idle ones must not use up the 64.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest wait for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Who may read a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches the port.
    Anyone,
    /// Callers on the same host (by a loopback address) only.
    Loopback,
}

/// What a page is asked.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Path without the query.
    pub path: &'a str,
    /// What comes after `?`; empty if nothing does.
    pub query: &'a str,
    /// The `Accept` header; empty if there is none.
    pub accept: &'a str,
    pub peer: SocketAddr,
}

/// What a page answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

impl Answer {
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    pub fn json(body: impl Into<String>) -> Self {
        Self { status: 200, content_type: "application/json", body: body.into() }
    }
}

/// Answers a request below its prefix; `None` is "not found". Must not block: it runs on the runtime.
type Page = Arc<dyn Fn(Request<'_>) -> Option<Answer> + Send + Sync>;

/// The server, before it runs. Cheap to clone.
#[derive(Clone)]
pub struct AdminServer {
    readiness: Readiness,
    metrics: Option<Page>,
    pages: Arc<Vec<(String, Access, Page)>>,
}

impl AdminServer {
    pub fn new(readiness: Readiness) -> Self {
        Self { readiness, metrics: None, pages: Arc::default() }
    }

    /// Serves the registry's metrics under `/metrics`: as OpenMetrics text to those who ask for it, in format 0.0.4 to
    /// everybody else.
    #[must_use]
    pub fn metrics(self, registry: Arc<Registry>) -> Self {
        self.metrics_with_older_types(registry, |_| OlderType::Untyped)
    }

    /// The same; `older` says by its name what a metric of unknown type is in format 0.0.4.
    #[must_use]
    pub fn metrics_with_older_types(
        mut self,
        registry: Arc<Registry>,
        older: impl Fn(&str) -> OlderType + Send + Sync + 'static,
    ) -> Self {
        self.metrics = Some(Arc::new(move |request| {
            let mut body = String::new();
            Some(match prometheus_client::encoding::text::encode(&mut body, &registry) {
                Ok(()) if exposition::wants_openmetrics(request.accept) => {
                    Answer { status: 200, content_type: OPENMETRICS, body }
                }
                Ok(()) => Answer { status: 200, content_type: TEXT, body: exposition::to_text(&body, &older) },
                Err(error) => Answer::text(500, format!("metrics cannot be written: {error}\n")),
            })
        }));
        self
    }

    /// Serves everything at `prefix` and below it. The first page whose prefix fits is asked.
    #[must_use]
    pub fn page(
        mut self,
        prefix: impl Into<String>,
        access: Access,
        page: impl Fn(Request<'_>) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.pages).push((prefix.into(), access, Arc::new(page)));
        self
    }

    /// Serves until the token is cancelled; connections under way are then ended.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> std::io::Result<()> {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else { return Ok(()) };
            let (stream, peer) = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) if is_the_peers_doing(&error) => continue,
                    Err(error) => {
                        // Out of file descriptors, most likely: accepting again at once would spin.
                        tracing::warn!(%error, "admin server cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (server, token) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let service = service_fn(move |request| {
                    let response = server.respond(&request, peer);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIME_MAX)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    () = token.cancelled() => {}
                    outcome = tokio::time::timeout(CONNECTION_TIME_MAX, connection) => {
                        if let Ok(Err(error)) = outcome {
                            tracing::debug!(%error, %peer, "admin connection ended");
                        }
                    }
                }
            });
        }
    }

    fn respond(&self, request: &hyper::Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = into_http(Answer::text(405, "only GET and HEAD\n"));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let uri = request.uri();
        // A header that is no text names nothing that we know.
        let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let query = uri.query().unwrap_or_default();
        into_http(self.answer(Request { path: uri.path(), query, accept, peer }))
    }

    /// The answer to one request: routing, access and the built-in pages.
    pub fn answer(&self, request: Request<'_>) -> Answer {
        match request.path {
            "/live" => return Answer::text(200, "ok\n"),
            "/ready" => return self.ready(),
            "/metrics" => {
                if let Some(answer) = self.metrics.as_ref().and_then(|metrics| metrics(request)) {
                    return answer;
                }
            }
            _ => {}
        }
        let found = self.pages.iter().find(|(prefix, _, _)| is_below(request.path, prefix));
        match found {
            Some((_, Access::Loopback, _)) if !is_loopback(request.peer.ip()) => {
                Answer::text(403, "this page is for callers on the same host only\n")
            }
            Some((_, _, page)) => page(request).unwrap_or_else(not_found),
            None => not_found(),
        }
    }

    fn ready(&self) -> Answer {
        let closed = self.readiness.closed();
        if closed.is_empty() {
            return Answer::text(200, "ready\n");
        }
        let lines: Vec<String> = closed.iter().map(|(name, why)| format!("{name}: {why}\n")).collect();
        Answer::text(503, lines.concat())
    }
}

impl fmt::Debug for AdminServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages: Vec<_> = self.pages.iter().map(|(prefix, access, _)| (prefix, access)).collect();
        f.debug_struct("AdminServer").field("readiness", &self.readiness).field("pages", &pages).finish_non_exhaustive()
    }
}

fn not_found() -> Answer {
    Answer::text(404, "not found\n")
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}

/// Loopback, also in the form that a dual-stack socket shows (`::ffff:127.0.0.1`).
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The peer went away between its SYN and our accept.
fn is_the_peers_doing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn into_http(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    response
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    fn from(peer: &str, path: &'static str) -> Request<'static> {
        Request { path, query: "", accept: "", peer: peer.parse().unwrap() }
    }

    fn server() -> AdminServer {
        AdminServer::new(Readiness::new())
            .page("/v1", Access::Loopback, |request| (request.path == "/v1/enis").then(|| Answer::json("{}")))
    }

    #[test]
    fn introspection_is_for_callers_on_the_same_host() {
        let server = server();
        for local in ["127.0.0.1:40000", "[::1]:40000", "[::ffff:127.0.0.1]:40000"] {
            assert_eq!(server.answer(from(local, "/v1/enis")).status, 200, "{local}");
        }
        for remote in ["10.0.0.7:40000", "[::ffff:10.0.0.7]:40000"] {
            assert_eq!(server.answer(from(remote, "/v1/enis")).status, 403, "{remote}");
            assert_eq!(server.answer(from(remote, "/v1/none")).status, 403, "says nothing about what exists");
            assert_eq!(server.answer(from(remote, "/live")).status, 200, "the kubelet may ask");
        }
    }

    #[test]
    fn only_whole_path_segments_belong_to_a_page() {
        let server = server();
        assert_eq!(server.answer(from("127.0.0.1:1", "/v1")).status, 404);
        assert_eq!(server.answer(from("127.0.0.1:1", "/v1x")).status, 404);
        assert_eq!(server.answer(from("10.0.0.7:1", "/v1x")).status, 404, "not the page's, so no 403");
    }

    #[test]
    fn readiness_names_what_is_missing() {
        let readiness = Readiness::new();
        let gate = readiness.gate("ledger");
        let server = AdminServer::new(readiness);
        let answer = server.answer(from("10.0.0.7:1", "/ready"));
        assert_eq!((answer.status, answer.body.as_str()), (503, "ledger: not started yet\n"));
        gate.open();
        assert_eq!(server.answer(from("10.0.0.7:1", "/ready")).status, 200);
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn metrics_come_over_http_in_the_text_that_is_asked_for() {
        let mut registry = Registry::default();
        let adds = Counter::<u64>::default();
        registry.register("adds", "Pods given an address", adds.clone());
        adds.inc();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(
            AdminServer::new(Readiness::new()).metrics(Arc::new(registry)).serve(listener, shutdown.clone()),
        );
        let get = |accept: &str| format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{accept}Connection: close\r\n\r\n");
        let text = ask(address, &get("")).await;
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains(TEXT), "{text}");
        assert!(text.ends_with("# TYPE adds_total counter\nadds_total 1\n"), "{text}");
        let text = ask(address, &get("Accept: application/openmetrics-text; version=1.0.0\r\n")).await;
        assert!(text.contains(OPENMETRICS), "{text}");
        assert!(text.contains("adds_total 1") && text.ends_with("# EOF\n"), "{text}");
        let refused = ask(address, "POST /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(refused.starts_with("HTTP/1.1 405"), "{refused}");
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}

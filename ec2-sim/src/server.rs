//! The model behind real sockets: EC2's Query protocol, CloudWatch's protocols, the control API under `/_sim/`, and a
//! metadata service per node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use enipool_pool::{InstanceId, Timestamp};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::model::{ApiError, Event, Model, SimConfig};
use crate::shared::SharedModel;
use crate::wire::cloudwatch::Call;
use crate::{control, imds, wire};

/// Largest request body.
const MAX_BODY: usize = 1 << 20;
/// Connections served at once on one listener; more wait.
const MAX_CONNECTIONS: usize = 4096;
/// Also ends connections that lie idle for so long.
const HEADER_TIMEOUT: Duration = Duration::from_mins(2);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the configuration makes no region: {0}")]
    Config(#[from] ApiError),
}

/// A running simulator. Dropping it stops everything that it serves.
#[derive(Debug)]
pub struct Handle {
    endpoint: String,
    shared: SharedModel,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// A metadata service being served; dropping it ends that.
#[derive(Debug)]
pub struct ImdsGuard {
    pub address: Option<SocketAddr>,
    _stop_on_drop: DropGuard,
}

/// A connection to be ended without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the simulated answer is lost")]
pub(crate) struct Hangup;

pub(crate) type Answer = Result<Response<Full<Bytes>>, Hangup>;

/// Binds `address` (port 0: any) and serves a region on it.
pub async fn start(config: SimConfig, address: SocketAddr) -> Result<Handle, ServerError> {
    let listener = TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })?;
    start_on(config, listener)
}

/// Serves a region on a listener that is bound already (inside some network namespace, say). The model's clock starts
/// at the present and follows the runtime's. Must be called inside a tokio runtime.
pub fn start_on(config: SimConfig, listener: TcpListener) -> Result<Handle, ServerError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start = Timestamp(u64::try_from(now.as_millis()).unwrap_or_default());
    let shared = SharedModel::running(Model::new(SimConfig { start, ..config })?);
    let endpoint = listener.local_addr().map_or_else(|_| String::new(), |address| format!("http://{address}"));
    let stop = CancellationToken::new();
    let driver = shared.clone();
    let driver_stop = stop.clone();
    tokio::spawn(async move {
        driver_stop.run_until_cancelled(driver.drive()).await;
    });
    let front = Front { shared: shared.clone(), stop: stop.clone() };
    accept(listener, stop.clone(), move |request| {
        let front = front.clone();
        async move { front.answer(request).await }
    });
    let guard = stop.clone().drop_guard();
    Ok(Handle { endpoint, shared, stop, _stop_on_drop: guard })
}

impl Handle {
    /// `http://ADDRESS:PORT` as the listener sees itself.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn model(&self) -> &SharedModel {
        &self.shared
    }

    /// What becomes effective from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.subscribe()
    }

    /// What is effective now, whatever EC2's describe calls and IMDS show.
    pub fn truth(&self) -> crate::model::Truth {
        self.shared.with(|model| model.truth())
    }

    /// Serves the metadata service of one instance on `listener` until the guard or this handle is dropped.
    pub fn serve_imds(&self, listener: TcpListener, instance: InstanceId) -> ImdsGuard {
        serve_imds(&self.shared, &self.stop, listener, instance)
    }
}

fn serve_imds(
    shared: &SharedModel,
    stop: &CancellationToken,
    listener: TcpListener,
    instance: InstanceId,
) -> ImdsGuard {
    let stop = stop.child_token();
    let address = listener.local_addr().ok();
    let shared = shared.clone();
    accept(listener, stop.clone(), move |request: Request<Incoming>| {
        let answer = imds::answer(&shared, &instance, request.method(), request.uri().path(), request.headers());
        async move { Ok(imds_response(answer)) }
    });
    ImdsGuard { address, _stop_on_drop: stop.drop_guard() }
}

fn imds_response(answer: imds::Answer) -> Response<Full<Bytes>> {
    let content_type = if answer.status.is_success() { "text/plain" } else { "text/html" };
    let mut response = respond(answer.status, content_type, answer.body);
    if let Some(ttl) = answer.ttl {
        response.headers_mut().insert(imds::TTL_HEADER, HeaderValue::from(ttl));
    }
    response
}

/// Serves HTTP/1 on `listener` until `stop`.
fn accept<S, F>(listener: TcpListener, stop: CancellationToken, serve: S)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            // Closed never: this task alone holds the semaphore.
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, say: others end first.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let serve = serve.clone();
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service_fn(serve));
            let stop = stop.clone();
            tokio::spawn(async move {
                if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
                    tracing::debug!(%error, "connection ended");
                }
                drop(permit);
            });
        }
    }));
}

/// What the main listener serves.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    pub(crate) shared: SharedModel,
    stop: CancellationToken,
}

impl Front {
    /// For the control API: serves a metadata service for as long as the simulator runs.
    pub(crate) async fn open_imds(&self, address: SocketAddr, instance: InstanceId) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        let guard = serve_imds(&self.shared, &self.stop, listener, instance);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            stop.cancelled().await;
            drop(guard);
        });
        Ok(bound)
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let caller = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(access_key);
        let body = Limited::new(body, MAX_BODY).collect().await;
        if let Some(call) = Call::of(&head) {
            let body = match body {
                // Query's parameters may be in the URL instead.
                Ok(_) if head.method == Method::GET => {
                    Some(Bytes::from(head.uri.query().unwrap_or_default().to_owned()))
                }
                body => body.ok().map(Collected::to_bytes),
            };
            return self.cloudwatch(&call, &head.headers, body.as_deref(), caller).await;
        }
        let Ok(body) = body else {
            let text = format!("the body is longer than {MAX_BODY} bytes or ended early\n");
            return Ok(respond(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", text));
        };
        let body = body.to_bytes();
        if let Some(path) = head.uri.path().strip_prefix("/_sim/") {
            let query = head.uri.query().unwrap_or_default();
            let (status, text) = control::answer(self, &head.method, path, query, &body).await;
            return Ok(respond(status, "application/json", text));
        }
        if head.uri.path() != "/" {
            let text = "EC2 and CloudWatch are at /, the control API at /_sim/\n".to_owned();
            return Ok(respond(StatusCode::NOT_FOUND, "text/plain", text));
        }
        let form = if head.method == Method::POST { &body } else { head.uri.query().unwrap_or_default().as_bytes() };
        if let Some(call) = Call::of_form(form) {
            return self.cloudwatch(&call, &head.headers, Some(form), caller).await;
        }
        self.ec2(&String::from_utf8_lossy(form), caller).await
    }

    async fn ec2(&self, form: &str, caller: Option<&str>) -> Answer {
        let read = wire::query::Params::parse(form).and_then(|params| {
            if caller.is_none() {
                let message = "Request is missing Authentication Token";
                return Err(ApiError { status: 403, ..ApiError::client("MissingAuthenticationToken", message) });
            }
            wire::decode(&params)
        });
        let caller = caller.unwrap_or_default();
        let (reply, rendered) = self.shared.with(|model| match &read {
            Ok((request, dry_run)) => {
                let reply = model.call_with(caller, request, *dry_run);
                let rendered = match &reply.result {
                    Ok(response) => wire::success_answer(model, request.action(), &reply.request_id, response),
                    Err(error) => wire::error_answer(error, &reply.request_id),
                };
                (reply, rendered)
            }
            Err(error) => {
                let reply = model.refuse(caller, "Unreadable", error.clone());
                let rendered = wire::error_answer(error, &reply.request_id);
                (reply, rendered)
            }
        });
        self.shared.wait(reply.latency).await;
        if !reply.answered {
            return Err(Hangup);
        }
        let status = match &reply.result {
            Ok(_) => StatusCode::OK,
            Err(error) => {
                tracing::debug!(caller, code = %error.code, message = %error.message, "refused");
                StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
        };
        let mut response = respond(status, "text/xml;charset=UTF-8", rendered);
        if let Ok(id) = HeaderValue::from_str(&reply.request_id) {
            response.headers_mut().insert("x-amzn-requestid", id);
        }
        Ok(response)
    }
}

/// The access key in a SigV4 header; the signature itself is not checked.
fn access_key(authorization: &str) -> Option<&str> {
    let credential = authorization.strip_prefix("AWS4-HMAC-SHA256")?.split("Credential=").nth(1)?;
    credential.split(['/', ',']).next().filter(|key| !key.is_empty())
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_access_key_is_read_from_a_sigv4_header() {
        let header = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/ec2/aws4_request, SignedHeaders=host, Signature=00";
        assert_eq!(access_key(header), Some("AKIAEXAMPLE"));
        assert_eq!(access_key("Basic dXNlcg=="), None);
    }
}

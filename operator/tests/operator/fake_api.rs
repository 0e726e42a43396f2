//! An API server as far as the operator's writers need one: it keeps what is applied, answers with it, and records who
//! asked for what.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

#[derive(Debug, Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    objects: Mutex<BTreeMap<String, Value>>,
    count: watch::Sender<usize>,
    refuse_next: Mutex<u32>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FakeApi(Arc<Shared>);

impl FakeApi {
    pub(crate) async fn start() -> (Self, Client) {
        let api = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let server = server.clone();
                        async move { Ok::<_, Infallible>(server.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let mut config = kube::Config::new(uri);
        config.default_retry = false;
        (api, Client::try_from(config).unwrap())
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.calls.lock().unwrap().clone()
    }

    /// Waits until there have been so many calls.
    pub(crate) async fn wait_for(&self, calls: usize) -> Vec<Call> {
        let mut count = self.0.count.subscribe();
        let reached = count.wait_for(|count| *count >= calls);
        let in_time = tokio::time::timeout(Duration::from_secs(20), reached).await.is_ok();
        assert!(in_time, "only {} of {calls} calls came: {:#?}", self.calls().len(), self.calls());
        self.calls()
    }

    /// The next calls fail as an overloaded API server fails them.
    pub(crate) fn refuse_next(&self, calls: u32) {
        *self.0.refuse_next.lock().unwrap() = calls;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = head.uri.path().to_owned();
        let call = Call {
            method: head.method.clone(),
            path: path.clone(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        };
        let refused = {
            let mut left = self.0.refuse_next.lock().unwrap();
            let refused = *left > 0;
            *left = left.saturating_sub(1);
            refused
        };
        let answer = if refused {
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503, "reason": "ServiceUnavailable", "message": "busy"})
        } else if head.method == Method::PATCH {
            self.patched(&path, call.body.clone())
        } else {
            json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        };
        let number = {
            let mut calls = self.0.calls.lock().unwrap();
            calls.push(call);
            calls.len()
        };
        self.0.count.send_replace(number);
        let status = if refused { 503 } else { 200 };
        Response::builder().status(status).body(Full::new(Bytes::from(answer.to_string()))).unwrap()
    }

    fn patched(&self, path: &str, mut object: Value) -> Value {
        let mut objects = self.0.objects.lock().unwrap();
        let version = objects.len() + self.calls().len() + 100;
        let name = path.rsplit('/').next().unwrap().to_owned();
        if object.get("spec").is_none() {
            object["spec"] = json!({});
        }
        object["apiVersion"] = json!("enipool.dev/v1alpha1");
        object["kind"] = json!("ENIPool");
        object["metadata"]["name"] = json!(name);
        object["metadata"]["uid"] = json!(format!("uid-of-{name}"));
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        objects.insert(name, object.clone());
        object
    }
}

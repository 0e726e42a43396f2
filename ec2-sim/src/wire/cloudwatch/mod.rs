//! CloudWatch's three protocols: RPC v2 CBOR (the AWS SDKs for Rust, Go, Java), JSON 1.0 (botocore) and Query (older
//! clients). They carry the same structures: each is read into a tree, and written from one.

mod answer;
mod cbor;
mod decode;
mod form;
mod gzip;
mod json;
mod tree;

use std::borrow::Cow;

use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderName};
use hyper::http::request::Parts;

pub use answer::Rendered;

use crate::model::cloudwatch::{Request, error};
use crate::model::{ApiError, cloudwatch};

/// What stands for CloudWatch in paths and targets.
const SERVICE: &str = "GraniteServiceVersion20100801";
/// CloudWatch's Version parameter in the Query protocol, which its requests have and EC2's do not.
const VERSION: &str = "2010-08-01";
/// The header that names the action in the JSON protocol.
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
/// What a signature for CloudWatch has in its scope.
const SCOPE: &str = "/monitoring/aws4_request";
/// Longest request, unpacked.
pub const MAX_REQUEST: usize = 1 << 20;

/// How a request came in, and how its answer goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Cbor,
    Json,
    Query,
}

/// A request to CloudWatch whose body has not been read yet.
#[derive(Debug, Clone)]
pub struct Call {
    protocol: Protocol,
    /// Named by the path or by a header; the Query protocol has it among the parameters.
    action: Option<String>,
    /// Whether the client wants to know Query's name of an error as well.
    query_mode: bool,
}

impl Call {
    const QUERY: Self = Self { protocol: Protocol::Query, action: None, query_mode: false };

    /// The call that path and headers make; `None`: it is not for CloudWatch, unless an unsigned form says so.
    pub fn of(head: &Parts) -> Option<Self> {
        let query_mode = head.headers.contains_key("x-amzn-query-mode");
        let call = |protocol, action: &str| Self { protocol, action: Some(action.to_owned()), query_mode };
        if let Some(path) = head.uri.path().strip_prefix("/service/") {
            let action = path.strip_prefix(SERVICE)?.strip_prefix("/operation/")?;
            return Some(call(Protocol::Cbor, action));
        }
        let text = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(target) = text(&TARGET) {
            let action = target.strip_prefix(SERVICE)?.strip_prefix('.')?;
            return Some(call(Protocol::Json, action));
        }
        text(&AUTHORIZATION)?.contains(SCOPE).then_some(Self::QUERY)
    }

    /// The call in the Query protocol that these parameters make, if they are for CloudWatch.
    pub fn of_form(form: &[u8]) -> Option<Self> {
        let is_version = |pair: &[u8]| pair.strip_prefix(b"Version=") == Some(VERSION.as_bytes());
        let ours = form.split(|byte| *byte == b'&').any(is_version);
        ours.then_some(Self::QUERY)
    }

    /// The name that the ledger has for this call before it is read.
    pub fn action(&self) -> &'static str {
        let named = self.action.as_deref().unwrap_or_default();
        cloudwatch::ACTIONS.into_iter().find(|action| *action == named).unwrap_or("Unreadable")
    }

    /// Unpacks and reads the body.
    pub fn decode(&self, headers: &HeaderMap, body: &[u8]) -> Result<Request, ApiError> {
        let encoding = headers.get(CONTENT_ENCODING).map_or(Ok("identity"), |value| value.to_str());
        let body: Cow<'_, [u8]> = match encoding {
            Ok("identity") => body.into(),
            Ok("gzip") => gzip::unpack(body, MAX_REQUEST)?.into(),
            _ => return Err(error::validation("The content encoding is not one of gzip and identity.")),
        };
        if body.len() > MAX_REQUEST {
            return Err(error::too_large(MAX_REQUEST));
        }
        match (self.protocol, &self.action) {
            (Protocol::Cbor, Some(action)) => decode::request(action, &cbor::read(&body)?),
            (Protocol::Json, Some(action)) => decode::request(action, &json::read(&body)?),
            (Protocol::Query, _) | (_, None) => {
                let (action, tree) = form::read(&body)?;
                decode::request(&action, &tree)
            }
        }
    }
}

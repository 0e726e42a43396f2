//! CloudWatch's part of the main listener: from a request to the model's answer, in the protocol that it came in.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::model::ApiError;
use crate::model::cloudwatch::{Request, error};
use crate::server::{Answer, Front, Hangup};
use crate::wire::cloudwatch::{Call, MAX_REQUEST, Rendered};

impl Front {
    /// Answers a call. `body`: `None` when it is too long to be read.
    pub(crate) async fn cloudwatch(
        &self,
        call: &Call,
        headers: &HeaderMap,
        body: Option<&[u8]>,
        caller: Option<&str>,
    ) -> Answer {
        let read = match (caller, body) {
            (None, _) => Err(error::unsigned()),
            (Some(_), None) => Err(error::too_large(MAX_REQUEST)),
            (Some(_), Some(body)) => call.decode(headers, body),
        };
        let caller = caller.unwrap_or_default();
        let action = read.as_ref().map_or_else(|_| call.action(), Request::action);
        let reply = self.shared.with(|model| match read {
            Ok(request) => model.call_cloudwatch(caller, request),
            Err(error) => model.refuse_cloudwatch(caller, action, error),
        });
        self.shared.wait(reply.latency).await;
        if !reply.answered {
            return Err(Hangup);
        }
        Ok(match &reply.result {
            Ok(response) => {
                respond(StatusCode::OK, call.success(action, response, &reply.request_id), &reply.request_id)
            }
            Err(error) => {
                tracing::debug!(caller, code = %error.code, message = %error.message, "refused");
                respond(status(error), call.failure(error, &reply.request_id), &reply.request_id)
            }
        })
    }
}

fn status(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn respond(status: StatusCode, rendered: Rendered, request_id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(rendered.body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Some(content_type) = rendered.content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    let id = ("x-amzn-requestid", request_id.to_owned());
    for (name, value) in rendered.headers.into_iter().chain([id]) {
        // An error code that a fault made up may not be fit for a header.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

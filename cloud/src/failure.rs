//! A failed SDK call, reduced to what the ports' error enums are made of. Knows no service's error codes.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;

/// Longest text of an error that is passed on: it ends up in a status and in logs.
const MESSAGE_MAX: usize = 600;

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum How {
    /// The service answered with an error code.
    Answered { code: String, message: String, status: u16 },
    /// An answer without a code that says of itself that the server failed.
    ServerError,
    /// No connection, or no answer in time.
    NoAnswer,
    /// The request was never sent: there are no credentials to sign it with.
    NoCredentials,
    /// An answer that cannot be read, or a request that cannot be made.
    Unreadable,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) how: How,
    /// For people: code, message and request id, or what the connection says.
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        SdkError<E, HttpResponse>: RequestId,
    {
        let (how, text) = match error {
            SdkError::ServiceError(answer) => {
                let code = answer.err().code().unwrap_or_default().to_owned();
                let message = answer.err().message().unwrap_or_default().to_owned();
                let text = format!("{code}: {message}");
                (How::Answered { code, message, status: answer.raw().status().as_u16() }, text)
            }
            SdkError::ResponseError(answer) if answer.raw().status().is_server_error() => {
                (How::ServerError, format!("HTTP {}", answer.raw().status().as_u16()))
            }
            SdkError::TimeoutError(_) => (How::NoAnswer, "no answer in time".into()),
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
                let text = DisplayErrorContext(error).to_string();
                (undispatched(&text), text)
            }
            _ => (How::Unreadable, DisplayErrorContext(error).to_string()),
        };
        let text = match error.request_id() {
            Some(id) => format!("{}, request {id}", shortened(&text)),
            None => shortened(&text).to_owned(),
        };
        Self { how, text }
    }
}

/// The request did not get an answer, and perhaps never left: without credentials it certainly did not.
fn undispatched(text: &str) -> How {
    if text.to_ascii_lowercase().contains("credentials") { How::NoCredentials } else { How::NoAnswer }
}

fn shortened(text: &str) -> &str {
    text.char_indices().nth(MESSAGE_MAX).map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}

/// Codes by which every AWS service refuses a request for its rate.
pub(crate) fn is_throttling(code: &str) -> bool {
    matches!(
        code,
        "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "EC2ThrottledException"
            | "TooManyRequestsException"
    )
}

/// Codes by which every AWS service refuses what the caller's policies do not allow.
pub(crate) fn is_denial(code: &str) -> bool {
    matches!(code, "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" | "OptInRequired" | "Blocked")
}

/// Codes by which every AWS service refuses the credentials themselves.
pub(crate) fn is_about_credentials(code: &str) -> bool {
    matches!(
        code,
        "AuthFailure"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        assert_eq!(shortened(&"é".repeat(MESSAGE_MAX + 10)).chars().count(), MESSAGE_MAX);
        assert_eq!(shortened("short"), "short");
    }
}

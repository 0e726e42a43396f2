//! Failed calls in CloudWatch's codes and words.
//!
//! Codes: [Common errors](https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CommonErrors.html) and the
//! service model of the SDKs. Messages are those that people quote from CloudWatch, where such are known.

use crate::model::ApiError;

/// A parameter that must be there is not.
pub fn missing(parameter: &str) -> ApiError {
    ApiError::client("MissingParameter", format!("The parameter {parameter} is required."))
}

pub fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameterValue", message)
}

pub fn invalid_combination(message: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameterCombination", message)
}

/// What GetMetricData answers instead of the two above.
pub fn validation(message: impl Into<String>) -> ApiError {
    ApiError::client("ValidationError", message)
}

pub fn invalid_next_token() -> ApiError {
    ApiError::client("InvalidNextToken", "The next token specified is invalid.")
}

/// A part of CloudWatch that is not simulated. Refused, so that nothing is silently left undone.
pub fn not_simulated(what: &str) -> ApiError {
    invalid(format!("{what} is not simulated."))
}

pub(super) fn throttled() -> ApiError {
    ApiError::client("Throttling", "Rate exceeded")
}

/// `user`: the ARN of the caller.
pub(super) fn denied(user: &str, action: &str) -> ApiError {
    let message = format!(
        "User: {user} is not authorized to perform: cloudwatch:{action} because no identity-based policy allows the \
         cloudwatch:{action} action"
    );
    ApiError { status: 403, ..ApiError::client("AccessDenied", message) }
}

pub(super) fn internal() -> ApiError {
    let message = "Request processing has failed due to some unknown error, exception or failure.";
    ApiError { status: 500, ..ApiError::client("InternalServiceError", message) }
}

pub(super) fn unavailable() -> ApiError {
    let message = "The request has failed due to a temporary failure of the server.";
    ApiError { status: 503, ..ApiError::client("ServiceUnavailable", message) }
}

/// The caller did not sign.
pub fn unsigned() -> ApiError {
    let message = "Request is missing Authentication Token";
    ApiError { status: 403, ..ApiError::client("MissingAuthenticationToken", message) }
}

/// More than `limit` bytes, unpacked.
pub fn too_large(limit: usize) -> ApiError {
    let message = format!("Request size exceeded {limit} bytes");
    ApiError { status: 413, ..ApiError::client("RequestEntityTooLarge", message) }
}

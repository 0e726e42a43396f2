//! Calls to the API server, each with a deadline, and what their failures mean.

use std::future::Future;
use std::time::Duration;

/// Longest wait for one call. The API server answers in milliseconds; a call that takes longer is worth repeating.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(10);

/// A call that brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the API server did not answer within {0:?}")]
    Timeout(Duration),
    /// Somebody changed the object since we read it, or holds the field.
    #[error("conflict")]
    Conflict(#[source] Box<kube::Error>),
    #[error("not found")]
    NotFound,
    /// The API server refuses: permissions, or an object that breaks a rule.
    #[error("refused")]
    Refused(#[source] Box<kube::Error>),
    #[error("the API server cannot be reached or failed")]
    Unavailable(#[source] Box<kube::Error>),
}

impl CallError {
    /// A label for metrics: one of a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Conflict(_) => "conflict",
            Self::NotFound => "not_found",
            Self::Refused(_) => "refused",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// The whole story, for a log line.
    pub fn story(&self) -> String {
        match self {
            Self::Timeout(_) | Self::NotFound => self.to_string(),
            Self::Conflict(source) | Self::Refused(source) | Self::Unavailable(source) => format!("{self}: {source}"),
        }
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        let code = match &error {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        };
        match code {
            Some(404) => Self::NotFound,
            Some(409) => Self::Conflict(Box::new(error)),
            Some(400..=499) if code != Some(429) => Self::Refused(Box::new(error)),
            _ => Self::Unavailable(Box::new(error)),
        }
    }
}

/// One call to the API server.
pub async fn call<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_TIME_MAX, request).await {
        Ok(answer) => answer.map_err(CallError::from),
        Err(_) => Err(CallError::Timeout(CALL_TIME_MAX)),
    }
}

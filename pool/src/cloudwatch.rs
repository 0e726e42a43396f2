//! The port to CloudWatch: metrics as plain data, and every way a request fails as a closed enum.
//!
//! `enipool-cloud` implements it with the AWS SDK. Nothing here decides what is sent or when.

use std::fmt;
use std::future::Future;

use crate::time::Timestamp;

/// Most metrics in one request, and most bytes of it
/// ([PutMetricData](https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html)).
pub const METRICS_PER_REQUEST: usize = 1000;

/// CloudWatch's unit of a value, as far as the product uses them
/// ([MetricDatum](https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    Count,
    Percent,
    Seconds,
    Milliseconds,
}

impl Unit {
    /// CloudWatch's name of the unit.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Percent => "Percent",
            Self::Seconds => "Seconds",
            Self::Milliseconds => "Milliseconds",
        }
    }
}

/// One value of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Datum {
    pub name: &'static str,
    /// Name and value of each dimension. CloudWatch keeps a metric for each set of dimensions.
    pub dimensions: Vec<(&'static str, String)>,
    /// A finite number: CloudWatch refuses others.
    pub value: f64,
    pub unit: Unit,
    /// When it was measured. CloudWatch takes values that are up to two weeks old.
    pub at: Timestamp,
}

/// Why CloudWatch did not take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloudWatchErrorKind {
    /// The IAM role does not allow `cloudwatch:PutMetricData` for this namespace.
    AccessDenied,
    /// There are no credentials, or they are expired or wrong.
    Credentials,
    /// CloudWatch refuses the request for its rate.
    Throttled,
    /// No connection, or no answer in time.
    NoAnswer,
    /// CloudWatch failed.
    Internal,
    /// CloudWatch refuses what the request says. The same values are refused again.
    Refused,
}

impl CloudWatchErrorKind {
    pub const ALL: [Self; 6] =
        [Self::AccessDenied, Self::Credentials, Self::Throttled, Self::NoAnswer, Self::Internal, Self::Refused];

    /// For metrics' labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::Credentials => "credentials",
            Self::Throttled => "throttled",
            Self::NoAnswer => "no_answer",
            Self::Internal => "internal",
            Self::Refused => "refused",
        }
    }

    /// Whether the same values may be accepted later.
    pub fn is_temporary(self) -> bool {
        self != Self::Refused
    }

    /// What a person can do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::AccessDenied => {
                "allow cloudwatch:PutMetricData for the namespace Kubernetes in the operator's IAM role (deploy/iam/cloudwatch.json)"
            }
            Self::Credentials => {
                "give the operator an IAM role: by its service account's annotation, by EKS Pod Identity, or by its node"
            }
            Self::Throttled => "raise the account's quota for PutMetricData, or the metrics' interval",
            Self::NoAnswer => {
                "let the operator reach the CloudWatch endpoint of its region (in a VPC without internet access: the VPC endpoint com.amazonaws.REGION.monitoring)"
            }
            Self::Internal => "nothing; the values are sent again",
            Self::Refused => "report it as a fault of enipool, with this message",
        }
    }
}

/// A request that CloudWatch did not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CloudWatchError {
    pub kind: CloudWatchErrorKind,
    /// CloudWatch's own code and message, or what the connection says.
    pub message: String,
}

impl fmt::Display for CloudWatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.label(), self.message)
    }
}

/// CloudWatch, as the product needs it. Every call has a deadline of its own in the adapter. A call that got no answer may
/// have happened: the same values again count twice in a sum over the period, and not at all in an average.
pub trait CloudWatch: Send + Sync + 'static {
    /// Sends at most [`METRICS_PER_REQUEST`] values.
    fn put_metric_data(
        &self,
        namespace: &str,
        data: &[Datum],
    ) -> impl Future<Output = Result<(), CloudWatchError>> + Send;
}

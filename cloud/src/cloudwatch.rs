//! CloudWatch behind [`CloudWatch`]: one SDK call for each request, translated both ways.

use std::fmt;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};
use enipool_pool::cloudwatch::{CloudWatch, CloudWatchError, CloudWatchErrorKind, Datum, Unit};

use crate::failure::{Failure, How, is_about_credentials, is_denial, is_throttling};

/// CloudWatch in one region, with one set of credentials. Cheap to clone.
#[derive(Clone)]
pub struct AwsCloudWatch(Client);

impl AwsCloudWatch {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }
}

impl fmt::Debug for AwsCloudWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsCloudWatch")
    }
}

impl CloudWatch for AwsCloudWatch {
    async fn put_metric_data(&self, namespace: &str, data: &[Datum]) -> Result<(), CloudWatchError> {
        let data = data.iter().map(datum).collect();
        let request = self.0.put_metric_data().namespace(namespace).set_metric_data(Some(data));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let Failure { how, text } = Failure::of(&error);
                Err(CloudWatchError { kind: kind(&how), message: text })
            }
        }
    }
}

fn datum(datum: &Datum) -> MetricDatum {
    let dimension = |(name, value): &(&str, String)| Dimension::builder().name(*name).value(value).build();
    MetricDatum::builder()
        .metric_name(datum.name)
        .set_dimensions(Some(datum.dimensions.iter().map(dimension).collect()))
        .timestamp(DateTime::from_millis(i64::try_from(datum.at.0).unwrap_or(i64::MAX)))
        .value(datum.value)
        .unit(match datum.unit {
            Unit::Count => StandardUnit::Count,
            Unit::Percent => StandardUnit::Percent,
            Unit::Seconds => StandardUnit::Seconds,
            Unit::Milliseconds => StandardUnit::Milliseconds,
        })
        .build()
}

/// CloudWatch's codes
/// ([common errors](https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CommonErrors.html)).
fn kind(how: &How) -> CloudWatchErrorKind {
    match how {
        How::Answered { code, .. } if is_throttling(code) => CloudWatchErrorKind::Throttled,
        How::Answered { code, .. } if is_denial(code) || code == "NotAuthorized" => CloudWatchErrorKind::AccessDenied,
        How::Answered { code, .. } if is_about_credentials(code) => CloudWatchErrorKind::Credentials,
        How::Answered { status, .. } if *status >= 500 => CloudWatchErrorKind::Internal,
        How::Answered { .. } | How::Unreadable => CloudWatchErrorKind::Refused,
        How::ServerError => CloudWatchErrorKind::Internal,
        How::NoAnswer => CloudWatchErrorKind::NoAnswer,
        How::NoCredentials => CloudWatchErrorKind::Credentials,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_of_the_kind_that_says_what_to_do() {
        let answered = |code: &str, status| How::Answered { code: code.into(), message: String::new(), status };
        for (how, expected) in [
            (answered("AccessDenied", 403), CloudWatchErrorKind::AccessDenied),
            (answered("AccessDeniedException", 400), CloudWatchErrorKind::AccessDenied),
            (answered("ExpiredToken", 403), CloudWatchErrorKind::Credentials),
            (answered("Throttling", 400), CloudWatchErrorKind::Throttled),
            (answered("InternalServiceFault", 500), CloudWatchErrorKind::Internal),
            (answered("ServiceUnavailable", 503), CloudWatchErrorKind::Internal),
            (answered("InvalidParameterValue", 400), CloudWatchErrorKind::Refused),
            (How::NoAnswer, CloudWatchErrorKind::NoAnswer),
            (How::ServerError, CloudWatchErrorKind::Internal),
            (How::NoCredentials, CloudWatchErrorKind::Credentials),
        ] {
            assert_eq!(kind(&how), expected, "{how:?}");
        }
    }
}

//! The way to AWS: TLS, region, credentials, time limits. One HTTP client for everything.

use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::imds;
use aws_config::meta::region::RegionProviderChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use crate::{AwsCloudWatch, AwsEc2, AwsImds};

/// Longest wait for a TCP and TLS connection: the endpoint is in the same region.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Longest wait for one answer of IMDS, which is on the same host: milliseconds as a rule.
const IMDS_TIME_MAX: Duration = Duration::from_secs(2);
/// Attempts at one IMDS call. Reading changes nothing, and IMDS refuses bursts of instances that boot.
const IMDS_ATTEMPTS_MAX: u32 = 3;

/// What the caller decides.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name in the user agent of every call, for CloudTrail: letters, digits and `-`.
    pub app_name: &'static str,
    /// Region; `None`: `AWS_REGION`, the profile, then IMDS.
    pub region: Option<String>,
    /// Longest wait for one EC2 answer, connection included.
    pub call_time_max: Duration,
}

impl Options {
    pub fn new(app_name: &'static str) -> Self {
        Self { app_name, region: None, call_time_max: Duration::from_secs(15) }
    }
}

/// AWS, connected as far as that goes without a call.
#[derive(Debug, Clone)]
pub struct Aws {
    pub ec2: AwsEc2,
    pub cloudwatch: AwsCloudWatch,
    pub imds: AwsImds,
    pub region: String,
}

/// No way to AWS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("no AWS region: set AWS_REGION, or let the instance metadata service be reached")]
    NoRegion,
    #[error("{0:?} is no name for the user agent")]
    AppName(&'static str),
}

/// Reads environment, profile and, if it must, IMDS. Calls no other service.
pub async fn connect(options: Options) -> Result<Aws, ConnectError> {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let app_name = AppName::new(options.app_name).map_err(|_| ConnectError::AppName(options.app_name))?;
    let provider = ProviderConfig::default().with_http_client(http.clone());
    let imds = imds::Client::builder()
        .configure(&provider)
        .connect_timeout(IMDS_TIME_MAX)
        .read_timeout(IMDS_TIME_MAX)
        .max_attempts(IMDS_ATTEMPTS_MAX)
        .build();
    let from_imds = imds::region::ImdsRegionProvider::builder().configure(&provider).imds_client(imds.clone()).build();
    let region = RegionProviderChain::first_try(options.region.map(Region::new))
        .or_else(aws_config::environment::EnvironmentVariableRegionProvider::new())
        .or_else(aws_config::profile::ProfileFileRegionProvider::builder().configure(&provider).build())
        .or_else(from_imds)
        .region()
        .await
        .ok_or(ConnectError::NoRegion)?;
    let credentials = DefaultCredentialsChain::builder()
        .configure(provider.with_region(Some(region.clone())))
        .imds_client(imds.clone())
        .build()
        .await;
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .app_name(app_name)
        .http_client(http)
        .region(region.clone())
        .credentials_provider(credentials)
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIME_MAX)
                .operation_attempt_timeout(options.call_time_max)
                .operation_timeout(options.call_time_max)
                .build(),
        )
        .load()
        .await;
    Ok(Aws {
        ec2: AwsEc2::new(aws_sdk_ec2::Client::new(&shared)),
        cloudwatch: AwsCloudWatch::new(aws_sdk_cloudwatch::Client::new(&shared)),
        imds: AwsImds::new(imds),
        region: region.to_string(),
    })
}

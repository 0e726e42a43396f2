//! The instance metadata service, version 2, behind [`Imds`].
//!
//! Paths: [Instance metadata categories](https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html).

use std::fmt;
use std::str::FromStr;

use aws_config::imds::client::Client;
use aws_config::imds::client::error::ImdsError as SdkError;
use aws_smithy_types::error::display::DisplayErrorContext;
use enipool_pool::imds::{Imds, ImdsEni, ImdsError, InstanceIdentity};
use enipool_pool::{InstanceType, MacAddress, SubnetCidr, Zone};

const ROOT: &str = "/latest/meta-data/";

/// IMDS of the instance that this process runs on. Cheap to clone; the session token is cached and renewed inside.
#[derive(Clone)]
pub struct AwsImds(Client);

impl AwsImds {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// The text at a path below `/latest/meta-data/`.
    async fn text(&self, path: &str) -> Result<String, ImdsError> {
        match self.0.get(format!("{ROOT}{path}")).await {
            Ok(text) => Ok(text.as_ref().trim().to_owned()),
            Err(error) => Err(failure(path, &error)),
        }
    }

    async fn value<T: FromStr>(&self, path: &str) -> Result<T, ImdsError> {
        parse(path, &self.text(path).await?)
    }

    /// One value a line; a path that does not exist means none. IMDS leaves empty categories out.
    async fn list<T: FromStr>(&self, path: &str) -> Result<Vec<T>, ImdsError> {
        match self.text(path).await {
            Ok(text) => text.lines().map(|line| parse(path, line.trim())).collect(),
            Err(ImdsError::NotFound(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn value_or<T: FromStr>(&self, path: &str, absent: T) -> Result<T, ImdsError> {
        match self.value(path).await {
            Err(ImdsError::NotFound(_)) => Ok(absent),
            outcome => outcome,
        }
    }
}

impl fmt::Debug for AwsImds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsImds")
    }
}

impl Imds for AwsImds {
    async fn identity(&self) -> Result<InstanceIdentity, ImdsError> {
        Ok(InstanceIdentity {
            instance: self.value("instance-id").await?,
            instance_type: InstanceType::new(self.text("instance-type").await?),
            zone: Zone::new(self.text("placement/availability-zone").await?),
            region: self.text("placement/region").await?,
            primary_mac: self.value("mac").await?,
            primary_ip: self.value("local-ipv4").await?,
        })
    }

    async fn macs(&self) -> Result<Vec<MacAddress>, ImdsError> {
        let path = "network/interfaces/macs/";
        self.text(path).await?.lines().map(|line| parse(path, line.trim().trim_end_matches('/'))).collect()
    }

    async fn eni(&self, mac: MacAddress) -> Result<ImdsEni, ImdsError> {
        let path = |leaf: &str| format!("network/interfaces/macs/{mac}/{leaf}");
        Ok(ImdsEni {
            id: self.value(&path("interface-id")).await?,
            mac,
            device_index: self.value(&path("device-number")).await?,
            // Only instances with several network cards have it.
            network_card: self.value_or(&path("network-card"), 0).await?,
            subnet: self.value(&path("subnet-id")).await?,
            subnet_cidr: SubnetCidr(self.value(&path("subnet-ipv4-cidr-block")).await?),
            vpc: self.value(&path("vpc-id")).await?,
            vpc_cidrs: self.list(&path("vpc-ipv4-cidr-blocks")).await?,
            addresses: self.list(&path("local-ipv4s")).await?,
            prefixes: self.list(&path("ipv4-prefix")).await?,
            security_groups: self.list(&path("security-group-ids")).await?,
        })
    }
}

fn parse<T: FromStr>(path: &str, value: &str) -> Result<T, ImdsError> {
    value.parse().map_err(|_| ImdsError::Malformed { path: path.into(), value: value.into() })
}

fn failure(path: &str, error: &SdkError) -> ImdsError {
    match error {
        SdkError::ErrorResponse(answer) if answer.response().status().as_u16() == 404 => {
            ImdsError::NotFound(path.into())
        }
        other => ImdsError::Unavailable(format!("{path}: {}", DisplayErrorContext(other))),
    }
}

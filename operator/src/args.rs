//! Flags and environment, parsed once. A wrong value stops the process with the flag's name.

use std::net::SocketAddr;
use std::path::Path;

use clap::Parser;
use enipool_crds::ENIPoolClassSpec;
use enipool_daemon::{LogFormat, logging};

use crate::default_class::{self, FileError};

/// Plans how many network interfaces and addresses each node of the cluster holds (one ENIPool per Node), and deletes
/// ENIs whose node is gone. AWS region, endpoint and credentials come from the AWS SDK's own environment variables and
/// from the instance metadata service.
#[derive(Debug, Clone, Parser)]
#[command(name = "enipool-operator", version)]
pub struct Args {
    /// Namespace of the leader election's Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "kube-system", value_parser = not_empty)]
    pub namespace: String,

    /// Name of the leader election's Lease.
    #[arg(long, env = "LEASE_NAME", default_value = "enipool-operator", value_parser = not_empty)]
    pub lease: String,

    /// Name of this replica in the Lease. Must be unique among the replicas: the pod's name.
    #[arg(long, env = "POD_NAME", value_parser = not_empty)]
    pub identity: String,

    /// Name of the cluster: in the tag cluster.k8s.amazonaws.com/name of its ENIs. Without it leaked ENIs are not
    /// collected, because ENIs of another cluster in the same VPC look the same.
    #[arg(long, env = "CLUSTER_NAME", default_value = "")]
    pub cluster_name: String,

    /// File with the spec of the class `default` (YAML), applied at start.
    #[arg(long = "default-class-file", env = "DEFAULT_CLASS_FILE", value_name = "FILE", value_parser = class_file)]
    pub default_class: Option<ENIPoolClassSpec>,

    /// Share of the account's EC2 request rate that the pool may use, in percent; the rest is left to others.
    #[arg(long, env = "EC2_SHARE", default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub ec2_share: u32,

    /// Send the cluster's metrics to CloudWatch, namespace Kubernetes. Needs --cluster-name or --cloudwatch-cluster-id, and
    /// the IAM permission cloudwatch:PutMetricData.
    #[arg(long, env = "CLOUDWATCH", default_value_t = false, action = clap::ArgAction::Set)]
    pub cloudwatch: bool,

    /// Value of CloudWatch's dimension CLUSTER_ID. Empty: the name of the cluster.
    #[arg(long, env = "CLOUDWATCH_CLUSTER_ID", default_value = "")]
    pub cloudwatch_cluster_id: String,

    /// Seconds between two rounds of the cluster's metrics in the log and in CloudWatch.
    #[arg(long, env = "METRICS_INTERVAL", default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=3600))]
    pub metrics_interval: u64,

    /// Where /live, /ready and /metrics are served.
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "0.0.0.0:61682")]
    pub admin_address: SocketAddr,

    /// `text` or `json`.
    #[arg(long, env = "LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Log levels, as in `info,enipool_operator=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = logging::filter)]
    pub log_level: String,
}

impl Args {
    /// What CloudWatch calls the cluster; `None` while CloudWatch is off.
    ///
    /// # Errors
    /// When CloudWatch is on and the cluster has no name.
    pub fn cloudwatch_cluster(&self) -> Result<Option<&str>, NoClusterName> {
        let names = [self.cloudwatch_cluster_id.as_str(), self.cluster_name.as_str()];
        match (self.cloudwatch, names.into_iter().find(|name| !name.is_empty())) {
            (false, _) => Ok(None),
            (true, Some(name)) => Ok(Some(name)),
            (true, None) => Err(NoClusterName),
        }
    }
}

/// CloudWatch is on, and the cluster has no name there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("--cloudwatch needs --cluster-name or --cloudwatch-cluster-id: the metrics of two clusters would be one")]
pub struct NoClusterName;

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text.into()) }
}

fn class_file(path: &str) -> Result<ENIPoolClassSpec, FileError> {
    default_class::read(Path::new(path))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_wrong_value_is_refused_with_the_flags_name() {
        for (flag, value) in [
            ("--ec2-share", "101"),
            ("--admin-address", "here"),
            ("--log-format", "loud"),
            ("--log-level", "operator=loud"),
            ("--namespace", ""),
            ("--cloudwatch", "yes"),
            ("--metrics-interval", "9"),
            ("--default-class-file", "/no/such/file"),
        ] {
            let error = Args::try_parse_from(["enipool-operator", "--identity", "a", flag, value]).unwrap_err();
            assert!(error.to_string().contains(flag), "{error}");
        }
        assert!(Args::try_parse_from(["enipool-operator", "--identity", ""]).is_err());
    }

    #[test]
    fn cloudwatch_needs_a_name_for_the_cluster() {
        let cluster = |flags: &[&str]| {
            let flags = ["enipool-operator", "--identity", "a"].iter().chain(flags);
            let args = Args::try_parse_from(flags).unwrap();
            args.cloudwatch_cluster().map(|cluster| cluster.map(str::to_owned))
        };
        assert_eq!(cluster(&["--cluster-name", "prod"]), Ok(None));
        assert_eq!(cluster(&["--cloudwatch", "true"]), Err(NoClusterName));
        assert_eq!(cluster(&["--cloudwatch", "true", "--cluster-name", "prod"]), Ok(Some("prod".into())));
        let both = ["--cloudwatch", "true", "--cluster-name", "prod", "--cloudwatch-cluster-id", "old"];
        assert_eq!(cluster(&both), Ok(Some("old".into())));
    }

    #[test]
    fn every_flag_can_come_from_the_environment_and_is_explained() {
        for argument in Args::command().get_arguments().filter(|argument| argument.get_id() != "help") {
            if argument.get_id() != "version" {
                assert!(argument.get_env().is_some(), "{}", argument.get_id());
            }
            assert!(argument.get_help().is_some(), "{}", argument.get_id());
        }
    }
}

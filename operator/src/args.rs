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
            ("--default-class-file", "/no/such/file"),
        ] {
            let error = Args::try_parse_from(["enipool-operator", "--identity", "a", flag, value]).unwrap_err();
            assert!(error.to_string().contains(flag), "{error}");
        }
        assert!(Args::try_parse_from(["enipool-operator", "--identity", ""]).is_err());
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

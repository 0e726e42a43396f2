//! Flags and environment, parsed once. Every setting of the AWS plugin that still makes sense keeps its variable's name;
//! a value that is not understood stops the process with that name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{ArgAction, Args as ClapArgs, CommandFactory as _, Parser, Subcommand};
use enipool_daemon::{LogFormat, arguments, logging};
use enipool_pool::ec2::Tags;
use enipool_pool::targets::{Addressing, Policy, TargetError, Targets};
use ipnet::Ipv4Net;

use crate::chained;
use crate::dataplane::{self, DataplaneConfig, Randomization, Snat, VethPrefix};
use crate::engine::{EffectiveConfig, instance_type};
use crate::status::kept;
use crate::status::wishes::{HostWishes, Wishes};

/// The agent of one node: keeps addresses from EC2 at hand, gives them to pods, and reports into the node's ENIPool.
#[derive(Debug, Parser)]
#[command(name = "enipool-agent", version, about, long_about = LONG_ABOUT)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// Reads flags and environment. What is not understood ends the process with its name, before anything is started.
    pub fn of_process() -> Self {
        arguments::parse::<Self>().checked().unwrap_or_else(|error| error.exit())
    }

    /// Refuses what the pool's rules do not allow, too.
    fn checked(self) -> Result<Self, clap::Error> {
        match &self.command {
            Command::Run(run) => run.wishes().map(drop),
            Command::Install(_) | Command::Doctor(_) | Command::Cleanup(_) => Ok(()),
        }
        .map_err(|error| Self::command().error(ErrorKind::ValueValidation, error))?;
        Ok(self)
    }
}

const LONG_ABOUT: &str = "\
The agent of one node: keeps addresses from EC2 at hand, gives them to pods, and reports into the node's ENIPool.

It serves the CNI plugin enipool-cni over a unix socket, calls EC2 when the pool needs more or less, and sets up \
interfaces, routes and one nftables table. With the operator or the API server away it goes on by itself.

Settings can be given as flags or in the environment. An ENIPoolClass, and above it the node's ENIPool, override the \
warm targets given here, at any time and without a restart.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve this node (what the DaemonSet runs).
    Run(Box<RunArgs>),
    /// Put the CNI plugin and the support script into the host's plugin folder, then end (the DaemonSet's init container).
    Install(InstallArgs),
    /// Compare what EC2, the agent's ledger and the kernel say; exit 1 and name the differences if they differ.
    Doctor(DoctorArgs),
    /// Remove everything of enipool from this node's kernel and CNI configuration. Pods lose their network: drain first.
    Cleanup(CleanupArgs),
}

#[derive(Debug, Clone, ClapArgs)]
pub struct Paths {
    /// Unix socket on which the CNI plugin reaches the agent.
    #[arg(long, env = "ENIPOOL_SOCKET", default_value = "/run/enipool/cni.sock")]
    pub socket: PathBuf,
    /// Folder for the ledger's journal, the last wishes and the plugin's queue of deletions. On tmpfs: a reboot empties it, as it should.
    #[arg(long, env = "ENIPOOL_STATE_DIR", default_value = "/run/enipool")]
    pub state_dir: PathBuf,
    /// The host's folder of CNI configurations, as the agent sees it.
    #[arg(long, env = "HOST_CNI_CONFDIR_PATH", default_value = "/host/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Name of the CNI configuration. The runtime takes the first by name.
    #[arg(long, env = "ENIPOOL_CNI_CONF_NAME", default_value = "10-enipool.conflist")]
    pub cni_conf_name: String,
    /// The host's /proc/sys, as the agent sees it.
    #[arg(long, env = "ENIPOOL_SYSCTL_ROOT", default_value = "/proc/sys")]
    pub sysctl_root: PathBuf,
    /// First letters of pods' host-side interfaces: 1 to 4 letters, not `eth`, `vlan` or `lo`.
    #[arg(long, env = "AWS_VPC_K8S_CNI_VETHPREFIX", default_value = "eni", value_parser = veth_prefix)]
    pub veth_prefix: VethPrefix,
}

impl Paths {
    pub fn journal(&self) -> PathBuf {
        self.state_dir.join("ledger.journal")
    }
    pub fn del_queue(&self) -> PathBuf {
        self.state_dir.join("del-queue")
    }
    /// Everything that the agent and the plugin keep for themselves on this host.
    pub fn state(&self) -> [PathBuf; 7] {
        let in_folder = |name| self.state_dir.join(name);
        [
            self.socket.clone(),
            self.journal(),
            self.del_queue(),
            in_folder(instance_type::FILE),
            in_folder(kept::FILE),
            in_folder(chained::FILE),
            in_folder(dataplane::FOUND_FILE),
        ]
    }
    pub fn conflist(&self) -> PathBuf {
        self.cni_conf_dir.join(&self.cni_conf_name)
    }
    /// What the dataplane is told of this host.
    pub fn dataplane(&self) -> DataplaneConfig {
        DataplaneConfig {
            veth_prefix: self.veth_prefix.clone(),
            sysctl_root: self.sysctl_root.clone(),
            state_dir: self.state_dir.clone(),
            ..DataplaneConfig::default()
        }
    }
}

#[derive(Debug, ClapArgs)]
pub struct RunArgs {
    /// Name of this node, and of its ENIPool.
    #[arg(long, env = "NODE_NAME", value_parser = NonEmptyStringValueParser::new())]
    pub node_name: String,
    /// Name of the cluster: tagged onto ENIs, so that clusters in one VPC do not take each other's for leaked.
    #[arg(long, env = "CLUSTER_NAME", default_value = "")]
    pub cluster_name: String,
    /// Serve without an API server: no ENIPool is read or written, the flags decide.
    #[arg(long, env = "ENIPOOL_STANDALONE", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub standalone: bool,
    #[command(flatten)]
    pub paths: Paths,
    /// Where introspection (/v1/*, this host only) and /metrics listen.
    #[arg(long, env = "ENIPOOL_LISTEN", default_value = "0.0.0.0:61678")]
    pub listen: SocketAddr,
    /// Longest wait of an ADD for an address, in seconds (1 to 600). The kubelet gives a sandbox four minutes.
    #[arg(long, env = "ENIPOOL_ADD_TIMEOUT", default_value = "60", value_parser = seconds_1_to_600)]
    pub add_timeout: Duration,
    /// Run `portmap` after the plugin, for hostPort.
    #[arg(long, env = "ENIPOOL_PORTMAP", default_value_t = true, action = ArgAction::Set)]
    pub portmap: bool,
    /// Run `bandwidth` after the plugin, for the bandwidth annotations.
    #[arg(long, env = "ENABLE_BANDWIDTH_PLUGIN", default_value_t = false, action = ArgAction::Set)]
    pub bandwidth: bool,
    #[command(flatten)]
    pub pool: PoolArgs,
    #[command(flatten)]
    pub host: HostArgs,
    /// Folder of the hourly log files; empty: standard output only.
    #[arg(long, env = "ENIPOOL_LOG_DIR", default_value = "/var/log/aws-routed-eni")]
    pub log_dir: String,
    /// Hours of which log files are kept.
    #[arg(long, env = "ENIPOOL_LOG_FILES", default_value_t = 48, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub log_files: u16,
    /// Bytes of all log files together, half of them for each kind (1000000 to 100000000000). The oldest go first, also
    /// within an hour.
    #[arg(long, env = "ENIPOOL_LOG_MAX_BYTES", default_value_t = 100_000_000, value_parser = clap::value_parser!(u64).range(1_000_000..=100_000_000_000))]
    pub log_max_bytes: u64,
    /// Levels, as in `info,enipool_agent=debug`.
    #[arg(long, env = "ENIPOOL_LOG", default_value = "info", value_parser = logging::filter)]
    pub log: String,
    /// text or json.
    #[arg(long, env = "ENIPOOL_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Warm targets until an ENIPool or its class says otherwise. The numbers are read strictly, by the pool's own rules.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Pool (until an ENIPoolClass says otherwise)")]
pub struct PoolArgs {
    /// Whole ENIs' worth of free addresses to keep.
    #[arg(long, env = "WARM_ENI_TARGET")]
    pub warm_eni_target: Option<String>,
    /// Free addresses to keep; 0 is a value.
    #[arg(long, env = "WARM_IP_TARGET")]
    pub warm_ip_target: Option<String>,
    /// Addresses to hold even if no pod uses them. A floor, never a cap.
    #[arg(long, env = "MINIMUM_IP_TARGET")]
    pub minimum_ip_target: Option<String>,
    /// Free /28 prefixes to keep.
    #[arg(long, env = "WARM_PREFIX_TARGET")]
    pub warm_prefix_target: Option<String>,
    /// ENIs that the instance may have, the primary one included.
    #[arg(long, env = "MAX_ENI")]
    pub max_eni: Option<String>,
    /// Secondary (an address a slot), Prefix (a /28 a slot) or Mixed.
    #[arg(long, env = "ADDRESSING")]
    pub addressing: Option<Addressing>,
    /// The AWS plugin's word for `--addressing Prefix`.
    #[arg(long, env = "ENABLE_PREFIX_DELEGATION", default_value_t = false, action = ArgAction::Set)]
    pub enable_prefix_delegation: bool,
    /// Whether pods never get addresses of the primary ENI (custom networking).
    #[arg(long, env = "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", default_value_t = false, action = ArgAction::Set)]
    pub custom_networking: bool,
    /// Rest of an address between two pods, in seconds (0 to 3600).
    #[arg(long, env = "IP_COOLDOWN_PERIOD", default_value = "30", value_parser = seconds_0_to_3600)]
    pub ip_cooldown: Duration,
    /// Pods that the kubelet admits; without it the instance type decides.
    #[arg(long, env = "MAX_PODS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_pods: Option<u32>,
    /// Use ENIs for pods that somebody else attached without a tag of ours.
    #[arg(long, env = "MANAGE_UNTAGGED_ENI", default_value_t = false, action = ArgAction::Set)]
    pub manage_untagged_eni: bool,
    /// Further tags for the ENIs that are made, as JSON: {"team":"net"}.
    #[arg(long, env = "ADDITIONAL_ENI_TAGS", default_value = "{}", value_parser = tags)]
    pub additional_eni_tags: Tags,
}

/// The host's plumbing.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Host (until an ENIPoolClass says otherwise)")]
pub struct HostArgs {
    /// Leave source NAT of traffic out of the VPC to a NAT gateway.
    #[arg(long, env = "AWS_VPC_K8S_CNI_EXTERNALSNAT", default_value_t = false, action = ArgAction::Set)]
    pub external_snat: bool,
    /// Source ports of SNAT: prng, hashrandom or none.
    #[arg(long, env = "AWS_VPC_K8S_CNI_RANDOMIZESNAT", default_value = "prng", value_parser = randomization)]
    pub randomize_snat: Randomization,
    /// Ranges outside the VPC that see pods' own addresses, comma-separated.
    #[arg(long, env = "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", value_delimiter = ',')]
    pub exclude_snat_cidrs: Vec<Ipv4Net>,
    /// Ranges that are always routed by the host's main table, comma-separated.
    #[arg(long, env = "AWS_EXTERNAL_SERVICE_CIDRS", value_delimiter = ',')]
    pub external_service_cidrs: Vec<Ipv4Net>,
    /// Send replies of NodePort connections back over the primary ENI.
    #[arg(long, env = "AWS_VPC_CNI_NODE_PORT_SUPPORT", default_value_t = true, action = ArgAction::Set)]
    pub node_port_support: bool,
    /// MTU of ENIs and pods in bytes (576 to 9001).
    #[arg(long, env = "AWS_VPC_ENI_MTU", default_value_t = 9001, value_parser = clap::value_parser!(u32).range(576..=9001))]
    pub mtu: u32,
}

#[derive(Debug, ClapArgs)]
pub struct InstallArgs {
    /// The plugin to install.
    #[arg(long, default_value = "/enipool-cni")]
    pub plugin: PathBuf,
    /// The host's folder of CNI plugins, as the init container sees it.
    #[arg(long, env = "HOST_CNI_BIN_PATH", default_value = "/host/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,

    /// Where the agent finds what the node's own CNI plugins said.
    #[arg(long, env = "ENIPOOL_STATE_DIR", default_value = "/run/enipool")]
    pub state_dir: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub paths: Paths,
    /// The agent's introspection endpoint.
    #[arg(long, env = "ENIPOOL_INTROSPECTION", default_value = "127.0.0.1:61678")]
    pub introspection: SocketAddr,
    /// Print the findings as JSON.
    #[arg(short = 'o', long = "output", value_parser = ["json", "text"], default_value = "text")]
    pub output: String,
}

#[derive(Debug, ClapArgs)]
pub struct CleanupArgs {
    #[command(flatten)]
    pub paths: Paths,
    /// The host's folder of CNI plugins.
    #[arg(long, env = "HOST_CNI_BIN_PATH", default_value = "/host/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
}

impl RunArgs {
    /// What the agent lives by until an ENIPool or its class says otherwise.
    pub fn wishes(&self) -> Result<Wishes, TargetError> {
        let pool = &self.pool;
        let targets = Targets::from_variables(|name| match name {
            "WARM_ENI_TARGET" => pool.warm_eni_target.clone(),
            "WARM_IP_TARGET" => pool.warm_ip_target.clone(),
            "MINIMUM_IP_TARGET" => pool.minimum_ip_target.clone(),
            "WARM_PREFIX_TARGET" => pool.warm_prefix_target.clone(),
            "MAX_ENI" => pool.max_eni.clone(),
            _ => None,
        })?;
        let fallback = if pool.enable_prefix_delegation { Addressing::Prefix } else { Addressing::Secondary };
        let policy = Policy {
            targets,
            addressing: pool.addressing.unwrap_or(fallback),
            use_primary_eni: !pool.custom_networking,
            ..Policy::default()
        };
        let snat = if self.host.external_snat {
            Snat::External
        } else {
            Snat::Primary { randomization: self.host.randomize_snat, exclude: self.host.exclude_snat_cidrs.clone() }
        };
        Ok(Wishes {
            engine: EffectiveConfig {
                policy,
                max_pods: pool.max_pods,
                cooldown: pool.ip_cooldown,
                eni_tags: pool.additional_eni_tags.clone(),
                manage_untagged: pool.manage_untagged_eni,
                ..EffectiveConfig::default()
            },
            host: HostWishes { snat, mtu: self.host.mtu },
            class_missing: false,
            problems: Vec::new(),
        })
    }
}

fn seconds(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) if (least..=most).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("expected whole seconds from {least} to {most}")),
    }
}

fn seconds_1_to_600(text: &str) -> Result<Duration, String> {
    seconds(text, 1, 600)
}

fn seconds_0_to_3600(text: &str) -> Result<Duration, String> {
    seconds(text, 0, 3600)
}

fn veth_prefix(text: &str) -> Result<VethPrefix, String> {
    VethPrefix::new(text).map_err(|error| error.to_string())
}

fn randomization(text: &str) -> Result<Randomization, String> {
    match text {
        "prng" => Ok(Randomization::Prng),
        "hashrandom" => Ok(Randomization::HashRandom),
        "none" => Ok(Randomization::None),
        _ => Err("expected prng, hashrandom or none".into()),
    }
}

/// Tags of a JSON object, less those that only the pool may set.
fn tags(text: &str) -> Result<Tags, String> {
    let tags: Tags = serde_json::from_str(text)
        .map_err(|error| format!("expected a JSON object of strings such as {{\"team\":\"net\"}}: {error}"))?;
    match tags
        .keys()
        .find(|key| key.starts_with("aws:") || key.starts_with("enipool.dev/") || key.contains("k8s.amazonaws.com"))
    {
        Some(key) => Err(format!("the tag {key:?} is the pool's own or AWS's: choose another name")),
        None => Ok(tags),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(extra: &[&str]) -> Result<RunArgs, String> {
        let line = ["enipool-agent", "run", "--node-name", "n"].iter().chain(extra);
        match arguments::try_parse(line).and_then(Args::checked) {
            Ok(Args { command: Command::Run(run) }) => Ok(*run),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_value_that_is_not_understood_is_refused_with_its_name() {
        for (flags, name) in [
            (["--external-snat", "perhaps"], "--external-snat"),
            (["--mtu", "90000"], "--mtu"),
            (["--ip-cooldown", "-1"], "--ip-cooldown"),
            (["--exclude-snat-cidrs", "10.0.0.0/99"], "--exclude-snat-cidrs"),
            (["--additional-eni-tags", "{\"aws:x\":\"y\"}"], "--additional-eni-tags"),
            (["--veth-prefix", "eth"], "--veth-prefix"),
            (["--log-max-bytes", "100MB"], "--log-max-bytes"),
            (["--log", "agent=loud"], "--log"),
            (["--warm-ip-target", "five"], "WARM_IP_TARGET"),
            (["--max-eni", "-1"], "MAX_ENI"),
        ] {
            let error = run(&[&format!("{}={}", flags[0], flags[1])]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn the_aws_plugins_settings_mean_what_they_meant() {
        let args =
            ["--enable-prefix-delegation=true", "--warm-prefix-target=2", "--external-snat=true", "--ip-cooldown=0"];
        let wishes = run(&args).unwrap().wishes().unwrap();
        assert_eq!(wishes.engine.policy.addressing, Addressing::Prefix);
        assert_eq!(wishes.engine.policy.targets.warm_prefixes, Some(2));
        assert_eq!(wishes.engine.cooldown, Duration::ZERO);
        assert_eq!(wishes.host.snat, Snat::External);
    }
}

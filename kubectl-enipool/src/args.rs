//! The command line, parsed once. A wrong value ends the command at once with the flag's name.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::top::Sort;

/// What the pool of each node holds, and why a pod waits for its address. Reads the API server only; changes nothing.
#[derive(Debug, Parser)]
#[command(name = "kubectl enipool", bin_name = "kubectl enipool", version, long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,

    #[command(flatten)]
    pub connection: Connection,
}

const LONG_ABOUT: &str = "\
What the pool of each node holds, and why a pod waits for its address.

Pods on AWS get addresses of their node's network interfaces (ENIs). enipool keeps a pool of them for each node: its \
ENIPool, written by people (what they want), by the operator (what the node may hold now) and by the node's agent (what \
it holds). `top` shows them side by side, with what is left of the subnets. `why` follows one pod through all of that and \
says in words what it waits for and what to do.

Both read the API server only. They need leave to get and list enipools and enipoolclasses (group enipool.dev); `why` also \
to get the pod and its node, and to list events and the agents' pods; what it may not read, it says and goes on without.";

const EXAMPLES: &str = "\
Examples:
  kubectl enipool top                           all nodes, the ones with the fewest free addresses first
  kubectl enipool top ip-10-0-1-23.ec2.internal one node, with its ENIs and the subnets it can use
  kubectl enipool top --sort waiting -o wide    where pods wait, with ceilings and throttled EC2 calls
  kubectl enipool why web-7d9c-x2 -n shop       the whole story of one pod's address
  kubectl enipool why web-7d9c-x2 -o json       the same for a program

The words:
  free      a pod gets one of these at once
  cooling   given back by a pod a moment ago; free again when its cooldown is over
  waiting   pods whose sandbox waits for an address at this moment
  warm      free addresses that the pool keeps ready for pods to come
  ceiling   the most addresses that the node may ever hold
  demand    pods bound to the node that have no address yet
  headroom  addresses of a subnet that the pool leaves to others";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// What each node holds, the scarcest first, and what is left of the subnets
    Top(TopArgs),
    /// Why a pod waits for its address, and what to do; or which node and address it has
    Why(WhyArgs),
}

#[derive(Debug, ClapArgs)]
pub struct TopArgs {
    /// Only these nodes, with their ENIs
    #[arg(value_name = "NODE", value_parser = node_name)]
    pub nodes: Vec<String>,

    /// Which rows come first
    #[arg(long, value_enum, default_value_t)]
    pub sort: Sort,

    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: TopOutput,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum TopOutput {
    #[default]
    Table,
    /// A table with the next ENI's subnet, ceiling, demand, throttled EC2 calls and instance.
    Wide,
    Json,
}

#[derive(Debug, ClapArgs)]
pub struct WhyArgs {
    /// The pod, as NAME or pod/NAME
    #[arg(value_name = "POD", value_parser = pod_name)]
    pub pod: String,

    /// The pod's namespace [default: the context's]
    #[arg(short, long)]
    pub namespace: Option<String>,

    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: WhyOutput,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum WhyOutput {
    #[default]
    Text,
    Json,
}

/// How to reach the cluster: the flags that kubectl has.
#[derive(Debug, Clone, ClapArgs)]
pub struct Connection {
    /// The kubeconfig file [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Longest wait for each answer of the API server, such as 5s or 1m
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = limit)]
    pub request_timeout: Duration,
}

/// A limit from 1 s to 10 min: a bare number counts seconds, as with kubectl.
fn limit(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time from 1s to 10m; write it as 5s, 30 or 1m");
    let (digits, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match number.saturating_mul(unit) {
        seconds @ 1..=600 => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}

fn pod_name(text: &str) -> Result<String, String> {
    let name = ["pod/", "pods/", "po/"].iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text);
    object_name(name).map_err(|why| format!("{why}; give the pod as NAME or pod/NAME and its namespace with -n"))
}

fn node_name(text: &str) -> Result<String, String> {
    let name = ["node/", "nodes/", "no/"].iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text);
    object_name(name)
}

/// A name as Kubernetes gives them (a DNS subdomain): it goes into a URL.
fn object_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 253 || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(format!("{name:?} is no name of a Kubernetes object"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_sound_and_every_argument_is_explained() {
        let mut command = Args::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            for argument in sub.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", sub.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn a_pod_may_be_named_as_kubectl_names_it() {
        for name in ["web", "pod/web", "po/web"] {
            let Command::Why(why) = parse(&format!("x why {name} -n shop")).unwrap().command else { panic!() };
            assert_eq!((why.pod.as_str(), why.namespace.as_deref()), ("web", Some("shop")));
        }
    }

    #[test]
    fn what_is_no_name_is_refused_before_anything_is_asked() {
        for name in ["shop/web", "Web", "..", "a%2fb", "deployment/web"] {
            let error = parse(&format!("x why {name}")).unwrap_err();
            assert!(error.contains("POD"), "{error}");
        }
    }

    #[test]
    fn limits_are_written_as_for_kubectl() {
        for (text, seconds) in [("5s", 5), ("30", 30), ("1m", 60), ("10m", 600)] {
            assert_eq!(limit(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["0", "0s", "11m", "-1", "soon", "", "s", "99999999999999999999m"] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn connection_flags_may_come_before_or_behind_the_verb() {
        for line in ["x --context east top", "x top --context east"] {
            assert_eq!(parse(line).unwrap().connection.context.as_deref(), Some("east"));
        }
    }
}

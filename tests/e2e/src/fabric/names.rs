//! Names and addresses of one run of the fabric: everything that could collide with another run is derived here.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use enipool_pool::EniId;
use ipnet::Ipv4Net;

/// What all network namespaces of all runs start with.
pub(super) const NETNS_PREFIX: &str = "enp-fabric-";

/// Where `ip netns` keeps named namespaces.
pub(super) const NETNS_DIR: &str = "/run/netns";

/// The router's link to the internet, the internet host, and the router's address that masqueraded traffic shows
/// ([RFC 5737](https://www.rfc-editor.org/rfc/rfc5737): TEST-NET-3).
pub(super) const INTERNET_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub(super) const INTERNET_HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub(super) const INTERNET_PREFIX_LEN: u8 = 24;

/// The instance metadata service.
pub(super) const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Port of the EC2 endpoint on the control plane's address.
pub(super) const EC2_PORT: u16 = 8100;

/// Names of the router's links to the control plane and to the internet.
pub(super) const CONTROL_LINK: &str = "ctl";
pub(super) const INTERNET_LINK: &str = "inet";

/// The id of one run: part of every name that the run leaves on the machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(Box<str>);

/// Text that cannot be a run id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a run id: expected 1 to 10 lower-case letters and digits")]
pub struct RunIdError(String);

impl RunId {
    /// A new id, different from those of other processes and of earlier calls.
    pub fn random() -> Self {
        use std::hash::{BuildHasher, Hasher};
        // RandomState is seeded by the operating system, and differently for each instance.
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        Self(format!("{:06x}", hasher.finish() & 0x00ff_ffff).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = RunIdError;
    fn from_str(text: &str) -> Result<Self, RunIdError> {
        // The host's link is named "enpf" + id, and the kernel takes 15 bytes; the namespaces' names end the id with "-".
        let fits = (1..=10).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            Ok(Self(text.into()))
        } else {
            Err(RunIdError(text.into()))
        }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A network namespace of the run, by its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Router,
    Control,
    Internet,
    Node(&'a str),
}

impl Place<'_> {
    /// Its name for `ip netns`.
    pub(super) fn netns_name(self, run: &RunId) -> String {
        let prefix = run_prefix(run);
        match self {
            Self::Router => format!("{prefix}vpc"),
            Self::Control => format!("{prefix}ctl"),
            Self::Internet => format!("{prefix}inet"),
            Self::Node(name) => format!("{prefix}n-{name}"),
        }
    }

    pub(super) fn path(self, run: &RunId) -> PathBuf {
        PathBuf::from(NETNS_DIR).join(self.netns_name(run))
    }
}

/// What the names of all namespaces of `run` start with.
pub(super) fn run_prefix(run: &RunId) -> String {
    format!("{NETNS_PREFIX}{run}-")
}

/// The one link of a run in the machine's own namespace.
pub(super) fn host_link(run: &RunId) -> String {
    format!("enpf{run}")
}

/// The router's end of an ENI's link: the tail of the ENI's id, as long as an interface name may be.
pub(super) fn router_link(eni: &EniId) -> String {
    let id = eni.as_str().trim_start_matches("eni-");
    let tail = id.get(id.len().saturating_sub(14)..).unwrap_or(id);
    format!("e{tail}")
}

/// The run's number on this machine: gives it addresses of its own in 198.18.0.0/16
/// ([RFC 2544](https://www.rfc-editor.org/rfc/rfc2544): for tests of network devices, so in use by nobody's network).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(pub(super) u8);

impl Slot {
    fn address(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.0, last)
    }
    /// The link between the machine and the control plane.
    pub(super) fn host(self) -> Ipv4Addr {
        self.address(1)
    }
    pub(super) fn control(self) -> Ipv4Addr {
        self.address(2)
    }
    /// The link between the router and the control plane.
    pub(super) fn router(self) -> Ipv4Addr {
        self.address(5)
    }
    pub(super) fn control_to_router(self) -> Ipv4Addr {
        self.address(6)
    }
    /// What the router sends to the control plane.
    pub(super) fn control_net(self) -> Ipv4Net {
        Ipv4Net::new_assert(self.address(0), 30)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_what_the_kernel_takes() {
        let run: RunId = "abcdefghij".parse().unwrap();
        assert!(host_link(&run).len() <= 15);
        let eni: EniId = "eni-0123456789abcdef0".parse().unwrap();
        assert_eq!(router_link(&eni), "e3456789abcdef0");
        assert_eq!(router_link(&"eni-1".parse().unwrap()), "e1");
        for wrong in ["", "abcdefghijk", "a-b", "A", "a/b"] {
            assert!(wrong.parse::<RunId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_run_s_namespaces_are_not_another_s() {
        let run: RunId = "a".parse().unwrap();
        let other: RunId = "ab".parse().unwrap();
        assert!(!Place::Router.netns_name(&other).starts_with(&run_prefix(&run)));
        assert_ne!(RunId::random(), RunId::random());
    }
}

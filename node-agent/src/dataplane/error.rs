//! Every way in which the dataplane fails, and whether trying again can help.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Whether the same call may succeed later without anybody changing something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The kernel was busy or something was in the way for a moment: try again soon.
    Soon,
    /// The same arguments fail again (bad name, namespace gone): the caller has to change something.
    Never,
    /// Rights or kernel features are missing: nothing works until a person mends the node.
    Operator,
}

/// A failure of the dataplane. The text names the step and what the kernel said.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The kernel refused a netlink request. `code` is the positive errno,
    /// `text` the kernel's own words where it has some.
    #[error("{step}: the kernel answered {}{}{}{}", errno_name(*code), if text.is_empty() { "" } else { ": " }, text, hint(*code))]
    Kernel { step: &'static str, code: i32, text: String },
    /// No answer to a netlink request in time.
    #[error("{step}: no answer from the kernel in time")]
    Timeout { step: &'static str },
    /// A socket or file operation failed.
    #[error("{step}")]
    Io {
        step: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// The kernel's answer does not parse.
    #[error("{step}: the kernel's answer does not parse: {detail}")]
    Malformed { step: &'static str, detail: String },
    /// The pod's network namespace cannot be opened.
    #[error("network namespace {} cannot be opened", path.display())]
    NoNamespace {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The pod's namespace already holds an interface of that name that is not ours.
    #[error("the pod's namespace already has an interface {ifname} that is not of this dataplane")]
    InterfaceInTheWay { ifname: String },
    /// What `check_pod` found to differ from what `add_pod` made.
    #[error("pod {address}: {difference}")]
    Differs { address: Ipv4Addr, difference: String },
    /// Too many requests wait already.
    #[error("{waiting} dataplane requests wait already")]
    Overloaded { waiting: usize },
    /// The dataplane is being shut down.
    #[error("the dataplane has stopped")]
    Stopped,
    /// The primary interface is not on this node.
    #[error("no link has the primary interface's MAC address {mac}")]
    NoPrimaryLink { mac: enipool_pool::id::MacAddress },
    /// Several things failed; all were tried.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<DataplaneError>),
    /// A name that the kernel or this dataplane cannot use.
    #[error("{what} {value:?}: {expected}")]
    BadName { what: &'static str, value: String, expected: &'static str },
}

impl DataplaneError {
    /// Whether and when to try the same again.
    pub fn retry(&self) -> Retry {
        use nix::libc;
        match self {
            Self::Kernel { code: libc::EPERM | libc::EACCES | libc::EOPNOTSUPP | libc::EAFNOSUPPORT, .. } => {
                Retry::Operator
            }
            Self::Kernel { code: libc::EINVAL | libc::EEXIST, .. }
            | Self::NoNamespace { .. }
            | Self::InterfaceInTheWay { .. }
            | Self::Differs { .. }
            | Self::Malformed { .. }
            | Self::BadName { .. } => Retry::Never,
            Self::Io { source, .. }
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Retry::Operator
            }
            Self::Kernel { .. }
            | Self::Timeout { .. }
            | Self::Io { .. }
            | Self::Overloaded { .. }
            | Self::Stopped
            | Self::NoPrimaryLink { .. } => Retry::Soon,
            Self::Several(errors) => {
                errors.iter().map(Self::retry).max_by_key(|retry| *retry as u8).unwrap_or(Retry::Soon)
            }
        }
    }

    /// A short fixed word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Kernel { .. } => "kernel",
            Self::Timeout { .. } => "timeout",
            Self::Io { .. } => "io",
            Self::Malformed { .. } => "malformed",
            Self::NoNamespace { .. } => "no_namespace",
            Self::InterfaceInTheWay { .. } => "interface_in_the_way",
            Self::Differs { .. } => "differs",
            Self::Overloaded { .. } => "overloaded",
            Self::Stopped => "stopped",
            Self::NoPrimaryLink { .. } => "no_primary_link",
            Self::Several(_) => "several",
            Self::BadName { .. } => "bad_name",
        }
    }

    pub(crate) fn io(step: &'static str, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Self::Timeout { step },
            _ => Self::Io { step, source },
        }
    }
}

fn errno_name(code: i32) -> String {
    let errno = nix::errno::Errno::from_raw(code);
    format!("{errno:?} ({})", errno.desc())
}

/// What a person should look at, for the codes whose cause is nearly always the same.
fn hint(code: i32) -> &'static str {
    use nix::libc;
    match code {
        libc::EPERM | libc::EACCES => ": the agent needs the capabilities NET_ADMIN and SYS_ADMIN",
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT => {
            ": the running kernel lacks a feature (veth, policy routing or nftables)"
        }
        libc::ENOBUFS => ": the kernel's socket buffer is full",
        _ => "",
    }
}

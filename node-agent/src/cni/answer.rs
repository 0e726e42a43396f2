//! Answers as pure functions: results in the form of the specification, and failures of pool and kernel as CNI errors.

use std::net::Ipv4Addr;

use enipool_cni::result::{Dns, Interface, Ip, Route};
use enipool_cni::{CniError, CniResult, Code};

use crate::dataplane::layout::POD_GATEWAY;
use crate::dataplane::{DataplaneError, PodLink, PodSpec, Retry};
use crate::engine::AcquireError;

/// What ADD made: the host's end, the container's end, its address and its default route, added to what plugins before us
/// made.
pub(super) fn result(previous: Option<CniResult>, spec: &PodSpec, link: &PodLink, dns: &Dns) -> CniResult {
    let mut result = previous.unwrap_or_default();
    let host = Interface {
        name: spec.host_ifname.as_str().to_owned(),
        mac: link.host_mac.to_string(),
        mtu: Some(spec.mtu),
        ..Interface::default()
    };
    let container = Interface {
        name: spec.ifname.clone(),
        mac: link.pod_mac.to_string(),
        mtu: Some(spec.mtu),
        sandbox: spec.netns.to_string_lossy().into_owned(),
        ..Interface::default()
    };
    result.interfaces.extend([host, container]);
    let index = result.interfaces.len().saturating_sub(1);
    result.ips.push(Ip {
        address: format!("{}/32", spec.address),
        gateway: Some(POD_GATEWAY.to_string()),
        interface: Some(index),
        ..Ip::default()
    });
    result.routes.push(Route { dst: "0.0.0.0/0".to_owned(), gw: Some(POD_GATEWAY.to_string()), ..Route::default() });
    if !dns.is_empty() {
        result.dns = dns.clone();
    }
    result
}

/// Why there is no address.
///
/// Always "try again later": the runtime makes a new sandbox a little later anyway, and nothing in the request itself can be
/// wrong. Whether waiting alone will help, the text says.
pub(super) fn no_address(error: &AcquireError) -> CniError {
    let code = if matches!(error, AcquireError::Journal(_)) { Code::Io } else { Code::TryAgainLater };
    CniError::new(code, format!("no address for the pod: {}", error.label())).details(error.to_string())
}

/// Why the pod has no link, or may keep one.
pub(super) fn kernel_refused(what: &str, error: &DataplaneError) -> CniError {
    let code = match error {
        DataplaneError::Differs { .. } => Code::CheckFailed,
        DataplaneError::NoNamespace { .. } => Code::UnknownContainer,
        _ if error.retry() == Retry::Soon => Code::TryAgainLater,
        _ => Code::Dataplane,
    };
    let mut details = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        details.push_str(": ");
        details.push_str(&cause.to_string());
        source = cause.source();
    }
    if let DataplaneError::NoNamespace { path, .. } = error
        && path.starts_with("/proc")
    {
        details.push_str(". The runtime names namespaces by process, which the agent's container does not see: use one that keeps them in /run/netns, as containerd and CRI-O do");
    }
    CniError::new(code, format!("cannot {what}")).details(details)
}

/// In what the container's network differs from what ADD answered, in words; `None` when it does not.
pub(super) fn difference(previous: &CniResult, ifname: &str, netns: &str, address: Ipv4Addr) -> Option<String> {
    let Some((index, interface)) = previous.container_interface(ifname) else {
        return Some(format!("prevResult has no interface {ifname} in a sandbox"));
    };
    if interface.sandbox != netns {
        return Some(format!("prevResult puts {ifname} into {}, CNI_NETNS is {netns}", interface.sandbox));
    }
    let mut addresses = previous.addresses_of(index);
    if addresses.any(|known| known == address) {
        return None;
    }
    let known: Vec<_> = previous.addresses_of(index).map(|known| known.to_string()).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Some(format!("the pool gave this container {address}, prevResult has {known}"))
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::dataplane::VethPrefix;
    use crate::dataplane::layout::{host_mac, pod_mac};
    use crate::engine::Shortage;
    use std::time::Duration;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);

    fn made() -> (PodSpec, PodLink) {
        let spec = PodSpec {
            netns: "/run/netns/a".into(),
            ifname: "eth0".into(),
            host_ifname: VethPrefix::default().host_ifname("default", "web"),
            address: ADDRESS,
            mtu: 9001,
        };
        (spec, PodLink { host_mac: host_mac(ADDRESS), pod_mac: pod_mac(ADDRESS), host_ifindex: 7 })
    }

    #[test]
    fn a_namespace_that_is_named_by_process_is_refused_with_the_reason() {
        let error = |path: &str| {
            let source = std::io::ErrorKind::NotFound.into();
            kernel_refused("set up the pod's network", &DataplaneError::NoNamespace { path: path.into(), source })
        };
        assert!(error("/proc/4711/ns/net").details.contains("containerd and CRI-O"));
        assert!(!error("/run/netns/cni-1").details.contains("containerd"));
    }

    #[test]
    fn the_result_names_both_ends_and_hangs_the_address_on_the_container_s() {
        let (spec, link) = made();
        let dns = Dns { nameservers: vec!["10.0.0.2".into()], ..Dns::default() };
        let result = result(None, &spec, &link, &dns);
        assert_eq!(result.interfaces.len(), 2);
        let (index, interface) = result.container_interface("eth0").unwrap();
        assert_eq!((index, interface.mac.as_str()), (1, "e2:02:0a:00:01:05"));
        assert_eq!(result.ips[0].address, "10.0.1.5/32");
        assert_eq!((result.ips[0].interface, result.ips[0].gateway.as_deref()), (Some(1), Some("169.254.1.1")));
        assert_eq!((result.routes[0].dst.as_str(), result.routes[0].gw.as_deref()), ("0.0.0.0/0", Some("169.254.1.1")));
        assert_eq!(result.dns, dns);
    }

    #[test]
    fn what_plugins_before_us_made_stays_and_our_index_moves() {
        let (spec, link) = made();
        let other = Interface { name: "net1".into(), sandbox: "/run/netns/a".into(), ..Interface::default() };
        let before = CniResult { interfaces: vec![other.clone()], ..CniResult::default() };
        let result = result(Some(before), &spec, &link, &Dns::default());
        assert_eq!(result.interfaces[0], other);
        assert_eq!(result.ips[0].interface, Some(2));
    }

    #[test]
    fn a_pod_without_an_address_is_told_why_when_and_what_to_do() {
        let error = no_address(&AcquireError::TimedOut {
            waited: Duration::from_secs(58),
            shortage: Shortage::Hold(enipool_pool::node::HoldReason::SubnetExhausted),
            eta: Some(Duration::from_secs(12)),
            detail: Some("as EC2 says".into()),
        });
        assert_eq!(error.code, 11);
        assert!(error.msg.contains("SubnetExhausted"), "{error}");
        for part in ["58", "12", "no free address", "as EC2 says", "ENIPoolClass"] {
            assert!(error.details.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn the_code_of_a_kernel_error_says_whether_to_come_again() {
        let busy = DataplaneError::Overloaded { waiting: 9 };
        assert_eq!(kernel_refused("x", &busy).code, 11);
        let differs = DataplaneError::Differs { address: ADDRESS, difference: "no route".into() };
        assert_eq!(kernel_refused("x", &differs).code, 101);
        let gone = DataplaneError::NoNamespace { path: "/x".into(), source: std::io::ErrorKind::NotFound.into() };
        assert_eq!(kernel_refused("x", &gone).code, 3);
    }

    #[test]
    fn check_finds_each_way_in_which_the_runtime_s_memory_differs() {
        let (spec, link) = made();
        let fine = result(None, &spec, &link, &Dns::default());
        assert_eq!(difference(&fine, "eth0", "/run/netns/a", ADDRESS), None);
        assert!(difference(&fine, "eth1", "/run/netns/a", ADDRESS).unwrap().contains("no interface eth1"));
        assert!(difference(&fine, "eth0", "/run/netns/b", ADDRESS).unwrap().contains("/run/netns/b"));
        let other = Ipv4Addr::new(10, 0, 1, 6);
        assert!(difference(&fine, "eth0", "/run/netns/a", other).unwrap().contains("10.0.1.5"));
    }
}

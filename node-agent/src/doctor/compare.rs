//! The comparison, pure: three pictures in, differences out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use enipool_pool::EniId;
use enipool_pool::ec2::{Eni, EniStatus};
use serde::Serialize;
use serde_json::json;

use super::node;
use crate::dataplane::EniObjects;

/// What EC2 says.
#[derive(Debug, Clone, Default)]
pub struct CloudPicture {
    /// Attached to this instance.
    pub attached: Vec<Eni>,
    /// Tagged as this instance's, attached or not.
    pub tagged: Vec<Eni>,
}

/// What the agent says.
#[derive(Debug, Clone, Default)]
pub struct LedgerPicture {
    /// Addresses for pods by interface that the pool uses.
    pub enis: BTreeMap<EniId, BTreeSet<Ipv4Addr>>,
    /// Interfaces that the agent knows and leaves alone, or has under way.
    pub other_enis: BTreeSet<EniId>,
    /// What the kernel has to have of interfaces that the agent has set up, or is setting up.
    pub in_kernel: BTreeMap<EniId, InKernel>,
    /// Pods by address.
    pub pods: BTreeMap<Ipv4Addr, String>,
}

/// How much of an interface has to be in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InKernel {
    /// Its link: it is being set up.
    Link,
    /// All that its pods need.
    Everything,
}

/// What the kernel says.
#[derive(Debug, Clone, Default)]
pub struct KernelPicture {
    /// Addresses with a route to a pod's interface, and that interface.
    pub pods: BTreeMap<Ipv4Addr, String>,
    /// What it holds for the node's interfaces.
    pub host: EniObjects,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// One of a closed set.
    pub kind: &'static str,
    /// The difference, and what it means.
    pub text: String,
}

/// All differences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    pub found: Vec<Finding>,
    /// What was compared, for the line that says that nothing differs.
    pub enis: usize,
    pub addresses: usize,
    pub pods: usize,
}

impl Findings {
    pub fn is_healthy(&self) -> bool {
        self.found.is_empty()
    }

    /// `json` or text for a person.
    pub fn render(&self, output: &str) -> String {
        if output == "json" {
            return format!(
                "{}\n",
                json!({ "healthy": self.is_healthy(), "findings": self.found,
                    "compared": { "enis": self.enis, "addresses": self.addresses, "pods": self.pods } })
            );
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        for Finding { kind, text: what } in &self.found {
            let _ = writeln!(text, "{kind}: {what}");
        }
        let Self { found, enis, addresses, pods } = self;
        let verdict = if found.is_empty() { "agree".into() } else { format!("differ in {} places", found.len()) };
        let _ = writeln!(
            text,
            "EC2, ledger and kernel {verdict} ({enis} ENIs, {addresses} addresses, {pods} pods compared)"
        );
        text
    }
}

/// What pods may get of an interface.
pub(super) fn addresses(eni: &Eni) -> BTreeSet<Ipv4Addr> {
    eni.secondary_ips.iter().copied().chain(eni.prefixes.iter().flat_map(|prefix| prefix.addresses())).collect()
}

/// The differences, in the order of how much they hurt.
pub fn compare(cloud: &CloudPicture, ledger: &LedgerPicture, kernel: &KernelPicture) -> Findings {
    let mut found = Vec::new();
    let mut find = |kind, text: String| found.push(Finding { kind, text });
    let in_ec2: BTreeMap<&EniId, BTreeSet<Ipv4Addr>> =
        cloud.attached.iter().map(|eni| (&eni.id, addresses(eni))).collect();
    let owned: BTreeSet<Ipv4Addr> = in_ec2.values().flatten().copied().collect();

    for (address, pod) in &ledger.pods {
        if !owned.contains(address) {
            find(
                "StrayAddress",
                format!(
                    "pod {pod} uses {address}, which EC2 says is not this node's: its packets are dropped by the VPC. Delete the pod; its successor gets another address"
                ),
            );
        }
        if !kernel.pods.contains_key(address) {
            find(
                "MissingRoute",
                format!(
                    "pod {pod} has {address}, but the kernel has no route to it: the pod is cut off, or is being deleted. Delete the pod if this stays"
                ),
            );
        }
    }
    for (address, ifname) in &kernel.pods {
        if !ledger.pods.contains_key(address) {
            find(
                "UnknownPod",
                format!(
                    "the kernel routes {address} to {ifname}, but no pod holds it in the ledger. Restart the agent: it then adopts or removes it"
                ),
            );
        }
    }
    found.extend(node::compare(cloud, ledger, kernel));
    let mut find = |kind, text: String| found.push(Finding { kind, text });
    for (id, held) in &ledger.enis {
        let Some(described) = in_ec2.get(id) else {
            find("VanishedENI", format!("the pool uses {id}, but EC2 does not show it on this instance"));
            continue;
        };
        for address in held.difference(described) {
            find("VanishedAddress", format!("the pool holds {address} on {id}, but EC2 does not"));
        }
        for address in described.difference(held) {
            find(
                "UnusedAddress",
                format!(
                    "EC2 has {address} on {id}, but the pool does not know it. The agent takes it up at its next look"
                ),
            );
        }
    }
    for id in in_ec2.keys() {
        if !ledger.enis.contains_key(*id) && !ledger.other_enis.contains(*id) {
            find("UnknownENI", format!("EC2 shows {id} on this instance, but the agent does not know it"));
        }
    }
    for eni in &cloud.tagged {
        if eni.status == EniStatus::Available && !ledger.other_enis.contains(&eni.id) {
            find(
                "LeakedENI",
                format!(
                    "{} is tagged as this instance's but attached to nothing. The operator deletes it within minutes",
                    eni.id
                ),
            );
        }
    }
    Findings { found, enis: in_ec2.len(), addresses: owned.len(), pods: ledger.pods.len() }
}

#[cfg(test)]
pub(super) mod fixture {
    use enipool_pool::ec2::InterfaceType;
    use enipool_pool::{Prefix, Zone};

    use super::*;

    pub(in super::super) fn eni(id: &str, status: EniStatus, secondary: &[[u8; 4]]) -> Eni {
        Eni {
            id: id.parse().unwrap(),
            status,
            interface_type: InterfaceType::Interface,
            mac: "0a:00:00:00:00:01".parse().unwrap(),
            vpc: "vpc-1".parse().unwrap(),
            subnet: "subnet-1".parse().unwrap(),
            zone: Zone::new("eu-west-1a"),
            primary_ip: [10, 0, 0, 4].into(),
            secondary_ips: secondary.iter().map(|octets| (*octets).into()).collect(),
            prefixes: Vec::<Prefix>::new(),
            security_groups: Vec::new(),
            attachment: None,
            description: String::new(),
            tags: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::eni;
    use super::*;

    fn agreement() -> (CloudPicture, LedgerPicture, KernelPicture) {
        let (one, two) = (Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 6));
        let cloud = CloudPicture {
            attached: vec![eni("eni-1", EniStatus::InUse, &[one.octets(), two.octets()])],
            tagged: Vec::new(),
        };
        let ledger = LedgerPicture {
            enis: [("eni-1".parse().unwrap(), BTreeSet::from([one, two]))].into(),
            pods: [(one, "web_default_abc".into())].into(),
            ..LedgerPicture::default()
        };
        (cloud, ledger, KernelPicture { pods: [(one, "eni123".into())].into(), ..KernelPicture::default() })
    }

    fn kinds(findings: &Findings) -> Vec<&'static str> {
        findings.found.iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn three_pictures_that_agree_find_nothing() {
        let (cloud, ledger, kernel) = agreement();
        let findings = compare(&cloud, &ledger, &kernel);
        assert!(findings.is_healthy(), "{findings:?}");
        assert!(findings.render("text").contains("agree (1 ENIs, 2 addresses, 1 pods compared)"));
    }

    #[test]
    fn each_way_of_disagreeing_has_a_name() {
        let (mut cloud, ledger, kernel) = agreement();
        cloud.attached[0].secondary_ips.remove(0);
        assert_eq!(kinds(&compare(&cloud, &ledger, &kernel)), ["StrayAddress", "VanishedAddress"]);

        let (cloud, ledger, mut kernel) = agreement();
        kernel.pods.clear();
        assert_eq!(kinds(&compare(&cloud, &ledger, &kernel)), ["MissingRoute"]);

        let (cloud, mut ledger, kernel) = agreement();
        ledger.pods.clear();
        assert_eq!(kinds(&compare(&cloud, &ledger, &kernel)), ["UnknownPod"]);

        let (mut cloud, ledger, kernel) = agreement();
        cloud.attached.push(eni("eni-2", EniStatus::InUse, &[]));
        cloud.tagged.push(eni("eni-3", EniStatus::Available, &[]));
        assert_eq!(kinds(&compare(&cloud, &ledger, &kernel)), ["UnknownENI", "LeakedENI"]);

        let (mut cloud, ledger, kernel) = agreement();
        cloud.attached.clear();
        assert_eq!(kinds(&compare(&cloud, &ledger, &kernel)), ["StrayAddress", "VanishedENI"]);
    }
}

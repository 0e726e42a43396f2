//! The numbers and names by which this dataplane's objects on a host are known, and why they collide with nobody's.
//!
//! Packet-mark bits in use elsewhere: kube-proxy 0x4000 and 0x8000, the `portmap` plugin 0x2000, the AWS plugin 0x80
//! (meaning "leaves by the primary interface", which is exactly what it means here, so flows survive a migration),
//! Cilium 0x0f00, Calico 0xffff0000 by default.

use std::fmt;
use std::net::Ipv4Addr;

use enipool_pool::id::MacAddress;
use enipool_pool::ledger::{AttachmentKey, PodRef};
use sha1::{Digest, Sha1};

use super::DataplaneError;

/// Bits of the packet mark and of the connection mark that carry an ENI's device index (1 to 63).
pub const ENI_MARK_MASK: u32 = 0x3f;
/// Connection-mark bit: the flow belongs to the primary interface whatever address its packets carry.
pub const PRIMARY_MARK: u32 = 0x80;
/// Largest device index that has a mark. AWS's largest types take 16 interfaces on the default network card.
pub const MAX_DEVICE_INDEX: u32 = ENI_MARK_MASK;

/// Routing table that holds one /32 route for each pod of the node, and nothing else.
///
/// 20000 to 20063 are ours alone. Taken: 2 to 16 by the AWS plugin, and from 10100 on for further network cards; 10000 +
/// 100 * card + device index by amazon-ec2-net-utils, for tables and for its rules' priorities; 30200 and 30400 and up by
/// NetworkManager's nm-cloud-setup, likewise for both; 100 and up by cloud-init; 52 by Tailscale; 51820 by wg-quick;
/// 1000 + interface index by OVN-Kubernetes; up to 255 and 2004, 2005 by Calico and Cilium.
///
/// Not `main`: DHCP clients put /32 routes of their own there (gateway, name server over the primary interface) that
/// pods on other interfaces must not match.
pub const POD_TABLE: u32 = 20_000;
/// Table of an ENI = this + its device index.
pub const ENI_TABLE_BASE: u32 = 20_000;

// The priorities of our rules: before amazon-ec2-net-utils' 10000 and up, after Cilium's up to 111, none of the AWS
// plugin's 512, 1024 and 1536, and none of Tailscale's 5210 to 5270.
/// Priority of the rule `lookup POD_TABLE`: before everything of the main table and of other ENI tables.
pub const POD_RULE_PRIORITY: u32 = 500;
/// Priority of the rules `fwmark N/0xbf lookup ENI_TABLE_BASE + N`.
pub const MARK_RULE_PRIORITY: u32 = 1200;
/// Priority of the rules `from <ENI's primary address> lookup ENI_TABLE_BASE + N`.
pub const SOURCE_RULE_PRIORITY: u32 = 1201;

/// Priority at which the AWS plugin has `to <pod> lookup main`.
pub const AWS_TO_POD_PRIORITY: u32 = 512;
/// Priority at which the AWS plugin has `from <pod> lookup <ENI's table>`.
pub const AWS_FROM_POD_PRIORITY: u32 = 1536;

/// The next hop in pods: any link-local address that nobody else uses; a permanent neighbour entry gives it a MAC.
pub const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Name of our one nftables table (family `ip`).
pub const NFT_TABLE: &str = "enipool";

/// The routing table of the ENI at `device_index`.
pub const fn eni_table(device_index: u32) -> u32 {
    ENI_TABLE_BASE + device_index
}

/// MAC of a pod's interface: locally administered, made from its address so that a restart finds the same.
pub fn pod_mac(address: Ipv4Addr) -> MacAddress {
    let [a, b, c, d] = address.octets();
    MacAddress([0xe2, 0x02, a, b, c, d])
}

/// Whether `mac` is one that [`pod_mac`] makes.
pub fn is_pod_mac(mac: MacAddress) -> bool {
    mac.0.starts_with(&[0xe2, 0x02])
}

/// MAC of the host's end of a pod's veth pair.
pub fn host_mac(address: Ipv4Addr) -> MacAddress {
    let [a, b, c, d] = address.octets();
    MacAddress([0xe2, 0x01, a, b, c, d])
}

/// Whether `mac` is one that [`host_mac`] makes.
pub fn is_host_mac(mac: MacAddress) -> bool {
    mac.0.starts_with(&[0xe2, 0x01])
}

/// First letters of all host-side pod interfaces. At most four characters (the AWS plugin's limit, `eni` its default).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethPrefix(Box<str>);

impl VethPrefix {
    /// Checks length (1 to 4), characters, and that no other kind of interface starts so.
    pub fn new(value: &str) -> Result<Self, DataplaneError> {
        let fits = (1..=4).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric());
        if fits && !matches!(value, "eth" | "vlan" | "lo") {
            Ok(Self(value.into()))
        } else {
            Err(DataplaneError::BadName {
                what: "veth prefix",
                value: value.into(),
                expected: "expected one to four letters or digits, and none of eth, vlan, lo",
            })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host-side interface name of a pod: prefix + first 11 hex digits of sha1(`namespace.name`).
    ///
    /// The same as the AWS plugin's, so that people's scripts and eyes find it. At most 15 characters (`IFNAMSIZ` - 1).
    pub fn host_ifname(&self, namespace: &str, pod_name: &str) -> HostIfname {
        let digest = Sha1::new().chain_update(namespace).chain_update(".").chain_update(pod_name).finalize();
        let mut name = String::with_capacity(15);
        name.push_str(&self.0);
        // Six bytes give twelve digits; the kernel's limit leaves room for eleven behind a prefix of four.
        let digits = digest.iter().take(6).flat_map(|byte| [byte >> 4, byte & 0xf]).take(11);
        name.extend(digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)));
        HostIfname(name.into())
    }
}

impl VethPrefix {
    /// The host-side interface name of an attachment. A pod's first interface is named as the AWS plugin names it. Others,
    /// and containers that are no pods, need names of their own.
    pub fn host_ifname_of(&self, key: &AttachmentKey, pod: &PodRef) -> HostIfname {
        if pod.name.is_empty() {
            self.host_ifname(&key.network, &format!("{}.{}", key.container_id, key.ifname))
        } else if &*key.ifname == "eth0" {
            self.host_ifname(&pod.namespace, &pod.name)
        } else {
            self.host_ifname(&pod.namespace, &format!("{}.{}", pod.name, key.ifname))
        }
    }

    /// The name that a stale host interface gets when it is in the way: still recognisable as a pod's, never equal to a
    /// [`Self::host_ifname`] (`x` is no hexadecimal digit).
    pub(super) fn stale_ifname(&self, ifindex: u32) -> String {
        format!("{}x{ifindex:x}", self.0)
    }
}

impl Default for VethPrefix {
    fn default() -> Self {
        Self("eni".into())
    }
}

/// Name of the host's end of a pod's veth pair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostIfname(Box<str>);

impl HostIfname {
    /// A name read back from the kernel or from a journal.
    pub fn new(value: &str) -> Result<Self, DataplaneError> {
        if (1..=15).contains(&value.len())
            && !value.contains(['/', ' ', '\t', '\n', ':'])
            && value != "."
            && value != ".."
        {
            Ok(Self(value.into()))
        } else {
            Err(DataplaneError::BadName {
                what: "interface name",
                value: value.into(),
                expected: "expected 1 to 15 characters without space, slash or colon",
            })
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostIfname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_interface_is_named_as_the_aws_plugin_names_it() {
        // `printf 'default.web-0' | sha1sum` starts with the digits below.
        let name = VethPrefix::default().host_ifname("default", "web-0");
        assert_eq!(name.as_str(), "eni0d7763386da");
        assert_eq!(VethPrefix::new("abcd").unwrap().host_ifname("default", "web-0").as_str().len(), 15);
    }

    #[test]
    fn a_prefix_that_other_interfaces_have_is_refused() {
        for wrong in ["", "eth", "vlan", "lo", "enipo", "e-i"] {
            assert!(VethPrefix::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn marks_keep_out_of_the_bits_of_others() {
        let others = 0x4000 | 0x8000 | 0x2000 | 0x0f00 | 0xffff_0000;
        assert_eq!((ENI_MARK_MASK | PRIMARY_MARK) & others, 0);
        assert_eq!(ENI_MARK_MASK & PRIMARY_MARK, 0);
    }
}

//! The result of ADD, and the same as `prevResult` of later calls.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::version::SpecVersion;

/// What ADD made (CNI specification, "ADD Success").
///
/// One type reads all versions: fields that a version lacks stay empty. [`CniResult::to_json`] writes the form of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CniResult {
    pub cni_version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<Ip>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    #[serde(skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Since 1.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of the network namespace; empty for an interface of the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// Since 1.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_path: Option<String>,
    /// Since 1.1.
    #[serde(rename = "pciID", skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ip {
    /// `4` or `6`, up to 0.4.0 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// With its prefix length: `10.0.1.5/32`.
    pub address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Index into `interfaces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

impl Ip {
    /// The IPv4 address without its prefix length; `None` for anything else.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.address.split('/').next()?.parse().ok()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Route {
    pub dst: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gw: Option<String>,
    /// Since 1.1, as the four below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CniResult {
    /// The container's interface: the one in a sandbox with the name that the runtime asked for.
    pub fn container_interface(&self, ifname: &str) -> Option<(usize, &Interface)> {
        self.interfaces.iter().enumerate().find(|(_, i)| i.name == ifname && !i.sandbox.is_empty())
    }

    /// The IPv4 addresses of the container: those of interface `index`, or those that name no interface.
    pub fn addresses_of(&self, index: usize) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.ips.iter().filter(move |ip| ip.interface.is_none_or(|i| i == index)).filter_map(Ip::ipv4)
    }

    /// In the form of `version`: without the fields that it does not have, with those that it demands.
    ///
    /// # Errors
    /// None in practice: the types have no form that JSON lacks.
    pub fn to_json(&self, version: SpecVersion) -> Result<String, serde_json::Error> {
        let mut result = self.clone();
        version.as_str().clone_into(&mut result.cni_version);
        for ip in &mut result.ips {
            ip.version = (version < SpecVersion::V1_0_0)
                .then(|| if ip.address.contains(':') { "6".to_owned() } else { "4".to_owned() });
        }
        if version < SpecVersion::V1_1_0 {
            for interface in &mut result.interfaces {
                (interface.mtu, interface.socket_path, interface.pci_id) = (None, None, None);
            }
            for route in &mut result.routes {
                *route = Route { dst: std::mem::take(&mut route.dst), gw: route.gw.take(), ..Route::default() };
            }
        }
        serde_json::to_string(&result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CniResult {
        CniResult {
            interfaces: vec![
                Interface { name: "eni0123".into(), mac: "0a:00:00:00:00:01".into(), ..Interface::default() },
                Interface {
                    name: "eth0".into(),
                    mac: "0a:00:00:00:00:02".into(),
                    mtu: Some(9001),
                    sandbox: "/run/netns/a".into(),
                    ..Interface::default()
                },
            ],
            ips: vec![Ip {
                address: "10.0.1.5/32".into(),
                gateway: Some("169.254.1.1".into()),
                interface: Some(1),
                ..Ip::default()
            }],
            routes: vec![Route {
                dst: "0.0.0.0/0".into(),
                gw: Some("169.254.1.1".into()),
                scope: Some(0),
                ..Route::default()
            }],
            ..CniResult::default()
        }
    }

    #[test]
    fn addresses_carry_their_family_up_to_0_4_0_and_not_after() {
        for version in SpecVersion::SUPPORTED {
            let json = sample().to_json(version).unwrap();
            assert_eq!(json.contains(r#""version":"4""#), version < SpecVersion::V1_0_0, "{json}");
            assert!(json.contains(&format!(r#""cniVersion":"{version}""#)), "{json}");
        }
    }

    #[test]
    fn fields_of_1_1_are_kept_from_older_runtimes() {
        let old = sample().to_json(SpecVersion::V1_0_0).unwrap();
        assert!(!old.contains("mtu") && !old.contains("scope"), "{old}");
        let new = sample().to_json(SpecVersion::V1_1_0).unwrap();
        assert!(new.contains(r#""mtu":9001"#) && new.contains(r#""scope":0"#), "{new}");
    }

    #[test]
    fn a_result_survives_the_round_trip_through_the_runtime_s_cache() {
        let mut expected = sample();
        expected.cni_version = "1.1.0".into();
        let read: CniResult = serde_json::from_str(&sample().to_json(SpecVersion::V1_1_0).unwrap()).unwrap();
        assert_eq!(read, expected);
    }

    #[test]
    fn the_container_s_interface_is_found_among_others() {
        let result = sample();
        let (index, interface) = result.container_interface("eth0").unwrap();
        assert_eq!((index, interface.sandbox.as_str()), (1, "/run/netns/a"));
        assert_eq!(result.addresses_of(index).collect::<Vec<_>>(), [Ipv4Addr::new(10, 0, 1, 5)]);
        assert_eq!(result.addresses_of(0).count(), 0);
        assert!(result.container_interface("eni0123").is_none(), "a host interface is not the container's");
    }
}

//! What the node looked like before this dataplane first changed it, kept on disk so that `cleanup` can put it back
//! after any number of restarts. The file goes with a reboot, as the settings do.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use enipool_pool::id::MacAddress;
use serde::{Deserialize, Serialize};

use super::DataplaneError;
use super::netlink::address::AddressAsFound;
use super::netlink::route::RouteAsFound;

/// Name of the record in the state folder.
pub(crate) const FILE: &str = "found.json";

/// Settings as found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    /// `net.ipv4.ip_forward`.
    pub(super) forwarding: Option<bool>,
    pub(super) links: BTreeMap<MacAddress, FoundLink>,
}

/// An ENI's link as found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FoundLink {
    /// Of the primary ENI, whose addresses are never touched.
    pub(super) primary: bool,
    pub(super) up: bool,
    pub(super) mtu: u32,
    pub(super) rp_filter: Option<u32>,
    /// Global addresses. Of a primary ENI: none, likewise for the routes.
    pub(super) addresses: Vec<AddressAsFound>,
    /// Routes over it in the main table.
    pub(super) routes: Vec<RouteAsFound>,
}

/// The record and its file.
#[derive(Debug)]
pub(super) struct FoundFile {
    path: PathBuf,
    found: Found,
}

impl FoundFile {
    /// Reads the record of an earlier start, if there is one. One that does not parse is treated as none, and said so.
    pub(super) fn open(directory: &Path) -> Result<Self, DataplaneError> {
        let path = directory.join(FILE);
        let found = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "record of the node as found does not parse; started anew");
                Found::default()
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Found::default(),
            Err(source) => return Err(DataplaneError::Io { step: "read found.json", source }),
        };
        Ok(Self { path, found })
    }

    pub(super) fn found(&self) -> &Found {
        &self.found
    }

    /// Whether that link is remembered already: it may have been changed since.
    pub(super) fn knows(&self, mac: MacAddress) -> bool {
        self.found.links.contains_key(&mac)
    }

    /// Remembers what is not remembered yet. To be called before the first change.
    pub(super) fn remember(
        &mut self,
        forwarding: bool,
        links: BTreeMap<MacAddress, FoundLink>,
    ) -> Result<(), DataplaneError> {
        let before = self.found.clone();
        self.found.forwarding.get_or_insert(forwarding);
        for (mac, link) in links {
            self.found.links.entry(mac).or_insert(link);
        }
        if self.found == before { Ok(()) } else { self.write() }
    }

    fn write(&self) -> Result<(), DataplaneError> {
        let failed = |source| DataplaneError::Io { step: "write found.json", source };
        let text = serde_json::to_vec_pretty(&self.found).map_err(|error| failed(error.into()))?;
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        let fresh = self.path.with_extension("json.new");
        std::fs::write(&fresh, text).map_err(failed)?;
        std::fs::rename(&fresh, &self.path).map_err(failed)
    }

    /// Forgets everything: the node is as found again.
    pub(super) fn forget(&mut self) -> Result<(), DataplaneError> {
        self.found = Found::default();
        match std::fs::remove_file(&self.path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(DataplaneError::Io { step: "remove found.json", source })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_first_is_what_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let mac = "02:00:00:00:00:01".parse().unwrap();
        let route = RouteAsFound {
            destination: ipnet::Ipv4Net::default(),
            gateway: Some("10.0.0.1".parse().unwrap()),
            source: Some("10.0.1.20".parse().unwrap()),
            metric: Some(1024),
            protocol: 16,
            scope: 0,
            onlink: false,
            more: vec![(8, vec![8, 0, 2, 0, 0, 5, 0, 0])],
        };
        let link = FoundLink {
            primary: false,
            up: true,
            mtu: 1500,
            rp_filter: Some(1),
            addresses: vec![AddressAsFound {
                net: "10.0.1.20/16".parse().unwrap(),
                broadcast: Some("10.0.255.255".parse().unwrap()),
                label: Some("eth1".into()),
                no_prefix_route: false,
                metric: Some(1024),
            }],
            routes: vec![route],
        };
        let mut file = FoundFile::open(directory.path()).unwrap();
        assert!(!file.knows(mac));
        file.remember(false, BTreeMap::from([(mac, link.clone())])).unwrap();
        let mut after_restart = FoundFile::open(directory.path()).unwrap();
        assert!(after_restart.knows(mac));
        let changed = FoundLink { mtu: 9001, routes: Vec::new(), ..link.clone() };
        after_restart.remember(true, BTreeMap::from([(mac, changed)])).unwrap();
        assert_eq!(after_restart.found().forwarding, Some(false));
        assert_eq!(after_restart.found().links.get(&mac), Some(&link));
        after_restart.forget().unwrap();
        assert_eq!(*FoundFile::open(directory.path()).unwrap().found(), Found::default());
    }

    #[test]
    fn a_record_of_an_earlier_version_is_understood() {
        let directory = tempfile::tempdir().unwrap();
        let record = r#"{"forwarding":false,"links":{"02:00:00:00:00:01":{"primary":false,"up":true,"mtu":1500,"rp_filter":1,
            "addresses":[{"net":"10.0.1.20/16","broadcast":"10.0.255.255","label":"eth1","no_prefix_route":false,"metric":1024}],
            "routes":[{"destination":"0.0.0.0/0","gateway":"10.0.0.1","source":"10.0.1.20","metric":1024,"protocol":16,"scope":0,
                "onlink":false,"more":[[8,[8,0,2,0,0,5,0,0]],[22,[12,0,1,0,0,0,0,0,0,0,0,100]]]}]}}}"#;
        std::fs::write(directory.path().join(FILE), record).unwrap();
        let file = FoundFile::open(directory.path()).unwrap();
        let link = file.found().links.values().next().unwrap();
        assert_eq!((link.rp_filter, link.addresses[0].metric), (Some(1), Some(1024)));
        let kept = [(8, vec![8, 0, 2, 0, 0, 5, 0, 0]), (22, vec![12, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 100])];
        assert_eq!((link.routes[0].protocol, &link.routes[0].more[..]), (16, &kept[..]));
    }
}

//! What the node looked like before this dataplane first changed it, kept on disk so that `cleanup` can put it back
//! after any number of restarts. The file goes with a reboot, as the settings do.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use enipool_pool::id::MacAddress;
use serde::{Deserialize, Serialize};

use super::DataplaneError;
use super::netlink::address::LinkAddress;
use super::netlink::link::Link;

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
    /// Global addresses with their prefix lengths.
    pub(super) addresses: Vec<ipnet::Ipv4Net>,
}

/// An ENI's link as it is now.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) link: &'a Link,
    pub(super) addresses: Vec<LinkAddress>,
    pub(super) primary: bool,
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
        let path = directory.join("found.json");
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

    /// Remembers what is not remembered yet. To be called before the first change.
    pub(super) fn remember(&mut self, forwarding: bool, links: &[Seen<'_>]) -> Result<(), DataplaneError> {
        let before = self.found.clone();
        self.found.forwarding.get_or_insert(forwarding);
        for Seen { link, addresses, primary } in links {
            let Some(mac) = link.mac else { continue };
            self.found.links.entry(mac).or_insert_with(|| FoundLink {
                primary: *primary,
                up: link.up,
                mtu: link.mtu,
                rp_filter: link.rp_filter,
                addresses: addresses
                    .iter()
                    .filter_map(|address| ipnet::Ipv4Net::new(address.address, address.prefix_len).ok())
                    .collect(),
            });
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

    fn seen(link: &Link) -> [Seen<'_>; 1] {
        [Seen { link, addresses: Vec::new(), primary: true }]
    }

    #[test]
    fn what_was_found_first_is_what_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let link = |mtu| Link {
            index: 2,
            name: "eth0".into(),
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            mtu,
            up: true,
            kind: String::new(),
            peer: None,
            rp_filter: Some(1),
        };
        let mut file = FoundFile::open(directory.path()).unwrap();
        let (before, after) = (link(1500), link(9001));
        file.remember(false, &seen(&before)).unwrap();
        let mut after_restart = FoundFile::open(directory.path()).unwrap();
        after_restart.remember(true, &seen(&after)).unwrap();
        assert_eq!(after_restart.found().forwarding, Some(false));
        assert_eq!(after_restart.found().links.values().next().unwrap().mtu, 1500);
        after_restart.forget().unwrap();
        assert_eq!(*FoundFile::open(directory.path()).unwrap().found(), Found::default());
    }
}

//! Kernel settings that netlink does not offer, read and written as files.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DataplaneError;

/// The `/proc/sys` of the calling thread's network namespace, or a mount of it.
#[derive(Debug, Clone)]
pub(super) struct Sysctl {
    root: Arc<Path>,
}

impl Sysctl {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Switches IPv6 off on one link. Fine if the kernel has no IPv6.
    pub(super) fn disable_ipv6(&self, link: &str) -> Result<(), DataplaneError> {
        let mut path = PathBuf::with_capacity(64);
        path.push(&self.root);
        path.extend(["net", "ipv6", "conf", link, "disable_ipv6"]);
        match std::fs::write(&path, b"1") {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(DataplaneError::Io { step: "switch IPv6 off on the pod's host interface", source: error })
            }
            _ => Ok(()),
        }
    }

    /// `net.ipv4.ip_forward`.
    pub(super) fn forwarding(&self) -> Result<bool, DataplaneError> {
        let text = std::fs::read_to_string(self.root.join("net/ipv4/ip_forward"))
            .map_err(|source| DataplaneError::Io { step: "read net.ipv4.ip_forward", source })?;
        Ok(text.trim() != "0")
    }

    pub(super) fn set_forwarding(&self, on: bool) -> Result<(), DataplaneError> {
        std::fs::write(self.root.join("net/ipv4/ip_forward"), if on { b"1" } else { b"0" })
            .map_err(|source| DataplaneError::Io { step: "write net.ipv4.ip_forward", source })
    }
}

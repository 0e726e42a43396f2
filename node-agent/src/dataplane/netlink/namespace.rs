//! Netlink sockets in another network namespace.
//!
//! A socket belongs to the namespace of the thread that opens it and stays there, so a thread has to step over for that
//! one call. That thread must be one of the dataplane's own (never the async runtime's), and must not be used any more
//! when it does not get back.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::super::DataplaneError;
use super::Netlink;

/// Opens the namespace that `path` names.
pub(crate) fn open(path: &Path) -> Result<File, DataplaneError> {
    File::open(path).map_err(|source| DataplaneError::NoNamespace { path: path.to_owned(), source })
}

/// The way home of one thread.
#[derive(Debug)]
pub(crate) struct Home {
    own: File,
    lost: bool,
}

impl Home {
    /// Where the calling thread is now.
    pub(crate) fn here() -> Result<Self, DataplaneError> {
        Ok(Self { own: open(Path::new("/proc/thread-self/ns/net"))?, lost: false })
    }

    /// Whether the thread failed to come back from a visit.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// A routing socket inside `namespace`. `path` is for the error only.
    pub(crate) fn route_socket_in(
        &mut self,
        namespace: &File,
        path: &Path,
        timeout: Duration,
    ) -> Result<Netlink, DataplaneError> {
        let refused =
            |errno: nix::errno::Errno| DataplaneError::NoNamespace { path: path.to_owned(), source: errno.into() };
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(refused)?;
        let socket = Netlink::route(timeout);
        if let Err(errno) = setns(self.own.as_fd(), CloneFlags::CLONE_NEWNET) {
            self.lost = true;
            return Err(DataplaneError::Io { step: "come back from a pod's namespace", source: errno.into() });
        }
        socket
    }
}

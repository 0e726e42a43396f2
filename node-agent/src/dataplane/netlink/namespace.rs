//! Netlink sockets in another network namespace.
//!
//! A socket belongs to the namespace of the thread that opens it and stays there, so a thread has to step over for that
//! one call. It does so on a thread made for it: if stepping back failed, a lasting thread would go on in the wrong place.

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

/// A routing socket inside `namespace`. `path` is for the error only.
pub(crate) fn route_socket(namespace: &File, path: &Path, timeout: Duration) -> Result<Netlink, DataplaneError> {
    let inside = || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| DataplaneError::NoNamespace { path: path.to_owned(), source: errno.into() })?;
        Netlink::route(timeout)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("enipool-netns".into())
            .stack_size(64 * 1024)
            .spawn_scoped(scope, inside)
            .map_err(|error| DataplaneError::io("start a thread for the pod's namespace", error))?;
        thread.join().unwrap_or(Err(DataplaneError::Stopped))
    })
}

//! `enipool-agent cleanup`: leaves the node as it was found. For taking enipool off a node, not for restarts.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use crate::args::CleanupArgs;
use crate::cni::conflist;
use crate::dataplane::{Dataplane, DataplaneError};
use crate::install;

/// Why something of ours is still there.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    #[error("an agent serves {0}: stop it first (delete the DaemonSet, or label the node out of it)")]
    AgentRuns(String),
    #[error("cannot remove {what}")]
    File { what: String, source: io::Error },
    #[error("cannot clean the kernel up")]
    Kernel(#[from] DataplaneError),
    /// What was removed and what was not, a line each.
    #[error("not everything could be removed; run it again when the cause is gone\n{0}")]
    Left(String),
}

/// Removes configuration, plugin, kernel objects and state, in the order in which nothing new can come into being.
/// Returns what was removed, a line each. ENIs stay: EC2 and the operator see to them.
pub async fn cleanup(args: &CleanupArgs) -> Result<String, CleanupError> {
    let paths = &args.paths;
    if tokio::net::UnixStream::connect(&paths.socket).await.is_ok() {
        return Err(CleanupError::AgentRuns(paths.socket.display().to_string()));
    }
    let file = |what: String| move |source| CleanupError::File { what, source };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |what: &str| {
        let _ = writeln!(text, "removed {what}");
    };

    let conflist = paths.conflist();
    if conflist.exists() {
        conflist::remove(&conflist).map_err(file(conflist.display().to_string()))?;
        line(&conflist.display().to_string());
    }
    for path in install::uninstall(&args.cni_bin_dir).map_err(file(args.cni_bin_dir.display().to_string()))? {
        line(&path.display().to_string());
    }
    let dataplane = Dataplane::new(paths.dataplane()).await?;
    let report = dataplane.cleanup().await?;
    for removed in &report.removed {
        line(removed);
    }
    if !report.left.is_empty() {
        // The settings as found are in the state: whoever comes again needs them.
        for left in &report.left {
            let _ = writeln!(text, "left    {left}");
        }
        return Err(CleanupError::Left(text));
    }
    // Usually in the state's folder.
    match fs::remove_file(&paths.socket) {
        Ok(()) => line(&paths.socket.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(paths.socket.display().to_string())(error)),
    }
    if remove_state(&paths.state_dir).map_err(file(paths.state_dir.display().to_string()))? {
        line(&paths.state_dir.display().to_string());
    }
    Ok(text)
}

/// Removes the folder, or, where it is a mount (a container's), everything in it. Returns whether it was there.
fn remove_state(folder: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::ResourceBusy => Err(error),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn state() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("enipool");
        fs::create_dir(&folder).unwrap();
        (root, folder)
    }

    fn fill(folder: &Path) {
        fs::create_dir(folder.join("del-queue")).unwrap();
        fs::write(folder.join("del-queue/1"), "x").unwrap();
        for file in ["ledger.journal", "wishes.json", "wishes.new"] {
            fs::write(folder.join(file), "x").unwrap();
        }
    }

    #[test]
    fn the_state_is_removed_and_removing_it_twice_is_fine() {
        let (_root, folder) = state();
        fill(&folder);
        assert!(remove_state(&folder).unwrap());
        assert!(!folder.exists());
        assert!(!remove_state(&folder).unwrap());
    }

    #[test]
    fn a_state_folder_that_is_mounted_is_emptied() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("left out: a_state_folder_that_is_mounted_is_emptied (needs root: it mounts)");
            return;
        }
        let (_root, folder) = state();
        let sees = folder.clone();
        // The mount is this thread's alone and goes with it.
        let in_a_container = move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let script = "mount --make-rprivate / && mount -t tmpfs none \"$1\"";
            let mounted = std::process::Command::new("sh").args(["-ec", script, "sh"]).arg(&sees).status().unwrap();
            assert!(mounted.success());
            fill(&sees);
            assert!(remove_state(&sees).unwrap());
            assert_eq!(fs::read_dir(&sees).unwrap().count(), 0);
        };
        std::thread::spawn(in_a_container).join().unwrap();
    }
}

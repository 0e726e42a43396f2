//! `enipool-agent cleanup`: leaves the node as it was found. For taking enipool off a node, not for restarts.

use std::fmt::Write as _;
use std::io;

use crate::args::CleanupArgs;
use crate::cni::conflist;
use crate::dataplane::{Dataplane, DataplaneConfig, DataplaneError};
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
    let dataplane = Dataplane::new(DataplaneConfig {
        veth_prefix: paths.veth_prefix.clone(),
        sysctl_root: paths.sysctl_root.clone(),
        state_dir: paths.state_dir.clone(),
        ..DataplaneConfig::default()
    })
    .await?;
    let report = dataplane.cleanup().await?;
    for removed in &report.removed {
        line(removed);
    }
    if paths.state_dir.exists() {
        std::fs::remove_dir_all(&paths.state_dir).map_err(file(paths.state_dir.display().to_string()))?;
        line(&paths.state_dir.display().to_string());
    }
    for left in &report.left {
        let _ = writeln!(text, "left    {left}");
    }
    Ok(text)
}

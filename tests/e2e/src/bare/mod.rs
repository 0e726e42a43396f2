//! The real agent and the real plugin on a node of the fabric, without a Kubernetes around them: what benchmarks and
//! conformance tests of the plugin work with.

pub mod agent;
pub mod plugin;
pub mod pods;

use std::path::PathBuf;

use anyhow::Result;

/// The agent that was built with this program; `ENIPOOL_AGENT` names another.
pub fn agent_executable() -> PathBuf {
    built("ENIPOOL_AGENT", "enipool-agent")
}

/// The plugin in its small profile, built beside this program's; `ENIPOOL_CNI` names another.
pub fn plugin_executable() -> PathBuf {
    built("ENIPOOL_CNI", "../shim/enipool-cni")
}

/// The folder of programs that `make tools` fills.
///
/// # Errors
/// When neither `ENIPOOL_CACHE` nor `HOME` says where the cache is.
pub fn tools() -> Result<PathBuf> {
    Ok(crate::cluster::programs::cache()?.join("bin"))
}

/// A file beside this program, which may be a test (one folder deeper).
fn built(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let own = std::env::current_exe().unwrap_or_default();
    let dir = own.parent().map(|dir| if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir });
    dir.unwrap_or_else(|| std::path::Path::new(".")).join(name)
}

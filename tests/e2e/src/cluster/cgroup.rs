//! The cgroups of a run's nodes: `/enipool-RUN/NODE` in every hierarchy that the machine mounts, version 1 or 2.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

const MOUNT: &str = "/sys/fs/cgroup";

/// The cgroup that holds all nodes of one run.
#[derive(Debug, Clone)]
pub(super) struct RunCgroup {
    name: String,
}

impl RunCgroup {
    pub(super) fn of(run: &str) -> Self {
        Self { name: format!("enipool-{run}") }
    }

    /// Makes a node's cgroup and returns its path as the kubelet wants it (`cgroupRoot`).
    pub(super) fn make_node(&self, node: &str) -> Result<String> {
        for hierarchy in hierarchies() {
            let parent = hierarchy.join(&self.name);
            let leaf = parent.join(node);
            for dir in [&parent, &leaf] {
                fs::create_dir_all(dir).with_context(|| format!("creating the cgroup {}", dir.display()))?;
                inherit_cpuset(dir)?;
            }
            for dir in [&hierarchy, &parent, &leaf] {
                delegate_controllers(dir)?;
            }
        }
        Ok(format!("/{}/{node}", self.name))
    }

    /// Removes the cgroups, once the kernel has seen the last process off.
    pub(super) async fn remove(&self) {
        let mut pause = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..50 {
            pause.tick().await;
            let left = hierarchies().iter().filter(|hierarchy| !remove_tree(&hierarchy.join(&self.name))).count();
            if left == 0 {
                return;
            }
        }
        tracing::warn!(cgroup = self.name, "processes are still in the cgroup; it stays");
    }
}

/// The roots of all hierarchies: one with version 2, one per controller with version 1.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(MOUNT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        // Combined controllers are a folder and links to it.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect()
}

/// Version 1: a new cpuset is empty and takes no process until it has processors and memory nodes.
fn inherit_cpuset(dir: &Path) -> Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), dir.join(file));
        if !to.exists() || parent.join("cgroup.controllers").exists() {
            continue;
        }
        let value = fs::read_to_string(&from).with_context(|| format!("reading {}", from.display()))?;
        fs::write(&to, value.trim()).with_context(|| format!("writing {}", to.display()))?;
    }
    Ok(())
}

/// Version 2: children have a controller when the parent hands it down.
fn delegate_controllers(dir: &Path) -> Result<()> {
    let Ok(controllers) = fs::read_to_string(dir.join("cgroup.controllers")) else { return Ok(()) };
    for controller in controllers.split_whitespace() {
        let file = dir.join("cgroup.subtree_control");
        fs::write(&file, format!("+{controller}"))
            .with_context(|| format!("writing +{controller} to {}", file.display()))?;
    }
    Ok(())
}

/// Removes a tree of cgroups, leaves first; false when something is still in use.
fn remove_tree(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return true };
    let mut gone = true;
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            gone &= remove_tree(&entry.path());
        }
    }
    gone && fs::remove_dir(dir).is_ok()
}

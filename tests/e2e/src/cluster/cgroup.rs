//! The cgroups of a run's nodes: `/enipool-RUN/NODE` in every hierarchy that the machine mounts, version 1 or 2.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};

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

/// What kubelet and containerd ask of the cgroups of pods. Others (`rdma`, `misc`, …) are nobody's business here, and some
/// can only be handed down by whoever has set them up.
const NEEDED: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "hugetlb", "io"];

/// Version 2: children have a controller when the parent hands it down.
fn delegate_controllers(dir: &Path) -> Result<()> {
    let Ok(available) = fs::read_to_string(dir.join("cgroup.controllers")) else { return Ok(()) };
    let file = dir.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    for controller in to_enable(&available, &enabled) {
        fs::write(&file, format!("+{controller}")).map_err(|error| anyhow!(refusal(controller, &file, &error)))?;
    }
    Ok(())
}

/// Those of the available controllers that are needed and not handed down yet, one by one: the kernel takes all or none of
/// what is written at once.
fn to_enable<'a>(available: &'a str, enabled: &str) -> Vec<&'a str> {
    let missing = |name: &&str| NEEDED.contains(name) && !enabled.split_whitespace().any(|have| have == *name);
    available.split_whitespace().filter(missing).collect()
}

/// Why the kernel may have refused, which it says with a number only.
fn refusal(controller: &str, file: &Path, error: &io::Error) -> String {
    let why = match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EBUSY) => {
            "processes are in that very cgroup, and version 2 has them in leaves only: this happens in a container whose \
             own processes are in its root cgroup; move them to one below it"
        }
        Some(nix::errno::Errno::ENOENT) => "the cgroup above does not hand it down",
        Some(nix::errno::Errno::EROFS | nix::errno::Errno::EACCES | nix::errno::Errno::EPERM) => {
            "cgroups may not be changed here: this happens in a container without --privileged and --cgroupns=private"
        }
        Some(nix::errno::Errno::EINVAL | nix::errno::Errno::EOPNOTSUPP) => {
            "the cgroup is a threaded one, or the controller is in use by version 1 or by real-time processes"
        }
        _ => "see cgroups(7)",
    };
    format!(
        "nodes need the cgroup controller {controller}, and writing it to {} failed ({error}): {why}",
        file.display()
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_that_kubelet_needs_are_enabled_where_they_are_there_and_no_others() {
        let of_a_fresh_debian = "cpuset cpu io memory hugetlb pids rdma misc dmem\n";
        assert_eq!(to_enable(of_a_fresh_debian, ""), ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"]);
        assert_eq!(to_enable("cpu memory pids\n", "\n"), ["cpu", "memory", "pids"]);
    }

    #[test]
    fn what_is_enabled_already_is_not_asked_for_again() {
        // As systemd leaves the root of a Debian.
        assert_eq!(to_enable("cpuset cpu io memory hugetlb pids\n", "cpu memory pids\n"), ["cpuset", "io", "hugetlb"]);
        assert_eq!(to_enable("cpuset cpu\n", "cpuset cpu\n"), [""; 0]);
    }

    #[test]
    fn a_controller_that_cannot_be_enabled_is_named_with_the_cause() {
        let refused = |errno| refusal("memory", Path::new("/sys/fs/cgroup/x"), &io::Error::from_raw_os_error(errno));
        let busy = refused(nix::libc::EBUSY);
        assert!(busy.contains("controller memory") && busy.contains("/sys/fs/cgroup/x"), "{busy}");
        assert!(busy.contains("processes are in that very cgroup") && busy.contains("container"), "{busy}");
        assert!(refused(nix::libc::EROFS).contains("--privileged"));
        assert!(refused(nix::libc::ENOENT).contains("the cgroup above does not hand it down"));
    }
}

//! Finds the programs that a cluster is made of: the cache that `tests/e2e/tools/install.sh` fills, Debian's packages, and
//! our own binaries. It says what is missing and how to get it; it installs nothing.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The programs of the cache.
const CACHED: [&str; 16] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "helm",
    "ptp",
    "host-local",
    "portmap",
    "bandwidth",
    "loopback",
];

/// Programs of the machine, and the Debian package of each.
const PACKAGES: [(&str, &str); 8] = [
    ("runc", "runc"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
];

/// What an API server by itself needs of [`CACHED`].
const OF_AN_API_SERVER: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];

/// A folder that has all programs that were asked for.
#[derive(Debug, Clone)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Looks up what a cluster needs, so that a missing program is told before anything is started.
    pub fn find() -> Result<Self> {
        Self::with(&CACHED, &PACKAGES)
    }

    /// Looks up what an API server by itself needs.
    pub fn find_api_server() -> Result<Self> {
        Self::with(&OF_AN_API_SERVER, &[])
    }

    fn with(cached: &[&str], packages: &[(&str, &str)]) -> Result<Self> {
        let dir = cache()?.join("bin");
        let missing: Vec<&str> = cached.iter().copied().filter(|name| !dir.join(name).exists()).collect();
        if !missing.is_empty() {
            bail!(
                "not in {}: {}. `make tools` builds them (some 20 minutes, once; kept outside the tree)",
                dir.display(),
                missing.join(", ")
            );
        }
        let wanted: Vec<&str> =
            packages.iter().filter(|(program, _)| in_path(program).is_none()).map(|(_, package)| *package).collect();
        if !wanted.is_empty() {
            bail!("Debian packages are missing: apt-get install -y {}", wanted.join(" "));
        }
        Ok(Self { dir })
    }

    /// The path of a program of the cache.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The cache's folder of programs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The path of a program of the machine.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// The folder outside the tree that `make tools` fills.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(cache) = env::var_os("ENIPOOL_CACHE") {
        return Ok(cache.into());
    }
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(base) => PathBuf::from(base),
        None => {
            PathBuf::from(env::var_os("HOME").context("HOME is not set, and neither is ENIPOOL_CACHE")?).join(".cache")
        }
    };
    Ok(base.join("enipool"))
}

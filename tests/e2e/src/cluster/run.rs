//! A run: its id, its folder, and the lock that says that it lives. What a crashed run left is recognised by its lock being
//! free, and removed.
//!
//! Everything of a run carries its id: namespaces, cgroups, folders. So two runs on one machine do not meet.

use std::{
    env,
    fs::{self, File, OpenOptions},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::cgroup::RunCgroup;
use crate::fabric;

/// How many folders of ended runs are kept for their logs.
const KEPT: usize = 4;

/// What a run says of itself in its folder, for those who come later (`make demo-down`, a person).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// What it is for: `demo` or `scenarios`.
    pub purpose: String,
    /// The process that keeps it.
    pub keeper: u32,
    /// Its cluster's kubeconfig.
    pub kubeconfig: PathBuf,
}

/// A living run; the lock goes with it.
#[derive(Debug)]
pub struct Run {
    id: String,
    dir: PathBuf,
    /// Held as long as the run lives; the kernel frees it when the process dies, however that happens.
    _alive: Flock<File>,
}

impl Run {
    /// Begins a run, after removing what dead ones left.
    pub async fn begin(purpose: &str) -> Result<Self> {
        let home = home()?;
        for (id, dir) in dead(&home)? {
            sweep(&id, &dir).await;
        }
        forget_old(&home);
        let id = format!("{:06x}", RandomState::new().build_hasher().finish() & 0xff_ffff);
        let dir = home.join(&id);
        fs::create_dir_all(dir.join("logs")).with_context(|| format!("creating {}", dir.display()))?;
        let Some(alive) = lock(&dir)? else { bail!("the new run {id} is locked by another process: try again") };
        let run = Self { id, dir, _alive: alive };
        let record =
            RunRecord { purpose: purpose.to_owned(), keeper: std::process::id(), kubeconfig: run.kubeconfig() };
        fs::write(run.dir.join("run.json"), serde_json::to_vec_pretty(&record)?).context("writing run.json")?;
        Ok(run)
    }

    /// Six hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where every program's output goes.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The cgroup that all nodes of the run are in.
    pub(super) fn cgroup(&self) -> RunCgroup {
        RunCgroup::of(&self.id)
    }
}

/// The runs that live now.
pub fn living() -> Result<Vec<(String, PathBuf, RunRecord)>> {
    let mut runs = Vec::new();
    for (id, dir) in folders(&home()?)? {
        if lock(&dir)?.is_some() {
            continue;
        }
        if let Ok(record) = fs::read(dir.join("run.json"))
            .map_err(anyhow::Error::from)
            .and_then(|text| Ok(serde_json::from_slice(&text)?))
        {
            runs.push((id, dir, record));
        }
    }
    Ok(runs)
}

/// Removes what dead runs left; returns their ids.
pub async fn sweep_dead() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for (id, dir) in dead(&home()?)? {
        sweep(&id, &dir).await;
        swept.push(id);
    }
    Ok(swept)
}

/// Whether the run in this folder still lives.
pub fn lives(dir: &Path) -> bool {
    dir.exists() && matches!(lock(dir), Ok(None))
}

/// Removes all but the logs of a run whose programs have ended.
pub async fn clear(id: &str, dir: &Path) {
    RunCgroup::of(id).remove().await;
    keep_node_logs(dir);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.file_name().is_some_and(|name| name == "logs" || name == "alive") {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "left behind");
        }
    }
}

/// Moves what the nodes' pods and agents have logged to the other logs.
fn keep_node_logs(dir: &Path) {
    for node in fs::read_dir(dir.join("nodes")).into_iter().flatten().flatten() {
        let kept = dir.join("logs").join(node.file_name());
        // A node that never booted has none.
        if let Err(error) = fs::rename(node.path().join("var/log"), kept)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(node = %node.path().display(), %error, "its pods' logs are lost");
        }
    }
}

async fn sweep(id: &str, dir: &Path) {
    tracing::info!(run = id, "removing what a dead run left");
    if let Ok(run) = id.parse()
        && let Err(error) = fabric::cleanup(&run).await
    {
        tracing::warn!(run = id, %error, "the VPC of a dead run could not be removed");
    }
    clear(id, dir).await;
}

/// Runs with things still to remove and nobody who holds their lock.
fn dead(home: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut dead = Vec::new();
    for (id, dir) in folders(home)? {
        // An ended run's folder holds logs alone.
        if dir.join("run.json").exists() && lock(&dir)?.is_some() {
            dead.push((id, dir));
        }
    }
    Ok(dead)
}

fn forget_old(home: &Path) {
    let mut ended: Vec<(SystemTime, PathBuf)> = folders(home)
        .unwrap_or_default()
        .into_iter()
        .filter(|(_, dir)| !dir.join("run.json").exists())
        .filter_map(|(_, dir)| Some((fs::metadata(&dir).ok()?.modified().ok()?, dir)))
        .collect();
    ended.sort();
    let settled = SystemTime::now() - Duration::from_secs(60);
    for (at, dir) in ended.iter().rev().skip(KEPT) {
        if *at < settled {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

fn folders(home: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut folders = Vec::new();
    if !home.exists() {
        return Ok(folders);
    }
    for entry in fs::read_dir(home).with_context(|| format!("reading {}", home.display()))? {
        let entry = entry.with_context(|| format!("reading {}", home.display()))?;
        folders.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(folders)
}

/// Takes a run's lock, or says that another process has it.
fn lock(dir: &Path) -> Result<Option<Flock<File>>> {
    let path = dir.join("alive");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno).with_context(|| format!("locking {}", path.display())),
    }
}

/// Where runs have their folders.
pub fn home() -> Result<PathBuf> {
    let base = match (env::var_os("XDG_STATE_HOME"), env::var_os("HOME")) {
        (Some(base), _) => PathBuf::from(base),
        (None, Some(home)) => PathBuf::from(home).join(".local/state"),
        (None, None) => bail!("neither XDG_STATE_HOME nor HOME is set: no place for a run's folder"),
    };
    Ok(base.join("enipool/runs"))
}

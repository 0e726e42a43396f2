//! Network namespaces that stand for pods, and threads that have entered one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where named network namespaces live.
const NETNS_DIR: &str = "/run/netns";
/// How long the kernel may take to remove the links of dead namespaces.
const SETTLE: Duration = Duration::from_secs(20);

/// A network namespace with nothing but a loopback in it. Gone when dropped.
#[derive(Debug)]
pub struct PodNetns {
    path: PathBuf,
}

impl PodNetns {
    /// # Errors
    /// Without the right to make namespaces.
    pub fn new(name: &str) -> Result<Self> {
        let path = Path::new(NETNS_DIR).join(name);
        fs::create_dir_all(NETNS_DIR)?;
        File::create_new(&path).with_context(|| format!("create {}", path.display()))?;
        let pod = Self { path };
        let path = pod.path.clone();
        on_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        })?;
        Ok(pod)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PodNetns {
    fn drop(&mut self) {
        // Best effort: the directory shows what is left, and nothing of it disturbs another run.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }
}

/// Runs `work` on a thread of its own that has entered the namespace at `path`; processes that it starts are inside too.
///
/// # Errors
/// Those of `work`, and when the namespace cannot be entered.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = File::open(path).with_context(|| format!("open {}", path.display()))?;
    on_thread(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).context("enter the namespace")?;
        work()
    })
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join().map_err(|_| anyhow!("the thread died"))?)
}

/// Links of the calling thread's namespace.
///
/// # Errors
/// When `/proc` is not there.
pub fn links() -> io::Result<usize> {
    Ok(fs::read_to_string("/proc/thread-self/net/dev")?.lines().count().saturating_sub(2))
}

/// Waits until the calling thread's namespace has at most `most` links: the kernel removes those of dead pods in its own
/// time, and what it still has to do would be counted against whoever runs next.
///
/// # Errors
/// When it takes longer than [`SETTLE`].
pub fn settle(most: usize) -> Result<()> {
    let begun = Instant::now();
    while links()? > most {
        if begun.elapsed() > SETTLE {
            bail!("{} links are left after {SETTLE:?}, expected {most}", links()?);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

//! Network namespaces to test in: made on a thread of their own, gone with the process, whatever happens to it.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

/// Whether namespaces can be made. Says why not where the test run shows it.
pub(crate) fn can_run(test: &str) -> bool {
    let allowed = nix::unistd::geteuid().is_root()
        && std::env::var_os("ENIPOOL_NO_NETNS").is_none()
        && std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join().unwrap();
    if !allowed {
        // Past the capture of the test harness: who runs without root should see what was not tested.
        let line = format!("left out: {test} (needs root, and a kernel that makes network namespaces)\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    allowed
}

/// A network namespace.
pub(crate) struct Netns(File);

impl Netns {
    pub(crate) fn new() -> Self {
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        })
        .join()
        .unwrap();
        let netns = Self(file);
        netns.sh("ip link set lo up");
        netns
    }

    /// A path by which this process can open it.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// Runs `work` on a thread inside. Sockets opened there stay inside.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs shell commands inside; they have to succeed. Returns what they print.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.run(|| Command::new("sh").args(["-e", "-c", script]).output().unwrap());
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The inverse: this namespace as one that another's `ip link … netns` can name.
    pub(crate) fn take_link(&self, from: &Netns, link: &str) {
        let fd = self.0.as_raw_fd();
        from.sh(&format!("ip link set {link} netns /proc/{}/fd/{fd}", std::process::id()));
    }
}

//! Which runs exist on this machine, whose they are, and taking one away completely.
//!
//! Blocking on purpose: it also runs where no async runtime is left (a handle dropped while the process ends). All steps
//! can be repeated; what is gone already is no error.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::FabricError;
use super::names::{NETNS_DIR, NETNS_PREFIX, RunId, Slot, host_link, run_prefix};

/// Under it: `RUN/` for each run (owner, what its users keep there), and `slots/N` naming the run that has slot N.
const STATE_DIR: &str = "/run/enipool-fabric";

/// How long processes inside a run's namespaces get to end after each signal.
const GRACE: Duration = Duration::from_secs(3);

/// A run that is registered on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    pub run: RunId,
    /// The process that made it, if it still lives.
    pub owner: Option<u32>,
    /// The control plane's address.
    pub control: Option<Ipv4Addr>,
}

pub(super) fn run_dir(run: &RunId) -> PathBuf {
    Path::new(STATE_DIR).join(run.as_str())
}

fn slots_dir() -> PathBuf {
    Path::new(STATE_DIR).join("slots")
}

/// Registers a run of this process and gives it a slot.
pub(super) fn claim(run: &RunId) -> Result<Slot, FabricError> {
    let _lock = lock()?;
    let dir = run_dir(run);
    match fs::create_dir(&dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if owner(run).is_some() {
                return Err(FabricError::RunExists(run.clone()));
            }
            cleanup_blocking(run)?;
            fs::create_dir(&dir).map_err(FabricError::io(format!("create {}", dir.display())))?;
        }
        Err(error) => return Err(FabricError::io(format!("create {}", dir.display()))(error)),
    }
    let me = std::process::id();
    let started = start_time(me).unwrap_or_default();
    fs::write(dir.join("owner"), format!("{me} {started}\n")).map_err(FabricError::io("write the owner file"))?;
    let taken = addresses_in_use();
    for slot in (0..=u8::MAX).map(Slot).filter(|slot| !taken.contains(&slot.host())) {
        let file = fs::OpenOptions::new().write(true).create_new(true).open(slots_dir().join(slot.0.to_string()));
        match file.and_then(|mut file| writeln!(file, "{run}")) {
            Ok(()) => return Ok(slot),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(FabricError::io("claim a slot")(error)),
        }
    }
    let _ = fs::remove_dir_all(&dir);
    Err(FabricError::NoSlot)
}

/// Held while runs come to be or are judged stale: a run whose owner is not written yet would look abandoned.
fn lock() -> Result<Flock<fs::File>, FabricError> {
    let error = || FabricError::io(format!("lock {STATE_DIR}"));
    fs::create_dir_all(slots_dir()).map_err(error())?;
    let file = fs::File::create(Path::new(STATE_DIR).join("slots").join("lock")).map_err(error())?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| error()(errno.into()))
}

/// All registered runs.
pub fn list() -> Vec<RunInfo> {
    let slots = slots_of_runs();
    let info = |run: RunId| RunInfo {
        owner: owner(&run),
        control: slots.iter().find(|(_, of)| *of == run).map(|(slot, _)| slot.control()),
        run,
    };
    registered().into_iter().map(info).collect()
}

/// Takes away the runs whose owner is gone, and returns them.
pub async fn sweep_stale() -> Result<Vec<RunId>, FabricError> {
    blocking(|| {
        let _lock = lock()?;
        let stale: Vec<_> = registered().into_iter().filter(|run| owner(run).is_none()).collect();
        stale.iter().try_for_each(cleanup_blocking)?;
        Ok(stale)
    })
    .await
}

/// Takes away everything of a run, its owner's other doings included: ends the processes inside its namespaces, then
/// removes links, namespaces and files. Nothing left to remove is no error.
pub async fn cleanup(run: &RunId) -> Result<(), FabricError> {
    let run = run.clone();
    blocking(move || cleanup_blocking(&run)).await
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FabricError> + Send + 'static,
) -> Result<T, FabricError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(FabricError::io("finish")(io::Error::other(error))))
}

pub(super) fn cleanup_blocking(run: &RunId) -> Result<(), FabricError> {
    // The kernel takes namespaces apart later; the link that the machine shows goes at once.
    let _ = quiet("ip", &["link", "del", &host_link(run)]);
    remove_namespaces(&namespaces(run), Ending::Asked)?;
    for (slot, of) in slots_of_runs() {
        if of == *run {
            remove(fs::remove_file(slots_dir().join(slot.0.to_string())))?;
        }
    }
    remove(fs::remove_dir_all(run_dir(run)))
}

/// How the processes inside a namespace end with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// They may finish what they do.
    Asked,
    /// As when the power goes.
    PowerOff,
}

/// Ends the processes inside and removes the namespaces; those that do not exist are no error.
pub(super) fn remove_namespaces(names: &[String], ending: Ending) -> Result<(), FabricError> {
    end_processes_in(names, ending);
    for name in names {
        if let Err(error) = quiet("ip", &["netns", "del", name])
            && Path::new(NETNS_DIR).join(name).exists()
        {
            return Err(error);
        }
    }
    Ok(())
}

fn remove(result: io::Result<()>) -> Result<(), FabricError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FabricError::io("remove a run's files")(error)),
        _ => Ok(()),
    }
}

/// Runs with a directory, a slot or a namespace: a crash may have left any of them alone.
fn registered() -> BTreeSet<RunId> {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let by_dir = names(Path::new(STATE_DIR)).into_iter().filter(|name| name != "slots");
    let by_namespace = names(Path::new(NETNS_DIR)).into_iter().filter_map(|name| {
        let (run, _) = name.strip_prefix(NETNS_PREFIX)?.split_once('-')?;
        Some(run.to_owned())
    });
    let runs = by_dir.chain(by_namespace).filter_map(|name| name.parse().ok());
    runs.chain(slots_of_runs().into_iter().map(|(_, run)| run)).collect()
}

fn slots_of_runs() -> Vec<(Slot, RunId)> {
    let entries = fs::read_dir(slots_dir()).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let slot = entry.file_name().to_str()?.parse().ok()?;
            Some((Slot(slot), fs::read_to_string(entry.path()).ok()?.trim().parse().ok()?))
        })
        .collect()
}

/// The process that owns a run, if it lives: its start time tells it from a later process with the same number.
fn owner(run: &RunId) -> Option<u32> {
    let text = fs::read_to_string(run_dir(run).join("owner")).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let pid = pid.parse().ok()?;
    (start_time(pid)?.to_string() == started).then_some(pid)
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and parentheses; it ends at the last one. State is the next field, number 3.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

/// Addresses of the machine's own namespace.
fn addresses_in_use() -> BTreeSet<Ipv4Addr> {
    let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
    addresses.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip())).collect()
}

fn namespaces(run: &RunId) -> Vec<String> {
    let prefix = run_prefix(run);
    let entries = fs::read_dir(NETNS_DIR).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(&prefix)).collect()
}

/// Ends the processes whose network namespace is one of these.
fn end_processes_in(namespaces: &[String], ending: Ending) {
    let inodes: BTreeSet<u64> = namespaces
        .iter()
        .filter_map(|name| fs::metadata(Path::new(NETNS_DIR).join(name)).ok())
        .map(|metadata| metadata.ino())
        .collect();
    if inodes.is_empty() {
        return;
    }
    let signals: &[Signal] = match ending {
        Ending::Asked => &[Signal::SIGTERM, Signal::SIGKILL],
        Ending::PowerOff => &[Signal::SIGKILL],
    };
    for signal in signals {
        let mut inside = processes_in(&inodes);
        for pid in &inside {
            // It may have ended since it was listed.
            let _ = kill(*pid, *signal);
        }
        let deadline = Instant::now() + GRACE;
        while !inside.is_empty() && Instant::now() < deadline {
            // These are not our children: there is nothing to wait on.
            std::thread::sleep(Duration::from_millis(20));
            inside = processes_in(&inodes);
        }
        if inside.is_empty() {
            return;
        }
    }
}

fn processes_in(inodes: &BTreeSet<u64>) -> Vec<Pid> {
    let me = std::process::id().cast_signed();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != me)
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| inodes.contains(&ns.ino())))
        .map(Pid::from_raw)
        .collect()
}

fn quiet(program: &str, args: &[&str]) -> Result<(), FabricError> {
    let command = || format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(FabricError::io(format!("start `{}`", command())))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(FabricError::Command { command: command(), status: output.status.to_string(), stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_start_time() {
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(u32::MAX), None);
    }
}

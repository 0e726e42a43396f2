//! What a run leaves on the machine, looked up where the kernel shows it and not in the harness's own books.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use enipool_e2e::cluster::until;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;

use crate::keeper::Keeper;

/// A process, not to be mistaken for a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    parent: Pid,
    state: char,
    name: String,
    /// Clock ticks since the machine's start.
    started: u64,
}

impl Process {
    /// `/proc/PID/stat`; none: it has ended.
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // A name may hold spaces and parentheses; it ends at the last one.
        let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        Some(Self {
            pid: Pid::from_raw(pid),
            parent: Pid::from_raw(fields.get(1)?.parse().ok()?),
            state: fields.first()?.chars().next()?,
            name: name.to_owned(),
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// The first 15 bytes of the program's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What has ended and waits only for its parent to notice does not run.
    fn runs(&self) -> bool {
        Self::read(self.pid.as_raw()).is_some_and(|now| now.started == self.started && now.state != 'Z')
    }
}

fn processes() -> Vec<Process> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// All processes that a process has started, and those that they have started.
pub(crate) fn descendants(of: Pid) -> Vec<Process> {
    let mut others = processes();
    let mut found = Vec::new();
    let mut parents = BTreeSet::from([of]);
    while !parents.is_empty() {
        let (children, rest) = others.into_iter().partition::<Vec<_>, _>(|process| parents.contains(&process.parent));
        parents = children.iter().map(|process| process.pid).collect();
        found.extend(children);
        others = rest;
    }
    found
}

/// Where to look for a run.
pub(crate) struct Traces {
    run: String,
    dir: PathBuf,
    processes: Vec<Process>,
}

impl Traces {
    /// Remembers which processes are the cluster's: later nothing but this tells.
    pub(crate) fn of(cluster: &Keeper) -> Self {
        Self::of_run(cluster.dir(), cluster.pid())
    }

    /// Of the run in this folder, which the process holds.
    pub(crate) fn of_run(dir: &Path, keeper: Pid) -> Self {
        let run = dir.file_name().unwrap().to_str().unwrap().to_owned();
        Self { run, dir: dir.to_owned(), processes: descendants(keeper) }
    }

    /// Fails unless all of it is gone.
    pub(crate) async fn expect_gone(&self) {
        // The first process of a node's namespace ends when the kernel has seen off all others there: on a busy machine it
        // takes its time.
        let gone = until("the end of all", Duration::from_secs(30), async || Ok(self.left().is_empty().then_some(())));
        assert!(gone.await.is_ok(), "left behind: {:#?}", self.left());
    }

    /// Everything of the run that is on the machine now, but for the logs that are kept.
    pub(crate) fn left(&self) -> Vec<String> {
        let known = self.processes.iter().filter(|process| process.runs()).map(|process| format!("{process:?}"));
        let mut left: Vec<String> = known.collect();
        left.extend(self.in_proc());
        left.extend(self.cgroups(Path::new("/sys/fs/cgroup")));
        left.extend(self.in_network());
        left.extend(self.in_folder());
        left
    }

    /// Processes that were told of the run, and mounts of it in any process's view: a mount that another run's nodes have
    /// copied keeps a dead namespace alive.
    fn in_proc(&self) -> Vec<String> {
        let mut found = Vec::new();
        for process in processes() {
            let read = |file| fs::read(format!("/proc/{}/{file}", process.pid)).unwrap_or_default();
            for file in ["cmdline", "cgroup", "mountinfo"] {
                let text = String::from_utf8_lossy(&read(file)).replace('\0', " ");
                let lines = text.lines().filter(|line| line.contains(&self.run));
                found.extend(lines.map(|line| format!("{} {} {file}: {line}", process.pid, process.name)));
            }
        }
        found
    }

    fn cgroups(&self, dir: &Path) -> Vec<String> {
        let folders = fs::read_dir(dir).into_iter().flatten().flatten();
        let folders = folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders
            .flat_map(|entry| {
                let path = entry.path();
                let ours = entry.file_name().to_string_lossy().contains(&self.run);
                if ours { vec![path.display().to_string()] } else { self.cgroups(&path) }
            })
            .collect()
    }

    /// Namespaces, links and addresses of the machine, and the fabric's books.
    fn in_network(&self) -> Vec<String> {
        let look = "ip netns; ip -o link; ip -o addr; ls /run/enipool-fabric; cat /run/enipool-fabric/slots/*";
        let output = Command::new("sh").args(["-c", look]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.contains(&self.run)).map(str::to_owned).collect()
    }

    fn in_folder(&self) -> Vec<String> {
        let mut found: Vec<String> = fs::read_dir(&self.dir)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name() != "logs" && entry.file_name() != "alive")
            .map(|entry| entry.path().display().to_string())
            .collect();
        let lock = fs::File::open(self.dir.join("alive")).unwrap();
        if Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_err() {
            found.push(format!("{} is locked", self.dir.display()));
        }
        found
    }
}

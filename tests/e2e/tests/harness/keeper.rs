//! A cluster held by a process of its own, as a person holds one: started, listened to, signalled.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use enipool_e2e::cluster::{Programs, run_command, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::traces::descendants;

/// Longest time for anything that a cluster does, on a slow machine with other clusters on it.
const LIMIT: Duration = Duration::from_secs(240);

/// Where some clusters keep their folders, apart from those of everybody else on the machine.
pub(crate) struct Place {
    state: TempDir,
    programs: PathBuf,
    _turn: Turn,
}

/// Tests run beside each other, but for those that look at the clock.
static MACHINE: RwLock<()> = RwLock::new(());

#[allow(dead_code, reason = "held, not read")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::at(Turn::Shared(MACHINE.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// With no other test's cluster beside it.
    pub(crate) fn alone() -> Self {
        Self::at(Turn::Alone(MACHINE.write().unwrap_or_else(PoisonError::into_inner)))
    }

    fn at(turn: Turn) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "a cluster needs root: namespaces, mounts and cgroups are made");
        let programs = Programs::find().unwrap().dir().to_owned();
        Self { state: tempfile::Builder::new().prefix("enipool-harness-").tempdir().unwrap(), programs, _turn: turn }
    }

    /// Puts a script in the place of one of the cluster's programs.
    pub(crate) fn replace_program(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let bin = self.cache().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        for entry in std::fs::read_dir(&self.programs).unwrap() {
            let entry = entry.unwrap();
            std::os::unix::fs::symlink(entry.path(), bin.join(entry.file_name())).unwrap();
        }
        let program = bin.join(name);
        std::fs::remove_file(&program).unwrap();
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Starts the process, and returns when it has begun a run; the cluster, of one node, comes up in its own time.
    pub(crate) async fn start_cluster(&self) -> Keeper {
        self.start_cluster_as(&["--nodes", "1"]).await
    }

    /// The same, with these flags only.
    pub(crate) async fn start_cluster_as(&self, flags: &[&str]) -> Keeper {
        let mut command = self.command(env!("CARGO_BIN_EXE_cluster"));
        command.arg("up").args(flags);
        self.start(command).await
    }

    /// Starts the demo with a pipe for its output, as where nobody is at a terminal.
    pub(crate) async fn start_demo_into_a_pipe(&self) -> Keeper {
        let mut command = self.command(env!("CARGO_BIN_EXE_demo"));
        command.arg("up");
        self.start(command).await
    }

    /// Starts the demo at a terminal whose keys can be pressed.
    pub(crate) async fn start_demo_on_a_terminal(&self) -> Keeper {
        let mut command = self.demo_at_terminal();
        command.stdin(Stdio::piped());
        self.start(command).await
    }

    async fn start(&self, mut command: Command) -> Keeper {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let words = Arc::<Mutex<String>>::default();
        let listeners = vec![
            listen(process.stdout.take().unwrap(), Arc::clone(&words)),
            listen(process.stderr.take().unwrap(), Arc::clone(&words)),
        ];
        let keys = process.stdin.take();
        let started = Pid::from_raw(process.id().unwrap().cast_signed());
        let run = until("the start of a run", LIMIT, async || Ok(self.run_kept_by(started)));
        let (pid, dir) = run.await.unwrap_or_else(|error| panic!("{error}. It said:\n{}", words.lock().unwrap()));
        Keeper { process, keys, pid, dir, words, listeners, kubectl: self.programs.join("kubectl") }
    }

    /// The run that this process keeps, or one that it has started.
    fn run_kept_by(&self, started: Pid) -> Option<(Pid, PathBuf)> {
        let ours: BTreeSet<Pid> =
            descendants(started).iter().map(|process| process.pid).chain(std::iter::once(started)).collect();
        let runs = std::fs::read_dir(self.state.path().join("enipool/runs")).ok()?;
        runs.flatten().find_map(|run| {
            let record = std::fs::read(run.path().join("run.json")).unwrap_or_default();
            // It may be half written yet.
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
            let keeper = Pid::from_raw(record["keeper"].as_i64()?.try_into().ok()?);
            ours.contains(&keeper).then(|| (keeper, run.path()))
        })
    }

    fn demo_at_terminal(&self) -> Command {
        let mut command = self.command("script");
        let demo = format!("'{}' up", env!("CARGO_BIN_EXE_demo"));
        command.args(["--quiet", "--return", "--command", &demo, "/dev/null"]);
        command
    }

    /// What a person at a terminal sees of `make demo`, until the prompt is back. The terminal ends then.
    pub(crate) async fn demo_on_a_terminal(&self) -> String {
        let mut command = self.demo_at_terminal();
        command.kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, command.output()).await.expect("the demo does not end").unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        assert!(output.status.success(), "{}: {shown}", output.status);
        shown
    }

    /// What a shell prints that a person types this into.
    pub(crate) async fn shell(&self, script: &str) -> String {
        let mut command = self.command("sh");
        command.args(["-ec", script]);
        run_command(command, LIMIT).await.unwrap()
    }

    /// What `make demo-down` says here.
    pub(crate) async fn demo_down(&self) -> String {
        let output = self.command(env!("CARGO_BIN_EXE_demo")).arg("down").output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("XDG_STATE_HOME", self.state.path()).stdin(Stdio::null());
        if self.cache().exists() {
            command.env("ENIPOOL_CACHE", self.cache());
        }
        command
    }

    fn cache(&self) -> PathBuf {
        self.state.path().join("cache")
    }
}

impl Drop for Place {
    /// A test that failed may leave a killed cluster behind, which nobody else would find once this folder is gone.
    fn drop(&mut self) {
        let demo = std::process::Command::new(env!("CARGO_BIN_EXE_demo"))
            .arg("down")
            .env("XDG_STATE_HOME", self.state.path())
            .stdout(Stdio::null())
            .status();
        if !demo.is_ok_and(|status| status.success()) {
            eprintln!("what the test left in {} could not be swept", self.state.path().display());
        }
    }
}

/// A process that holds a cluster. Killed when dropped.
pub(crate) struct Keeper {
    /// What was started: the keeper, or what has started it.
    process: Child,
    keys: Option<ChildStdin>,
    pid: Pid,
    dir: PathBuf,
    words: Arc<Mutex<String>>,
    listeners: Vec<JoinHandle<()>>,
    kubectl: PathBuf,
}

impl Keeper {
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The run's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The run's id.
    pub(crate) fn run(&self) -> &str {
        self.dir.file_name().unwrap().to_str().unwrap()
    }

    /// The path of a program's log.
    pub(crate) fn log(&self, program: &str) -> String {
        self.dir.join("logs").join(format!("{program}.log")).to_str().unwrap().to_owned()
    }

    /// Waits until the cluster is up: its node is ready.
    pub(crate) async fn up(&mut self) {
        self.says("Ctrl-C ends it").await;
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=5s", "node/node-1"]).await.unwrap();
    }

    /// Waits until it has said this.
    pub(crate) async fn says(&mut self, words: &str) {
        let said = until(words, LIMIT, async || {
            let ended = self.process.try_wait()?;
            anyhow::ensure!(ended.is_none(), "the cluster's process has ended");
            Ok(self.words().contains(words).then_some(()))
        });
        said.await.unwrap_or_else(|error| panic!("{error}. It said:\n{}", self.words()));
    }

    /// Waits until a program of this name runs in the cluster.
    pub(crate) async fn finds_process(&self, name: &str) -> Pid {
        let found = until(name, LIMIT, async || {
            Ok(descendants(self.pid).into_iter().find(|process| process.name() == name).map(|process| process.pid))
        });
        found.await.unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    /// Presses the keys at its terminal that make this byte.
    pub(crate) async fn press(&mut self, key: u8) {
        let terminal = self.keys.as_mut().expect("it is at no terminal");
        terminal.write_all(&[key]).await.unwrap();
        terminal.flush().await.unwrap();
    }

    /// Waits for its end, and for its last word.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = tokio::time::timeout(LIMIT, self.process.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("it does not end. It said:\n{}", self.words())).unwrap();
        for listener in self.listeners.drain(..) {
            listener.await.unwrap();
        }
        status
    }

    /// All that it has said until now.
    pub(crate) fn words(&self) -> String {
        self.words.lock().unwrap().clone()
    }

    /// Fails unless it has said all of this.
    pub(crate) fn expect_words(&self, wanted: &[&str]) {
        let words = self.words();
        for wanted in wanted {
            assert!(words.contains(wanted), "it did not say {wanted:?}, but:\n{words}");
        }
    }

    /// Runs `kubectl` as the cluster's administrator.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", self.dir.join("kubeconfig")).env("KUBECACHEDIR", self.dir.join("kubeconfig.cache"));
        command.args(arguments);
        run_command(command, LIMIT).await
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Its lock is free once it has ended: only then the place can be swept.
        while let Ok(None) = self.process.try_wait() {
            let _ = self.process.start_kill();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Gathers what a process says, until it and all that it started have let go of the pipe.
fn listen(from: impl AsyncRead + Unpin + Send + 'static, words: Arc<Mutex<String>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            let mut words = words.lock().unwrap();
            words.push_str(&line);
            words.push('\n');
        }
    })
}

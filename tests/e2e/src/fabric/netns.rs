//! One named network namespace: running commands in it, and opening sockets in it from this process.
//!
//! Commands enter with `nsenter --net=`, not with `ip netns exec`: that remounts /sys and hides the cgroup hierarchies
//! from what runs inside.

use std::fs::File;
use std::io;
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::error::FabricError;

/// How long a command in a namespace may take. All of them act on local kernel objects.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A named network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    path: Arc<Path>,
}

/// What a listener needs besides its address.
#[derive(Debug, Clone, Default)]
pub(super) struct ListenOptions {
    /// Accept only what comes in through this interface.
    pub(super) device: Option<String>,
    /// Time to live of what the sockets send.
    pub(super) ttl: Option<u8>,
}

impl Netns {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path: path.into() }
    }

    /// The file to enter with `nsenter --net=`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `program`, to be run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command
    }

    /// Runs a command inside and returns what it printed; at most 30 s.
    ///
    /// # Errors
    /// [`FabricError::Command`] with its standard error if it fails, [`FabricError::Timeout`] if it does not end.
    pub async fn exec<S: AsRef<str>>(&self, command: &[S]) -> Result<String, FabricError> {
        let mut words = command.iter().map(AsRef::as_ref);
        let mut process = self.command(words.next().unwrap_or("true"));
        process.args(words);
        run(process, None).await
    }

    /// Runs lines through `ip -batch` inside; stops at the first that fails.
    pub(super) async fn ip(&self, lines: &[String]) -> Result<(), FabricError> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut command = self.command("ip");
        command.args(["-batch", "-"]);
        run(command, Some(lines.join("\n"))).await.map(drop).map_err(|error| with_line(error, lines))
    }

    /// Like `ip`, for lines whose object may be gone already: goes on after each that fails.
    pub(super) async fn ip_forgiving(&self, lines: &[String]) -> Result<(), FabricError> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut command = self.command("ip");
        command.args(["-force", "-batch", "-"]);
        match run(command, Some(lines.join("\n"))).await {
            Err(FabricError::Command { stderr, .. }) => {
                tracing::debug!(%stderr, "some of it was gone already");
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Sets kernel parameters of the namespace, given as `net/ipv4/ip_forward=1`.
    pub(super) async fn sysctl(&self, settings: &[&str]) -> Result<(), FabricError> {
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        self.inside("set kernel parameters", move || {
            settings.iter().filter_map(|setting| setting.split_once('=')).try_for_each(|(key, value)| {
                // /proc/sys/net shows the namespace of the thread that opens it.
                std::fs::write(Path::new("/proc/sys").join(key), value)
            })
        })
        .await
    }

    /// Applies an nftables script inside, as one transaction.
    pub(super) async fn nft(&self, script: String) -> Result<(), FabricError> {
        if script.is_empty() {
            return Ok(());
        }
        let mut command = self.command("nft");
        command.args(["-f", "-"]);
        run(command, Some(script)).await.map(drop)
    }

    /// Runs `work` on a thread of its own that has entered the namespace. Sockets made there stay there.
    pub(super) async fn inside<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, FabricError> {
        let path = Arc::clone(&self.path);
        let (done, answer) = tokio::sync::oneshot::channel();
        // Not a pooled thread: it keeps the namespace for as long as it lives.
        let thread = std::thread::Builder::new().name("in-netns".into()).spawn(move || {
            let result = File::open(&path).and_then(|file| {
                setns(&file, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            // Nobody waits any more if the caller was dropped.
            let _ = done.send(result);
        });
        let context = || format!("{what} in {}", self.path.display());
        thread.map_err(FabricError::io("start a thread"))?;
        let result = answer.await.unwrap_or_else(|_| Err(io::Error::other("the thread ended early")));
        result.map_err(FabricError::io(context()))
    }

    /// A listening TCP socket inside, ready for tokio.
    pub(super) async fn tcp_listener(
        &self,
        address: SocketAddrV4,
        options: ListenOptions,
    ) -> Result<tokio::net::TcpListener, FabricError> {
        let what = format!("listen on {address}");
        let listener = self
            .inside(&what, move || {
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
                setsockopt(&fd, sockopt::ReuseAddr, &true)?;
                if let Some(device) = options.device {
                    setsockopt(&fd, sockopt::BindToDevice, &device.into())?;
                }
                if let Some(ttl) = options.ttl {
                    setsockopt(&fd, sockopt::Ipv4Ttl, &i32::from(ttl))?;
                }
                bind(fd.as_raw_fd(), &SockaddrIn::from(address))?;
                listen(&fd, Backlog::MAXALLOWABLE)?;
                Ok(TcpListener::from(fd))
            })
            .await?;
        tokio::net::TcpListener::from_std(listener).map_err(FabricError::io(what))
    }

    /// A bound UDP socket inside, ready for tokio.
    pub(super) async fn udp_socket(&self, address: SocketAddrV4) -> Result<tokio::net::UdpSocket, FabricError> {
        let what = format!("bind UDP {address}");
        let socket = self
            .inside(&what, move || {
                let socket = UdpSocket::bind(address)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .await?;
        tokio::net::UdpSocket::from_std(socket).map_err(FabricError::io(what))
    }
}

/// Runs lines through `ip -batch` in the machine's own namespace.
pub(super) async fn host_ip(lines: &[String]) -> Result<(), FabricError> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    run(command, Some(lines.join("\n"))).await.map(drop).map_err(|error| with_line(error, lines))
}

/// `ip` names the line that failed by its number only: say which it was.
fn with_line(error: FabricError, lines: &[String]) -> FabricError {
    let FabricError::Command { command, status, stderr } = error else { return error };
    let number = stderr.rsplit_once("Command failed -:").and_then(|(_, n)| n.trim().parse::<usize>().ok());
    let line = number.and_then(|n| lines.get(n.checked_sub(1)?)).map_or(String::new(), |line| format!(" [{line}]"));
    FabricError::Command { command, status, stderr: format!("{}{line}", stderr.trim()) }
}

async fn run(mut command: Command, input: Option<String>) -> Result<String, FabricError> {
    let shown = shown(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(FabricError::io(format!("start `{shown}`")))?;
    let stdin = child.stdin.take();
    let work = async {
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // A command that ends before it has read all says why on its standard error.
                let _ = stdin.write_all(input.as_bytes()).await;
                let _ = stdin.write_all(b"\n").await;
            }
        };
        tokio::join!(feed, child.wait_with_output()).1
    };
    let output = tokio::time::timeout(COMMAND_TIMEOUT, work)
        .await
        .map_err(|_| FabricError::Timeout { what: format!("`{shown}`"), after: COMMAND_TIMEOUT })?
        .map_err(FabricError::io(format!("run `{shown}`")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        // ping and its like explain themselves on standard output.
        String::from_utf8_lossy(&output.stdout).trim().clone_into(&mut said);
    }
    Err(FabricError::Command { command: shown, status: output.status.to_string(), stderr: said })
}

fn shown(command: &Command) -> String {
    let command = command.as_std();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(command.get_program().to_string_lossy().into_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

//! The unix socket: who may speak, how much at once, and for how long.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use enipool_cni::{CniError, Code, Request, Response, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::ports::{Addresses, PodLinks};
use super::verbs::Verbs;

/// Most connections at once; further plugins wait in the kernel's queue of the socket. The largest node runs 737 pods, and
/// a runtime makes one call at a time for each.
const MAX_CONNECTIONS: usize = 1024;
/// A plugin writes its request at once; one that does not is hung.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A plugin reads nothing but the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Before the next try after the kernel refused a connection (no file descriptor left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For calls under way when the agent stops.
const GRACE: Duration = Duration::from_secs(2);
/// Room for an ordinary request without growing.
const USUAL_REQUEST: usize = 4096;

/// Where the server listens and for whom.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub socket: PathBuf,
    /// The user that may connect: root, as container runtimes run.
    pub allowed_uid: u32,
}

/// A bound socket. Plugins can connect from the moment of the binding; they are answered once it serves.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    config: ServerConfig,
}

impl Server {
    /// Takes the socket's path over, also from an agent that died or is about to end. Has to run within a tokio runtime.
    ///
    /// # Errors
    /// When directory or socket cannot be made.
    pub fn bind(config: ServerConfig) -> io::Result<Self> {
        if let Some(dir) = config.socket.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        // Bound under another name, closed to others, then put into place: nobody ever finds it open or missing.
        let fresh = config.socket.with_extension(format!("{}.new", std::process::id()));
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
        std::fs::rename(&fresh, &config.socket)?;
        Ok(Self { listener, config })
    }

    /// Drains the queue of deletions, then answers calls until `shutdown`.
    pub async fn serve<A: Addresses, L: PodLinks>(self, verbs: Arc<Verbs<A, L>>, shutdown: CancellationToken) {
        if let Err(error) = verbs.queue.tidy() {
            warn!(target: "plugin", %error, "leftovers in the queue of deletions");
        }
        verbs.drain().await;
        info!(target: "plugin", socket = %self.config.socket.display(), "serving CNI calls");
        let calls = TaskTracker::new();
        calls.spawn({
            let (verbs, shutdown) = (Arc::clone(&verbs), shutdown.clone());
            async move { verbs.sweep(shutdown).await }
        });
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Some((stream, place)) = self.next(&places, &shutdown).await {
            let verbs = Arc::clone(&verbs);
            let allowed_uid = self.config.allowed_uid;
            calls.spawn(async move {
                if let Err(error) = converse(stream, allowed_uid, &verbs).await {
                    debug!(target: "plugin", %error, "a connection ended early");
                }
                drop(place);
            });
        }
        calls.close();
        // What still waits for an address is cut off: its plugin tells the runtime to try again.
        if timeout(GRACE, calls.wait()).await.is_err() {
            warn!(target: "plugin", calls = calls.len(), "stopping with calls under way");
        }
    }

    async fn next(
        &self,
        places: &Arc<Semaphore>,
        shutdown: &CancellationToken,
    ) -> Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
        loop {
            let accepted = shutdown
                .run_until_cancelled(async {
                    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
                    let (stream, _) = self.listener.accept().await?;
                    io::Result::Ok((stream, place))
                })
                .await?;
            match accepted {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    warn!(target: "plugin", %error, "cannot accept a connection");
                    shutdown.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await?;
                }
            }
        }
    }
}

async fn converse<A: Addresses, L: PodLinks>(
    mut stream: UnixStream,
    allowed_uid: u32,
    verbs: &Verbs<A, L>,
) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != allowed_uid {
        warn!(target: "plugin", uid = peer.uid(), pid = peer.pid(), "refused a caller of the CNI socket: not root");
        return Ok(());
    }
    let (mut reader, mut writer) = stream.split();
    let request = timeout(REQUEST_TIMEOUT, read_request(&mut reader)).await.map_err(io::Error::from)?;
    let response = match request {
        Ok(request) => {
            // The plugin sends nothing more: whatever can be read now is its end.
            let gone = async {
                let _ended = reader.read(&mut [0; 1]).await;
            };
            verbs.answer(&request, gone).await
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Response::failure(
            &CniError::new(Code::Decode, "the agent cannot read the plugin's request").details(error.to_string()),
        ),
        Err(error) => return Err(error),
    };
    let answer = frame::encode(&response)?;
    timeout(ANSWER_TIMEOUT, writer.write_all(&answer)).await.map_err(io::Error::from)?
}

async fn read_request(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Request> {
    let mut frame = Vec::with_capacity(USUAL_REQUEST);
    loop {
        if let Some((header, body)) = frame.split_first_chunk::<{ frame::HEADER }>()
            && let Some(body) = body.get(..frame::body_length(*header)?)
        {
            return Ok(serde_json::from_slice(body)?);
        }
        if stream.read_buf(&mut frame).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

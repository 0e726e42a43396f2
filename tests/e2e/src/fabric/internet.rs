//! The host outside the VPC: tells each client which address it saw, so that source NAT shows.
//!
//! - HTTP on port 80: any `GET` is answered with the client's address and a newline.
//! - TCP on port 7: a first line with the client's address and port, then everything comes back.
//! - UDP on port 7: each datagram is answered with the client's address and port, a space, and the datagram.

use std::future::Future;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::error::FabricError;
use super::names::INTERNET_HOST;
use super::netns::{ListenOptions, Netns};

const HTTP_PORT: u16 = 80;
const ECHO_PORT: u16 = 7;

/// A client that says nothing for so long is let go.
const CONVERSATION: Duration = Duration::from_mins(1);

/// Conversations at once per service; more wait in the listen queue.
const AT_ONCE: usize = 256;

/// The running services.
#[derive(Debug)]
pub(super) struct Internet {
    _services: [AbortOnDropHandle<()>; 3],
}

impl Internet {
    pub(super) async fn start(netns: &Netns) -> Result<Self, FabricError> {
        let address = |port| SocketAddrV4::new(INTERNET_HOST, port);
        let http = netns.tcp_listener(address(HTTP_PORT), ListenOptions::default()).await?;
        let tcp = netns.tcp_listener(address(ECHO_PORT), ListenOptions::default()).await?;
        let udp = netns.udp_socket(address(ECHO_PORT)).await?;
        let tasks =
            [tokio::spawn(serve(http, answer_http)), tokio::spawn(serve(tcp, echo)), tokio::spawn(echo_datagrams(udp))];
        Ok(Self { _services: tasks.map(AbortOnDropHandle::new) })
    }
}

async fn serve<F>(listener: TcpListener, talk: impl Fn(TcpStream, SocketAddr) -> F)
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let conversation = talk(stream, client);
                tokio::spawn(async move {
                    match tokio::time::timeout(CONVERSATION, conversation).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!(%client, %error, "conversation broke off"),
                        Err(_) => debug!(%client, "silent client"),
                    }
                    drop(place);
                });
            }
            Err(error) => warn!(%error, "the internet host cannot accept"),
        }
    }
}

async fn answer_http(stream: TcpStream, client: SocketAddr) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    // The request ends at the first empty line; a GET has no body.
    while stream.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let body = format!("{}\n", client.ip());
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close";
    stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    stream.shutdown().await
}

async fn echo(mut stream: TcpStream, client: SocketAddr) -> std::io::Result<()> {
    stream.write_all(format!("{client}\n").as_bytes()).await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await.map(drop)
}

async fn echo_datagrams(socket: UdpSocket) {
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, client)) => {
                let mut answer = format!("{client} ").into_bytes();
                answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
                if let Err(error) = socket.send_to(&answer, client).await {
                    debug!(%client, %error, "cannot answer a datagram");
                }
            }
            Err(error) => debug!(%error, "a datagram came to nothing"),
        }
    }
}

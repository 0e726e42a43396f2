//! Packets between namespaces, with sockets that were opened inside them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::lab::Netns;

/// A busy machine may need seconds to resolve a neighbour.
const PATIENCE: Duration = Duration::from_secs(15);
/// Datagrams get lost, by an unresolved neighbour for one: who hears nothing for so long sends again.
const AGAIN: Duration = Duration::from_secs(1);

/// Sends a datagram from one namespace to an address in another and back. Returns the source as the receiver saw it.
pub(crate) fn udp(from: &Netns, to: &Netns, address: Ipv4Addr) -> Result<Ipv4Addr, String> {
    let server = to.run(|| UdpSocket::bind((address, 0)).unwrap());
    let port = server.local_addr().unwrap().port();
    let client = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 16];
    let (_, seen) = deliver(&client, b"hello", &server, &mut buffer, (address, port).into())?;
    server.send_to(b"welcome", seen).map_err(|error| format!("no answer sent: {error}"))?;
    let (_, answered) = client.recv_from(&mut buffer).map_err(|error| format!("no answer came: {error}"))?;
    if answered.ip() != address {
        return Err(format!("the answer came from {answered}, not from {address}"));
    }
    match seen {
        SocketAddr::V4(seen) => Ok(*seen.ip()),
        SocketAddr::V6(seen) => Err(format!("an IPv6 source: {seen}")),
    }
}

/// Sends one datagram of `size` bytes. Returns its source as the receiver saw it.
pub(crate) fn datagram(from: &Netns, to: &Netns, address: Ipv4Addr, size: usize) -> Result<Ipv4Addr, String> {
    let server = to.run(|| UdpSocket::bind((address, 0)).unwrap());
    let client = from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    let mut buffer = vec![0; size + 1];
    match deliver(&client, &vec![7; size], &server, &mut buffer, server.local_addr().unwrap())? {
        (length, SocketAddr::V4(seen)) if length == size => Ok(*seen.ip()),
        (length, seen) => Err(format!("{length} bytes from {seen}")),
    }
}

/// Sends a datagram to the server, again and again until it arrives.
fn deliver(
    client: &UdpSocket,
    bytes: &[u8],
    server: &UdpSocket,
    buffer: &mut [u8],
    target: SocketAddr,
) -> Result<(usize, SocketAddr), String> {
    server.set_read_timeout(Some(AGAIN)).unwrap();
    let start = Instant::now();
    loop {
        client.send_to(bytes, target).map_err(|error| format!("not sent: {error}"))?;
        match server.recv_from(buffer) {
            Err(error) if start.elapsed() > PATIENCE => return Err(format!("nothing arrived: {error}")),
            Err(_) => {}
            Ok(received) => return Ok(received),
        }
    }
}

/// A process that another test is just starting may hold a copy of the last listener until it executes its program.
fn listen(port: u16) -> TcpListener {
    let start = Instant::now();
    loop {
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            bound => return bound.unwrap(),
        }
    }
}

/// Connects to `target`, which leads to a listener on `port` in `server`, and gets an answer. Returns the client's
/// address as the server saw it.
pub(crate) fn tcp(client: &Netns, target: (Ipv4Addr, u16), server: &Netns, port: u16) -> Result<Ipv4Addr, String> {
    let listener = server.run(|| listen(port));
    listener.set_nonblocking(true).unwrap();
    let connecting = client.run(|| TcpStream::connect_timeout(&SocketAddr::from((target.0, target.1)), PATIENCE));
    let mut connection = connecting.map_err(|error| format!("not connected: {error}"))?;
    let (mut accepted, seen) = listener.accept().map_err(|error| format!("connected to somebody else: {error}"))?;
    accepted.set_nonblocking(false).unwrap();
    accepted.write_all(b"welcome").map_err(|error| error.to_string())?;
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 7];
    connection.read_exact(&mut buffer).map_err(|error| format!("no answer: {error}"))?;
    match seen {
        SocketAddr::V4(seen) => Ok(*seen.ip()),
        SocketAddr::V6(seen) => Err(format!("an IPv6 client: {seen}")),
    }
}

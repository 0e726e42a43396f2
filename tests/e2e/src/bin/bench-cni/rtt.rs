//! UDP round trips between two pods through their node.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use enipool_e2e::bare::pods;

use crate::latency::Pod;

const PORT: u16 = 7777;
const PATIENCE: Duration = Duration::from_secs(2);

/// The pod's address as ADD answered it.
pub(crate) fn address(pod: &Pod) -> Result<Ipv4Addr> {
    let result = pod.attachment.result.as_ref().context("the pod has no address")?;
    let text = result["ips"][0]["address"].as_str().context("the result has no address")?;
    Ok(text.split('/').next().unwrap_or_default().parse()?)
}

/// Median of `count` round trips from `client` to `server`, in microseconds.
///
/// # Errors
/// When one takes longer than two seconds: the two do not reach each other.
pub(crate) fn median_us(client: &Pod, server: &Pod, count: usize) -> Result<f64> {
    let target = SocketAddr::from((address(server)?, PORT));
    let echo = socket_inside(server.netns.path(), PORT)?;
    let client = socket_inside(client.netns.path(), 0)?;
    std::thread::scope(|scope| {
        let server = scope.spawn(move || -> Result<()> {
            let mut buffer = [0; 64];
            loop {
                let (length, from) = echo.recv_from(&mut buffer).context("the server heard nothing")?;
                // One byte ends it.
                if length == 1 {
                    return Ok(());
                }
                echo.send_to(buffer.get(..length).unwrap_or_default(), from)?;
            }
        });
        let mut times = Vec::with_capacity(count);
        let mut buffer = [0; 64];
        for _ in 0..count {
            let begun = Instant::now();
            client.send_to(&[7; 32], target)?;
            client.recv_from(&mut buffer).context("no round trip between the pods")?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        client.send_to(&[0], target)?;
        server.join().map_err(|_| anyhow::anyhow!("the server died"))??;
        Ok(crate::figures::median(times))
    })
}

/// A socket that lives in the namespace at `path` whoever uses it.
fn socket_inside(path: &Path, port: u16) -> Result<UdpSocket> {
    let socket = pods::inside(path, || Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

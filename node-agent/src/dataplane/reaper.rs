//! Deletes veth pairs that nobody needs any more, some time after their pod went.
//!
//! Removing a pod's namespace removes its veth, and the runtime does that right after DEL; the reaper looks a moment
//! later and deletes what is still there. Nobody waits for it: the kernel takes 15 ms and more for each.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use enipool_pool::id::MacAddress;
use nix::libc;

use super::DataplaneError;
use super::netlink::{Batch, Netlink, link};

/// Most interfaces waiting. An instance takes at most 737 pods; above this they are left for a restart to find.
const QUEUE: usize = 4096;

/// An interface to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doomed {
    pub(super) ifindex: u32,
    /// If known: another link may have taken over the index.
    pub(super) mac: Option<MacAddress>,
}

/// Hands interfaces to the reaper's thread.
#[derive(Debug, Clone)]
pub(super) struct Reaper(SyncSender<(Instant, Doomed)>);

impl Reaper {
    /// Starts the thread, in the caller's network namespace. It ends when the last `Reaper` is gone.
    pub(super) fn start(after: Duration, timeout: Duration) -> Result<Self, DataplaneError> {
        let netlink = Netlink::route(timeout)?;
        let (sender, receiver) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("enipool-reaper".into())
            .stack_size(128 * 1024)
            .spawn(move || run(netlink, &receiver, after))
            .map_err(|error| DataplaneError::io("start the reaper", error))?;
        Ok(Self(sender))
    }

    pub(super) fn doom(&self, doomed: Doomed) {
        match self.0.try_send((Instant::now(), doomed)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!(ifindex = doomed.ifindex, "too many interfaces to delete; left");
            }
            Err(TrySendError::Disconnected(_)) => {
                tracing::warn!(ifindex = doomed.ifindex, "the reaper has stopped; interface left");
            }
        }
    }
}

fn run(mut netlink: Netlink, receiver: &Receiver<(Instant, Doomed)>, after: Duration) {
    let mut waiting: VecDeque<(Instant, Doomed)> = VecDeque::new();
    loop {
        let wait = match waiting.front() {
            None => None,
            Some(_) if waiting.len() >= QUEUE => Some(Duration::ZERO),
            Some((since, _)) => Some((*since + after).saturating_duration_since(Instant::now())),
        };
        let next = match wait {
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(Duration::ZERO) => Err(RecvTimeoutError::Timeout),
            Some(left) => receiver.recv_timeout(left),
        };
        match next {
            Ok(doomed) => waiting.push_back(doomed),
            Err(RecvTimeoutError::Timeout) => {
                if let Some((_, due)) = waiting.pop_front() {
                    delete(&mut netlink, due);
                }
            }
            // The agent ends. What is left is the kernel's, or is found as an orphan by the next agent.
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn delete(netlink: &mut Netlink, doomed: Doomed) {
    let found = match link::by_index(netlink, doomed.ifindex) {
        Ok(Some(link)) => link,
        Ok(None) => return,
        Err(error) => return tracing::warn!(ifindex = doomed.ifindex, %error, "stale interface not looked up"),
    };
    if found.kind != "veth" || doomed.mac.is_some_and(|mac| found.mac != Some(mac)) {
        return;
    }
    let mut batch = Batch::new();
    link::push_delete(&mut batch, found.index);
    match netlink.execute_unless("delete a stale interface", batch, &[libc::ENODEV]) {
        Ok(()) => tracing::debug!(name = found.name, "stale interface deleted"),
        Err(error) => tracing::warn!(name = found.name, %error, "stale interface not deleted"),
    }
}

//! Listens to what others change in the kernel and says what of it matters. Changes nothing itself.
//!
//! Most of what arrives is the echo of our own work (every ADD makes half a dozen notifications), so the first question
//! to each is the cheapest one.
//!
//! Routing changes come over a socket of our own, not over rtnetlink's multicast connection. That one tells of losses, and
//! shows who caused a change, but netlink-packet-route has no type for changes of `net.ipv4.conf` (RTM_NEWNETCONF) and the
//! connection drops every message that does not parse: a link with one attribute that the crate does not understand would
//! come and go unheard too. And what it has read waits in a queue without a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use enipool_pool::id::MacAddress;
use netlink_packet_core::{NlasIterator, parse_i32};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

use super::control::{Controller, Signal};
use super::desired::{is_our_rule, is_our_table};
use super::layout;
use super::netlink::socket::{frames, is_kernel};
use super::netlink::{Frame, address, link, route, rule};
use super::nft::{self, NftEvent};
use super::pods::{PodEntry, Pods};
use super::{DataplaneError, LinkSeen};

const ROUTE_GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv4Netconf,
];
/// A change of `net.ipv4.conf`. Behind a header of four bytes the interface index is attribute 1, -1 for "all".
const RTM_NEWNETCONF: u16 = 80;
const NETCONFMSG: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NFTABLES_GROUP: u32 = libc::NFNLGRP_NFTABLES.cast_unsigned();
/// Room for the notifications of a thousand ADDs while the runtime is busy.
const RECEIVE_BUFFER: usize = 4 << 20;
const DATAGRAM: usize = 64 * 1024;

/// What the listener has to know to tell what matters. Written by the control thread, read for each notification.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Interface indexes of the links that carry ENIs.
    pub(super) uplinks: BTreeMap<u32, u32>,
    /// MACs of ENIs whose link is not there.
    pub(super) missing: BTreeSet<MacAddress>,
}

/// Shared with the control thread.
pub(super) type SharedWatch = Arc<Mutex<Watch>>;

/// The listening tasks. They end with this.
#[derive(Debug)]
pub(super) struct Monitor(Vec<AbortHandle>);

impl Drop for Monitor {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Where notifications go.
#[derive(Debug, Clone)]
pub(super) struct Listener {
    pub(super) watch: SharedWatch,
    pub(super) pods: Arc<Pods>,
    pub(super) own_ports: Arc<[u32]>,
    pub(super) controller: Controller,
    pub(super) links: broadcast::Sender<LinkSeen>,
}

impl Monitor {
    /// Starts listening in the caller's network namespace, on the caller's runtime.
    pub(super) fn start(listener: &Listener) -> Result<Self, DataplaneError> {
        let routing = subscribe(libc::NETLINK_ROUTE, &ROUTE_GROUPS.map(|group| group as u32))?;
        let netfilter = subscribe(libc::NETLINK_NETFILTER, &[NFTABLES_GROUP])?;
        let listeners = [(routing, listener.clone()), (netfilter, listener.clone())];
        let spawn = |(socket, listener): (TokioSocket, Listener)| tokio::spawn(listen(socket, listener)).abort_handle();
        Ok(Self(listeners.into_iter().map(spawn).collect()))
    }
}

fn subscribe(family: i32, groups: &[u32]) -> Result<TokioSocket, DataplaneError> {
    let step = "listen to the kernel's notifications";
    let failed = |error| DataplaneError::io(step, error);
    let mut socket = TokioSocket::new(isize::try_from(family).unwrap_or_default()).map_err(failed)?;
    let inner = socket.socket_mut();
    inner.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
    for group in groups {
        inner.add_membership(*group).map_err(failed)?;
    }
    // Best effort: with a smaller buffer, lost notifications lead to a full comparison instead.
    let _ = setsockopt(&inner.as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER);
    Ok(socket)
}

async fn listen(socket: TokioSocket, listener: Listener) {
    let mut buffer = Vec::with_capacity(DATAGRAM);
    let mut table_touched = false;
    loop {
        match hear_kernel(&socket, &mut buffer).await {
            Ok(()) => {
                for frame in frames(&buffer) {
                    listener.hear(&frame, &mut table_touched);
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => listener.controller.signal(Signal::CompareAll),
            Err(error) => {
                tracing::error!(%error, "the kernel's notifications cannot be read any more; drift is found by the minute only");
                return;
            }
        }
    }
}

/// Waits for the next datagram that the kernel itself sent.
async fn hear_kernel(socket: &TokioSocket, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        buffer.clear();
        let sender = socket.recv_from(buffer).await?;
        if is_kernel(&sender) {
            return Ok(());
        }
        tracing::debug!(port = sender.port_number(), "a notification that is not the kernel's was ignored");
    }
}

impl Listener {
    fn hear(&self, frame: &Frame<'_>, table_touched: &mut bool) {
        match frame.message_type() {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => self.hear_link(frame),
            _ if self.own_ports.contains(&frame.port_number()) => {}
            libc::RTM_NEWRULE | libc::RTM_DELRULE => {
                if rule::parse(frame).is_some_and(|rule| is_our_rule(&rule)) {
                    self.controller.signal(Signal::CompareObjects);
                }
            }
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                let Some(route) = route::parse(frame) else { return };
                let stray = route.table == route::MAIN && self.is_secondary_uplink(route.link);
                if is_our_table(route.table) || stray {
                    self.controller.signal(Signal::CompareObjects);
                }
            }
            libc::RTM_NEWADDR | libc::RTM_DELADDR => {
                if address::parse(frame).is_some_and(|address| self.is_secondary_uplink(address.index)) {
                    self.controller.signal(Signal::CompareObjects);
                }
            }
            RTM_NEWNETCONF => {
                let of_uplink =
                    |index| u32::try_from(index).is_ok_and(|index| self.watch().uplinks.contains_key(&index));
                if link_of_setting(frame).is_some_and(|index| index == -1 || of_uplink(index)) {
                    self.controller.signal(Signal::CompareObjects);
                }
            }
            _ => match nft::event(frame) {
                Some(NftEvent::OurTable) => *table_touched = true,
                Some(NftEvent::Transaction { process, pid }) if *table_touched => {
                    *table_touched = false;
                    self.controller.signal(Signal::TableChanged { by: format!("{process} (pid {pid})") });
                }
                _ => {}
            },
        }
    }

    fn hear_link(&self, frame: &Frame<'_>) {
        let Some(link) = link::parse(frame) else { return };
        if frame.message_type() == libc::RTM_DELLINK {
            if let Some((address, entry)) = self.pods.by_ifindex(link.index) {
                let PodEntry { host_ifname, ifindex } = entry;
                self.controller.signal(Signal::PodLinkGone { address, host_ifname, ifindex });
            } else if self.watch().uplinks.contains_key(&link.index) {
                self.controller.signal(Signal::CompareObjects);
            }
            return;
        }
        let Some(mac) = link.mac else { return };
        if layout::is_host_mac(mac) {
            // Up from its first moment; somebody set it down.
            if !link.up && self.pods.by_ifindex(link.index).is_some() {
                self.controller.signal(Signal::PodLinkDown { ifindex: link.index });
            }
            return;
        }
        let matters = {
            let watch = self.watch();
            watch.uplinks.contains_key(&link.index) || watch.missing.contains(&mac)
        };
        // Nobody waiting is the usual case.
        let _ = self.links.send(LinkSeen { mac, ifindex: link.index, name: link.name });
        if matters {
            self.controller.signal(Signal::CompareObjects);
        }
    }

    fn is_secondary_uplink(&self, index: u32) -> bool {
        self.watch().uplinks.get(&index).is_some_and(|device_index| *device_index != 0)
    }

    fn watch(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose setting in `net.ipv4.conf` has changed: a link's index, or -1 for all.
fn link_of_setting(frame: &Frame<'_>) -> Option<i32> {
    let mut attributes = NlasIterator::new(frame.payload().get(NETCONFMSG..)?).map_while(Result::ok);
    parse_i32(attributes.find(|nla| nla.kind() == NETCONFA_IFINDEX)?.value()).ok()
}

#[cfg(test)]
mod tests;

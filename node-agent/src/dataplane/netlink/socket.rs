//! A netlink socket that sends batches and waits for their answers, with a limit on the wait.
//!
//! It lives in the network namespace of the thread that opened it, for good.

use std::os::fd::AsFd;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::super::DataplaneError;
use super::wire::{self, Body, Message};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
pub(crate) const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The kernel fills at most 32 kB into one datagram of a dump.
const RECEIVE_BUFFER: usize = 32 * 1024;
/// A dump during which something changed is torn; under steady change the last attempt counts.
const DUMP_ATTEMPTS: u32 = 8;

/// Messages that go to the kernel in one send, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    count: u32,
    /// Where the message starts whose answer ends the exchange, and its position.
    awaited: usize,
    awaited_index: u32,
    transaction: bool,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(512), ..Self::default() }
    }

    /// A transaction of the netfilter family: all of it happens or nothing. A refusal of its first message (the frame)
    /// is a refusal of the whole.
    pub(crate) fn transaction() -> Self {
        Self { bytes: Vec::with_capacity(8192), transaction: true, ..Self::default() }
    }

    /// Adds a message. Its position (from 0) is what errors refer to.
    pub(crate) fn push(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Body<'_>)) {
        self.awaited = self.bytes.len();
        self.awaited_index = self.count;
        self.push_unawaited(kind, flags, fill);
    }

    /// Adds the closing frame of a transaction, which the kernel does not acknowledge.
    pub(crate) fn push_unawaited(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Body<'_>)) {
        wire::message(&mut self.bytes, kind, NLM_F_REQUEST | flags, self.count, fill);
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Numbers the messages from `first` on and asks for an acknowledgement of the last one only: messages that fail are
    /// answered in any case.
    fn seal(&mut self, first: u32, flags_of_awaited: u16) {
        let mut at = 0;
        while let Some(length) = wire::read_u32(&self.bytes, at).and_then(|length| usize::try_from(length).ok()) {
            if let (Some(sequence), Some(place)) =
                (wire::read_u32(&self.bytes, at + 8), self.bytes.get_mut(at + 8..at + 12))
            {
                place.copy_from_slice(&sequence.wrapping_add(first).to_ne_bytes());
            }
            at += length.next_multiple_of(4).max(wire::HEADER);
        }
        let flags = wire::read_u16(&self.bytes, self.awaited + 6).unwrap_or_default() | flags_of_awaited;
        if let Some(place) = self.bytes.get_mut(self.awaited + 6..self.awaited + 8) {
            place.copy_from_slice(&flags.to_ne_bytes());
        }
    }
}

/// A message of a batch that the kernel refused.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// Position in the batch.
    pub(crate) index: u32,
    /// Positive errno.
    pub(crate) code: i32,
    /// The kernel's own words, where it has some.
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn into_error(self, step: &'static str) -> DataplaneError {
        DataplaneError::Kernel { step, code: self.code, text: self.text }
    }
}

/// An open netlink socket.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// The routing family: links, addresses, routes, rules, neighbours.
    pub(crate) fn route(timeout: Duration) -> Result<Self, DataplaneError> {
        let netlink = Self::open(libc::NETLINK_ROUTE, timeout)?;
        // Lets the kernel filter dumps by table and interface. Kernels before 4.20 lack it and send more; readers filter too.
        let _ = netlink.socket.set_netlink_get_strict_chk(true);
        Ok(netlink)
    }

    /// The netfilter family, with a send buffer for `capacity` bytes in one message.
    pub(crate) fn netfilter(timeout: Duration, capacity: usize) -> Result<Self, DataplaneError> {
        let netlink = Self::open(libc::NETLINK_NETFILTER, timeout)?;
        // A whole ruleset is one datagram; the default buffer of 208 kB is enough but for the largest instances.
        setsockopt(&netlink.socket.as_fd(), sockopt::SndBufForce, &capacity)
            .or_else(|_| setsockopt(&netlink.socket.as_fd(), sockopt::SndBuf, &capacity))
            .map_err(|errno| DataplaneError::io("size a netlink socket", errno.into()))?;
        Ok(netlink)
    }

    fn open(family: i32, timeout: Duration) -> Result<Self, DataplaneError> {
        let step = "open a netlink socket";
        let mut socket = Socket::new(isize::try_from(family).unwrap_or_default())
            .map_err(|error| DataplaneError::io(step, error))?;
        let port = socket.bind_auto().map_err(|error| DataplaneError::io(step, error))?.port_number();
        socket.connect(&SocketAddr::new(0, 0)).map_err(|error| DataplaneError::io(step, error))?;
        let limit =
            TimeVal::new(i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX), i64::from(timeout.subsec_micros()));
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &limit)
            .map_err(|errno| DataplaneError::io(step, errno.into()))?;
        // Errors without a copy of the message, with the kernel's words.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Self { socket, port, sequence: 1, buffer: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    /// The number by which notifications name this socket as their cause.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends `batch` and waits until the kernel has dealt with all of it. Answers to questions in the batch go to `on`
    /// with their position. The messages that were refused come back; the others have taken effect.
    pub(crate) fn exchange(
        &mut self,
        step: &'static str,
        mut batch: Batch,
        mut on: impl FnMut(u32, Message<'_>),
    ) -> Result<Vec<Refusal>, DataplaneError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.send(step, &mut batch, NLM_F_ACK)?;
        let mut refusals = Vec::new();
        loop {
            self.receive(step)?;
            for message in wire::messages(&self.buffer) {
                let index = message.sequence.wrapping_sub(first);
                if index >= batch.count {
                    continue; // the late answer to an exchange that timed out
                }
                if message.kind != NLMSG_ERROR {
                    on(index, message);
                    continue;
                }
                let refusal = refusal(index, message);
                let whole = batch.transaction && index == 0 && refusal.is_some();
                refusals.extend(refusal);
                if whole || index == batch.awaited_index {
                    return Ok(refusals);
                }
            }
        }
    }

    /// [`Self::exchange`] where any refusal is an error.
    pub(crate) fn execute(&mut self, step: &'static str, batch: Batch) -> Result<(), DataplaneError> {
        match self.exchange(step, batch, |_, _| {})?.into_iter().next() {
            None => Ok(()),
            Some(refusal) => Err(refusal.into_error(step)),
        }
    }

    /// [`Self::execute`] where the codes in `fine` mean that the thing is done already.
    pub(crate) fn execute_unless(
        &mut self,
        step: &'static str,
        batch: Batch,
        fine: &[i32],
    ) -> Result<(), DataplaneError> {
        let refusals = self.exchange(step, batch, |_, _| {})?;
        match refusals.into_iter().find(|refusal| !fine.contains(&refusal.code)) {
            None => Ok(()),
            Some(refusal) => Err(refusal.into_error(step)),
        }
    }

    /// Asks for all objects of a kind. `read` turns an answer into a value, or skips it.
    pub(crate) fn dump<T>(
        &mut self,
        step: &'static str,
        kind: u16,
        fill: impl Fn(&mut Body<'_>),
        mut read: impl FnMut(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, DataplaneError> {
        let mut attempt = 1;
        loop {
            let mut batch = Batch::new();
            batch.push(kind, 0, |body| fill(body));
            let first = self.send(step, &mut batch, NLM_F_DUMP)?;
            let mut values = Vec::new();
            let mut torn = false;
            'answers: loop {
                self.receive(step)?;
                for message in wire::messages(&self.buffer).filter(|message| message.sequence == first) {
                    torn |= message.flags & NLM_F_DUMP_INTR != 0;
                    match message.kind {
                        NLMSG_DONE => break 'answers,
                        NLMSG_ERROR => match refusal(0, message) {
                            Some(refusal) => return Err(refusal.into_error(step)),
                            None => break 'answers,
                        },
                        _ => values.extend(read(message)),
                    }
                }
            }
            if !torn || attempt == DUMP_ATTEMPTS {
                return Ok(values);
            }
            attempt += 1;
        }
    }

    fn send(&mut self, step: &'static str, batch: &mut Batch, flags_of_awaited: u16) -> Result<u32, DataplaneError> {
        let first = self.sequence;
        self.sequence = first.wrapping_add(batch.count);
        batch.seal(first, flags_of_awaited);
        self.socket.send(&batch.bytes, 0).map_err(|error| DataplaneError::io(step, error))?;
        Ok(first)
    }

    fn receive(&mut self, step: &'static str) -> Result<(), DataplaneError> {
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DataplaneError::io(step, error)),
            }
        }
    }
}

/// None for an acknowledgement.
fn refusal(index: u32, message: Message<'_>) -> Option<Refusal> {
    let code = wire::read_u32(message.body, 0)?.cast_signed();
    if code == 0 {
        return None;
    }
    // Behind the code stands the header of the refused message, then (if flagged) attributes.
    let text = if message.flags & NLM_F_ACK_TLVS == 0 {
        String::new()
    } else {
        wire::attributes_after(message.body, 4 + wire::HEADER)
            .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
            .map(|(_, text)| wire::read_text(text))
            .unwrap_or_default()
    };
    Some(Refusal { index, code: -code, text })
}

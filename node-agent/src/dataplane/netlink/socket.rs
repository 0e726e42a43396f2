//! A netlink socket that sends batches and waits for their answers, with a limit on the wait. Knows headers only: what is
//! in a message is for those who write and read it.
//!
//! It lives in the network namespace of the thread that opened it, for good.

use std::os::fd::AsFd;
use std::time::Duration;

use netlink_packet_core::{
    DoneBuffer, ErrorBuffer, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, NlasIterator, parse_string,
};
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::super::DataplaneError;

const NLMSGERR_ATTR_MSG: u16 = 1;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The kernel fills at most 32 kB into one datagram of a dump.
const RECEIVE_BUFFER: usize = 32 * 1024;
/// A dump during which something changed is torn; under steady change the last attempt counts.
const DUMP_ATTEMPTS: u32 = 8;

/// A received message: its header, and the bytes behind it.
pub(crate) type Frame<'a> = NetlinkBuffer<&'a [u8]>;

/// The messages of one datagram. Ends early on a length that does not fit.
pub(crate) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let frame = NetlinkBuffer::new_checked(datagram).ok()?;
        datagram = datagram.get(aligned(frame.length())..).unwrap_or_default();
        Some(frame)
    })
}

/// Messages start at multiples of four bytes.
fn aligned(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX - 3).next_multiple_of(4)
}

/// Whether the kernel itself sent a datagram. With the right capability every process can send to any netlink socket.
pub(crate) fn is_kernel(sender: &SocketAddr) -> bool {
    sender.port_number() == 0
}

/// Messages that go to the kernel in one send, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    count: u32,
    /// Position of the message whose answer ends the exchange.
    awaited: u32,
    transaction: bool,
    /// A message was left out because it is too long for netlink: the batch must not be sent.
    too_long: bool,
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
    pub(crate) fn push(&mut self, message: impl NetlinkSerializable, flags: u16) {
        self.awaited = self.count;
        self.push_unawaited(message, flags);
    }

    /// Adds the closing frame of a transaction, which the kernel does not acknowledge.
    pub(crate) fn push_unawaited(&mut self, message: impl NetlinkSerializable, flags: u16) {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        // Attributes have 16 bits for their length; the crate panics when it writes one that does not fit.
        if message.header.length > u32::from(u16::MAX) {
            self.too_long = true;
            return;
        }
        let start = self.bytes.len();
        self.bytes.resize(start + aligned(message.header.length), 0);
        if let Some(place) = self.bytes.get_mut(start..) {
            message.serialize(place);
        }
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0 && !self.too_long
    }

    /// Numbers the messages from `first` on and asks for an acknowledgement of the last one only: messages that fail are
    /// answered in any case.
    fn seal(&mut self, first: u32, flags_of_awaited: u16) {
        let mut rest = self.bytes.as_mut_slice();
        for index in 0..self.count {
            let Ok(mut message) = NetlinkBuffer::new_checked(&mut *rest) else { return };
            message.set_sequence_number(first.wrapping_add(index));
            if index == self.awaited {
                message.set_flags(message.flags() | flags_of_awaited);
            }
            let length = aligned(message.length());
            rest = std::mem::take(&mut rest).get_mut(length..).unwrap_or_default();
        }
    }
}

/// A message of a batch that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let netlink = Self::bound(family, timeout)?;
        // From here on the kernel refuses what other processes send to this socket.
        netlink
            .socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(|error| DataplaneError::io("open a netlink socket", error))?;
        Ok(netlink)
    }

    fn bound(family: i32, timeout: Duration) -> Result<Self, DataplaneError> {
        let step = "open a netlink socket";
        let mut socket = Socket::new(isize::try_from(family).unwrap_or_default())
            .map_err(|error| DataplaneError::io(step, error))?;
        let port = socket.bind_auto().map_err(|error| DataplaneError::io(step, error))?.port_number();
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
        mut on: impl FnMut(u32, &Frame<'_>),
    ) -> Result<Vec<Refusal>, DataplaneError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.send(step, &mut batch, NLM_F_ACK)?;
        let mut refusals = Vec::new();
        loop {
            self.receive(step)?;
            for frame in frames(&self.buffer) {
                let index = frame.sequence_number().wrapping_sub(first);
                if index >= batch.count {
                    continue; // the late answer to an exchange that timed out
                }
                match frame.message_type() {
                    NLMSG_ERROR => {
                        let Some(code) = error_code(&frame) else { continue };
                        if code != 0 {
                            refusals.push(refusal(index, code, &frame));
                        }
                        if index == batch.awaited || (batch.transaction && index == 0 && code != 0) {
                            return Ok(refusals);
                        }
                    }
                    0..=NLMSG_OVERRUN => {}
                    _ => on(index, &frame),
                }
            }
        }
    }

    /// [`Self::exchange`] where any refusal is an error.
    pub(crate) fn execute(&mut self, step: &'static str, batch: Batch) -> Result<(), DataplaneError> {
        self.execute_unless(step, batch, &[])
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
        request: impl NetlinkSerializable,
        mut read: impl FnMut(&Frame<'_>) -> Option<T>,
    ) -> Result<Vec<T>, DataplaneError> {
        let mut batch = Batch::new();
        batch.push(request, 0);
        let mut attempt = 1;
        loop {
            let first = self.send(step, &mut batch, NLM_F_DUMP)?;
            let mut values = Vec::new();
            let mut torn = false;
            'answers: loop {
                self.receive(step)?;
                for frame in frames(&self.buffer).filter(|frame| frame.sequence_number() == first) {
                    torn |= frame.flags() & NLM_F_DUMP_INTR != 0;
                    match frame.message_type() {
                        // A dump that fails half way says so in its end.
                        NLMSG_ERROR | NLMSG_DONE => match error_code(&frame) {
                            None => {}
                            Some(0) => break 'answers,
                            Some(code) => return Err(refusal(0, code, &frame).into_error(step)),
                        },
                        0..=NLMSG_OVERRUN => {}
                        _ => values.extend(read(&frame)),
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
        if batch.too_long {
            return Err(DataplaneError::io(step, std::io::Error::from_raw_os_error(libc::EMSGSIZE)));
        }
        let first = self.sequence;
        self.sequence = first.wrapping_add(batch.count);
        batch.seal(first, flags_of_awaited);
        self.socket.send(&batch.bytes, 0).map_err(|error| DataplaneError::io(step, error))?;
        Ok(first)
    }

    fn receive(&mut self, step: &'static str) -> Result<(), DataplaneError> {
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, 0) {
                Ok((_, sender)) if is_kernel(&sender) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DataplaneError::io(step, error)),
            }
        }
    }
}

/// Of an error or the end of a dump: 0 (done), or the positive errno. None if it is cut off.
fn error_code(frame: &Frame<'_>) -> Option<i32> {
    let payload = frame.payload();
    let code = match frame.message_type() {
        NLMSG_DONE if payload.is_empty() => 0,
        NLMSG_DONE => DoneBuffer::new_checked(payload).ok()?.code().min(0),
        _ => ErrorBuffer::new_checked(payload).ok()?.code().map_or(0, i32::from),
    };
    Some(code.saturating_abs())
}

fn refusal(index: u32, code: i32, frame: &Frame<'_>) -> Refusal {
    Refusal { index, code, text: words(frame).unwrap_or_default() }
}

/// What the kernel says in words about an error.
fn words(frame: &Frame<'_>) -> Option<String> {
    if frame.flags() & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let mut attributes = frame.payload().get(4..)?;
    if frame.message_type() == NLMSG_ERROR {
        // Behind the code stands the refused message, or its header only.
        let capped = frame.flags() & NLM_F_CAPPED != 0;
        let refused = if capped { HEADER } else { aligned(u32::from_ne_bytes(*attributes.first_chunk()?)) };
        attributes = attributes.get(refused..)?;
    }
    let text = NlasIterator::new(attributes).map_while(Result::ok).find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)?;
    parse_string(text.value()).ok()
}

#[cfg(test)]
pub(super) mod tests;

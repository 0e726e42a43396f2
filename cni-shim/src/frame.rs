//! What plugin and agent say to each other over the socket: one request, one answer, each a frame.
//!
//! A frame is a length (u32, big-endian) and that many bytes of JSON. Unknown fields are ignored and every field but the
//! verb and the configuration has a default, so that a plugin and an agent one protocol version apart understand each
//! other: during a roll-out the new plugin talks to the old agent, or the other way round.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::MAX_CONFIG;
use crate::invocation::{Invocation, Verb};

/// The protocol that this build speaks. Raise it when a field changes its meaning, not when one is added.
pub const PROTOCOL: u16 = 1;

/// Longest frame, in bytes: a configuration in which every byte needs an escape, and the rest of a request.
pub const MAX_FRAME: usize = 2 * MAX_CONFIG + (64 << 10);

/// Bytes of the length in front of each frame.
pub const HEADER: usize = 4;

/// One call of the plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    #[serde(default)]
    pub protocol: u16,
    pub verb: Verb,
    #[serde(default)]
    pub container_id: String,
    #[serde(default)]
    pub netns: String,
    #[serde(default)]
    pub ifname: String,
    /// `CNI_ARGS`, unread.
    #[serde(default)]
    pub args: String,
    /// Milliseconds after which the plugin stops waiting. 0: it does not say.
    #[serde(default)]
    pub timeout_ms: u64,
    /// The network configuration as the runtime wrote it.
    pub config: String,
}

impl Request {
    pub fn new(call: &Invocation, config: String, timeout_ms: u64) -> Self {
        Self {
            protocol: PROTOCOL,
            verb: call.verb,
            container_id: call.container_id.clone(),
            netns: call.netns.clone(),
            ifname: call.ifname.clone(),
            args: call.args.clone(),
            timeout_ms,
            config,
        }
    }

    /// Whether this build understands the request: the same protocol, or one version apart.
    pub fn is_understood(&self) -> bool {
        self.protocol.abs_diff(PROTOCOL) <= 1
    }
}

/// The agent's answer: what the plugin prints and how it exits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    #[serde(default)]
    pub protocol: u16,
    /// 0 for success.
    #[serde(default)]
    pub exit: u8,
    /// For standard output, verbatim.
    #[serde(default)]
    pub stdout: String,
}

impl Response {
    pub fn success(stdout: String) -> Self {
        Self { protocol: PROTOCOL, exit: 0, stdout }
    }

    pub fn failure(error: &crate::CniError) -> Self {
        Self { protocol: PROTOCOL, exit: 1, stdout: error.to_json() }
    }
}

/// The whole frame of `message`, length included.
///
/// # Errors
/// `InvalidData` when it would be longer than [`MAX_FRAME`].
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - HEADER;
    let header = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or_else(|| too_long(length))?;
    for (byte, value) in frame.iter_mut().zip(header.to_be_bytes()) {
        *byte = value;
    }
    Ok(frame)
}

/// How many bytes follow `header`.
///
/// # Errors
/// `InvalidData` when more than [`MAX_FRAME`]: whoever sent it does not speak this protocol.
pub fn body_length(header: [u8; HEADER]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if length <= MAX_FRAME { Ok(length) } else { Err(too_long(length)) }
}

fn too_long(length: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes is longer than {MAX_FRAME}"))
}

/// Sends `message` in one write.
///
/// # Errors
/// Those of [`encode`] and of the stream.
pub fn write<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Reads one message.
///
/// # Errors
/// Those of the stream, `UnexpectedEof` when it ends early, `InvalidData` for a frame that is too long or no such message.
pub fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; body_length(header)?];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            protocol: PROTOCOL,
            verb: Verb::Add,
            container_id: "c1".into(),
            netns: "/run/netns/a".into(),
            ifname: "eth0".into(),
            args: "K8S_POD_NAME=web".into(),
            timeout_ms: 60_000,
            config: r#"{"name":"n"}"#.into(),
        }
    }

    #[test]
    fn a_request_survives_the_wire() {
        let frame = encode(&request()).unwrap();
        assert_eq!(read::<Request>(&mut frame.as_slice()).unwrap(), request());
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_anything_is_allocated() {
        let error = read::<Request>(&mut [0xff, 0xff, 0xff, 0xff, b'{'].as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut long = request();
        long.config = "x".repeat(MAX_FRAME);
        assert_eq!(encode(&long).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_torn_frame_is_an_error_and_not_half_a_message() {
        let frame = encode(&request()).unwrap();
        for cut in [0, 3, 4, frame.len() - 1] {
            assert!(read::<Request>(&mut frame.get(..cut).unwrap()).is_err(), "{cut}");
        }
    }

    #[test]
    fn the_next_version_s_request_is_understood_with_fields_that_we_do_not_know() {
        let next = r#"{"protocol":2,"verb":"DEL","containerId":"c","config":"{}","colour":{"deep":[1]}}"#;
        let request: Request = serde_json::from_str(next).unwrap();
        assert!(request.is_understood());
        assert_eq!((request.verb, request.timeout_ms), (Verb::Del, 0));
        assert!(!Request { protocol: 3, ..request }.is_understood(), "two apart is too far");
    }

    #[test]
    fn the_previous_version_s_answer_is_understood() {
        let response: Response = serde_json::from_str(r#"{"protocol":0,"stdout":"{}"}"#).unwrap();
        assert_eq!((response.exit, response.stdout.as_str()), (0, "{}"));
    }
}

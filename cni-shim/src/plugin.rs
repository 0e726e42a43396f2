//! One call of the plugin, from environment and standard input to what it prints.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use enipool_cni::config::MAX_CONFIG;
use enipool_cni::{CniError, Code, DelQueue, Invocation, PluginConf, Request, Response, SpecVersion, Verb, frame};

/// Carries one call out. Whatever goes wrong comes back as a CNI error.
pub(crate) fn run(variable: impl Fn(&str) -> Result<Option<String>, ()>, stdin: &mut impl Read) -> Response {
    try_run(variable, stdin).unwrap_or_else(|error| Response::failure(&error))
}

fn try_run(variable: impl Fn(&str) -> Result<Option<String>, ()>, stdin: &mut impl Read) -> Result<Response, CniError> {
    let call = Invocation::read(variable)?;
    let text = read_config(stdin)?;
    if call.verb == Verb::Version {
        return Ok(Response::success(version(&text)));
    }
    let (conf, version) = PluginConf::parse(text.as_bytes(), call.verb)?;
    let timeout = conf.timeout(call.verb);
    let request = Request::new(&call, text, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    match ask(&conf.socket, &request, timeout) {
        Ok(response) => Ok(response),
        Err(failure) if call.verb == Verb::Del => {
            queue(&conf, &request).map_err(|error| error.in_version(version))?;
            // The agent may have come up, and looked at its queue, between our attempt and the entry. If so it answers now;
            // if not, the entry is there for it. A hung agent is not asked twice.
            Ok(match failure {
                Failure::Absent(_) => ask(&conf.socket, &request, timeout).unwrap_or_else(|_| nothing_to_say()),
                Failure::NoAnswer(_) => nothing_to_say(),
            })
        }
        Err(failure) => Err(explain(call.verb, &conf.socket, &failure).in_version(version)),
    }
}

fn nothing_to_say() -> Response {
    Response::success(String::new())
}

fn read_config(stdin: &mut impl Read) -> Result<String, CniError> {
    let mut text = Vec::new();
    let limit = u64::try_from(MAX_CONFIG).unwrap_or(u64::MAX).saturating_add(1);
    stdin
        .take(limit)
        .read_to_end(&mut text)
        .map_err(|error| CniError::new(Code::Io, "standard input cannot be read").details(error.to_string()))?;
    if text.len() > MAX_CONFIG {
        return Err(CniError::new(
            Code::Decode,
            format!("the network configuration is longer than {MAX_CONFIG} bytes"),
        ));
    }
    String::from_utf8(text).map_err(|_| CniError::new(Code::Decode, "the network configuration is not valid UTF-8"))
}

/// The answer to VERSION: needs no agent. The version of the answer is that of the question where it names one.
fn version(text: &str) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Asked {
        cni_version: String,
    }
    let asked = serde_json::from_str::<Asked>(text).ok().and_then(|asked| asked.cni_version.parse().ok());
    let supported = SpecVersion::SUPPORTED.map(|version| format!("\"{version}\"")).join(",");
    format!(r#"{{"cniVersion":"{}","supportedVersions":[{supported}]}}"#, asked.unwrap_or(SpecVersion::NEWEST))
}

/// Why the agent gave no answer.
enum Failure {
    /// Nobody listens: the agent has not seen the request.
    Absent(io::Error),
    /// The connection stood, but no whole answer came: the agent may have carried the request out.
    NoAnswer(io::Error),
}

fn ask(socket: &Path, request: &Request, timeout: Duration) -> Result<Response, Failure> {
    let mut stream = UnixStream::connect(socket).map_err(Failure::Absent)?;
    stream.set_read_timeout(Some(timeout)).map_err(Failure::NoAnswer)?;
    stream.set_write_timeout(Some(timeout)).map_err(Failure::NoAnswer)?;
    frame::write(&mut stream, request).map_err(Failure::NoAnswer)?;
    frame::read(&mut stream).map_err(Failure::NoAnswer)
}

fn queue(conf: &PluginConf, request: &Request) -> Result<(), CniError> {
    DelQueue::new(&conf.del_queue).push(conf.network(), request).map_err(|error| {
        CniError::new(Code::TryAgainLater, "enipool's agent is away and the deletion cannot be queued").details(
            format!("{}: {error}; nothing is lost, the runtime repeats the deletion", conf.del_queue.display()),
        )
    })
}

fn explain(verb: Verb, socket: &Path, failure: &Failure) -> CniError {
    let socket = socket.display();
    match failure {
        Failure::Absent(error) => {
            let code = if verb == Verb::Status { Code::NotAvailable } else { Code::TryAgainLater };
            CniError::new(code, "enipool's agent is not running on this node").details(format!(
                "cannot connect to {socket}: {error}. This is normal for some seconds while the agent starts or is \
                 updated. If it lasts, look at the enipool-agent pod of this node and at /var/log/aws-routed-eni/"
            ))
        }
        Failure::NoAnswer(error) => {
            let code = if verb == Verb::Status { Code::NotAvailable } else { Code::TryAgainLater };
            let what = if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                "enipool's agent did not answer in time"
            } else {
                "enipool's agent went away before it answered"
            };
            CniError::new(code, what).details(format!(
                "{socket}: {error}. The runtime may repeat the call. If it happens again, look at the enipool-agent pod of \
                 this node and at /var/log/aws-routed-eni/"
            ))
        }
    }
}

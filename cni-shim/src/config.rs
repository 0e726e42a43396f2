//! The network configuration that the runtime writes to standard input.
//!
//! Two readers: the plugin needs a handful of fields and leaves the rest unread ([`PluginConf`]); the agent reads what its
//! verbs need ([`NetConf`]).

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{CniError, Code};
use crate::invocation::{Verb, is_name};
use crate::result::{CniResult, Dns};
use crate::version::SpecVersion;

/// Longest configuration that the plugin accepts, in bytes. A GC with 1,000 attachments takes about 100 kB.
pub const MAX_CONFIG: usize = 1 << 20;

/// Where the agent listens unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/enipool/cni.sock";
/// Where deletions wait for the agent unless the configuration says otherwise.
pub const DEFAULT_DEL_QUEUE: &str = "/run/enipool/del-queue";
/// How long ADD waits for an address, in seconds, unless the configuration says otherwise. Below the two minutes after
/// which the kubelet gives a sandbox up.
pub const DEFAULT_ADD_TIMEOUT_SECONDS: u64 = 60;

/// What the plugin process itself reads.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a network configuration object")]
pub struct PluginConf {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    name: String,
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    #[serde(default = "default_del_queue")]
    pub del_queue: PathBuf,
    #[serde(default = "default_add_timeout")]
    add_timeout_seconds: u64,
}

fn default_socket() -> PathBuf {
    DEFAULT_SOCKET.into()
}
fn default_del_queue() -> PathBuf {
    DEFAULT_DEL_QUEUE.into()
}
fn default_add_timeout() -> u64 {
    DEFAULT_ADD_TIMEOUT_SECONDS
}

impl PluginConf {
    /// # Errors
    /// Code 6 for text that is no such JSON, 1 for a version that we do not speak or that lacks `verb`, 7 for a bad network
    /// name or timeout.
    pub fn parse(text: &[u8], verb: Verb) -> Result<(Self, SpecVersion), CniError> {
        let conf: Self = decode(text)?;
        let version = check(verb, &conf.cni_version, &conf.name)?;
        if !(1..=600).contains(&conf.add_timeout_seconds) {
            return Err(CniError::new(Code::InvalidConfig, "addTimeoutSeconds must be between 1 and 600")
                .details(format!("the network configuration says {}", conf.add_timeout_seconds))
                .in_version(version));
        }
        Ok((conf, version))
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        &self.name
    }

    /// How long the plugin waits for the agent's answer.
    pub fn timeout(&self, verb: Verb) -> Duration {
        Duration::from_secs(match verb {
            Verb::Add => self.add_timeout_seconds,
            // A DEL that gets no answer is queued, so waiting longer gains nothing.
            Verb::Del | Verb::Check => 10,
            Verb::Gc => 30,
            Verb::Status | Verb::Version => 5,
        })
    }
}

/// What the agent reads.
#[derive(Debug, Clone, PartialEq)]
pub struct NetConf {
    pub version: SpecVersion,
    /// The network's name: attachments of other networks are none of this call's business.
    pub name: String,
    pub dns: Dns,
    /// MTU of the pod's link. Absent: the agent's own setting, which follows the node's class.
    pub mtu: Option<u32>,
    /// As the runtime cached it. Of any shape: DEL must not fail over a cache that it cannot read.
    pub prev_result: Option<serde_json::Value>,
    /// GC only. Absent (the runtime says nothing about what is valid) is not the same as empty (nothing is); `null` is how
    /// Go writes an empty list.
    pub valid_attachments: Option<Vec<Attachment>>,
}

/// One attachment that the runtime knows of (GC).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a network configuration object")]
struct RawNetConf {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    dns: Option<Dns>,
    #[serde(default)]
    mtu: Option<u32>,
    #[serde(default)]
    prev_result: Option<serde_json::Value>,
    #[serde(default, rename = "cni.dev/valid-attachments", deserialize_with = "present")]
    valid_attachments: Option<Vec<Attachment>>,
}

fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Vec<Attachment>>, D::Error> {
    Option::<Vec<Attachment>>::deserialize(value).map(|list| Some(list.unwrap_or_default()))
}

impl NetConf {
    /// # Errors
    /// As [`PluginConf::parse`]; and code 7 for an MTU that no VPC interface has.
    pub fn parse(text: &str, verb: Verb) -> Result<Self, CniError> {
        let raw: RawNetConf = decode(text.as_bytes())?;
        let version = check(verb, &raw.cni_version, &raw.name)?;
        // 576 is the least that IPv4 asks of every host, 9001 the jumbo frame of EC2.
        if let Some(mtu) = raw.mtu.filter(|mtu| !(576..=9001).contains(mtu)) {
            return Err(CniError::new(Code::InvalidConfig, format!("mtu must be between 576 and 9001, not {mtu}"))
                .in_version(version));
        }
        Ok(Self {
            version,
            name: raw.name,
            dns: raw.dns.unwrap_or_default(),
            mtu: raw.mtu,
            prev_result: raw.prev_result.filter(|value| !value.is_null()),
            valid_attachments: raw.valid_attachments,
        })
    }

    /// `prevResult` as a result.
    ///
    /// # Errors
    /// Code 6 when it is not of a result's shape.
    pub fn prev_result(&self) -> Result<Option<CniResult>, CniError> {
        self.prev_result
            .as_ref()
            .map(|value| {
                CniResult::deserialize(value).map_err(|error| {
                    CniError::new(Code::Decode, "prevResult is not a CNI result")
                        .details(error.to_string())
                        .in_version(self.version)
                })
            })
            .transpose()
    }
}

fn decode<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, CniError> {
    serde_json::from_slice(text).map_err(|error| {
        let what = if text.is_empty() {
            "standard input holds no network configuration"
        } else {
            "the network configuration cannot be read"
        };
        CniError::new(Code::Decode, what).details(error.to_string())
    })
}

fn check(verb: Verb, version: &str, name: &str) -> Result<SpecVersion, CniError> {
    let version: SpecVersion = version.parse().map_err(|unsupported| {
        CniError::new(Code::IncompatibleVersion, format!("{unsupported}"))
            .details("set cniVersion of the network configuration to one of these")
    })?;
    let since = match verb {
        Verb::Check => SpecVersion::V0_4_0,
        Verb::Gc | Verb::Status => SpecVersion::V1_1_0,
        Verb::Add | Verb::Del | Verb::Version => SpecVersion::V0_3_1,
    };
    if version < since {
        return Err(CniError::new(
            Code::IncompatibleVersion,
            format!("{} needs cniVersion {since} or later, the configuration has {version}", verb.as_str()),
        )
        .in_version(version));
    }
    if !is_name(name) {
        let what = if name.is_empty() {
            "has no name".to_owned()
        } else {
            format!("name {name:?} is not a valid network name")
        };
        return Err(CniError::new(Code::InvalidConfig, format!("the network configuration {what}"))
            .details("name must start with a letter or digit and hold only those and '_', '.', '-'")
            .in_version(version));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str, verb: Verb) -> u32 {
        let plugin = PluginConf::parse(text.as_bytes(), verb).unwrap_err();
        let agent = NetConf::parse(text, verb).unwrap_err();
        assert_eq!(plugin, agent, "plugin and agent judge alike");
        plugin.code
    }

    #[test]
    fn text_that_is_no_configuration_is_a_decoding_error() {
        for text in ["", "{", "null", "7", r#"{"cniVersion":1}"#] {
            assert_eq!(code(text, Verb::Add), 6, "{text}");
        }
    }

    #[test]
    fn a_version_that_we_do_not_speak_is_incompatible() {
        for version in ["", "0.1.0", "0.2.0", "2.0.0", "1.1"] {
            assert_eq!(code(&format!(r#"{{"cniVersion":"{version}","name":"n"}}"#), Verb::Add), 1, "{version}");
        }
    }

    #[test]
    fn verbs_are_refused_in_versions_that_lack_them() {
        for (verb, version, fine) in [
            (Verb::Check, "0.3.1", false),
            (Verb::Check, "0.4.0", true),
            (Verb::Gc, "1.0.0", false),
            (Verb::Gc, "1.1.0", true),
            (Verb::Status, "1.0.0", false),
            (Verb::Status, "1.1.0", true),
            (Verb::Add, "0.3.1", true),
        ] {
            let text = format!(r#"{{"cniVersion":"{version}","name":"n"}}"#);
            assert_eq!(NetConf::parse(&text, verb).is_ok(), fine, "{verb:?} {version}");
            if !fine {
                assert_eq!(code(&text, verb), 1);
            }
        }
    }

    #[test]
    fn a_network_needs_a_proper_name() {
        for name in ["", "a b", "/etc", "-x"] {
            assert_eq!(code(&format!(r#"{{"cniVersion":"1.0.0","name":"{name}"}}"#), Verb::Add), 7, "{name}");
        }
    }

    #[test]
    fn defaults_stand_in_for_what_the_configuration_leaves_out() {
        let (conf, _) = PluginConf::parse(br#"{"cniVersion":"1.0.0","name":"n"}"#, Verb::Add).unwrap();
        assert_eq!(conf.socket, PathBuf::from(DEFAULT_SOCKET));
        assert_eq!(conf.timeout(Verb::Add), Duration::from_mins(1));
    }

    #[test]
    fn a_timeout_out_of_range_is_refused() {
        let error =
            PluginConf::parse(br#"{"cniVersion":"1.0.0","name":"n","addTimeoutSeconds":0}"#, Verb::Add).unwrap_err();
        assert_eq!(error.code, 7);
    }

    #[test]
    fn an_mtu_that_no_interface_has_is_refused() {
        for mtu in [100, 9002] {
            let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","mtu":{mtu}}}"#);
            assert_eq!(NetConf::parse(&text, Verb::Add).unwrap_err().code, 7);
        }
    }

    #[test]
    fn no_list_of_attachments_is_not_an_empty_one() {
        let none = NetConf::parse(r#"{"cniVersion":"1.1.0","name":"n"}"#, Verb::Gc).unwrap();
        assert_eq!(none.valid_attachments, None);
        let null = r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":null}"#;
        assert_eq!(NetConf::parse(null, Verb::Gc).unwrap().valid_attachments, Some(Vec::new()));
        let text =
            r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]}"#;
        let one = NetConf::parse(text, Verb::Gc).unwrap().valid_attachments.unwrap();
        assert_eq!(one, [Attachment { container_id: "c".into(), ifname: "eth0".into() }]);
    }

    #[test]
    fn an_unreadable_previous_result_is_kept_for_those_who_can_do_without() {
        let conf = NetConf::parse(r#"{"cniVersion":"1.0.0","name":"n","prevResult":{"ips":7}}"#, Verb::Del).unwrap();
        assert_eq!(conf.prev_result().unwrap_err().code, 6);
        let conf = NetConf::parse(r#"{"cniVersion":"1.0.0","name":"n","prevResult":null}"#, Verb::Del).unwrap();
        assert_eq!(conf.prev_result(), Ok(None));
    }
}

//! The plugins that runtimes run after ours, `portmap` and `bandwidth`: which versions of the specification those on this
//! node speak.
//!
//! The runtime passes one version to all plugins of a list, so a list that offers 1.1.0 fails every ADD where `portmap` is
//! older. `install` asks them (the only step that sees the host's plugin folder), and what they said waits in the state
//! folder for whoever writes the list.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use enipool_cni::SpecVersion;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// For host ports.
pub const PORTMAP: &str = "portmap";
/// For the bandwidth annotations.
pub const BANDWIDTH: &str = "bandwidth";

/// In the state folder.
pub(crate) const FILE: &str = "chained-plugins.json";
/// Longest wait for a plugin's answer to VERSION, which takes milliseconds.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read. Twenty versions take 300.
const ANSWER_BYTES: u64 = 64 << 10;

/// What the plugins on this node said, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainedPlugins(BTreeMap<String, Said>);

/// What a plugin said to VERSION.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Said {
    /// Its versions, as it writes them.
    Speaks(Vec<String>),
    /// There is no such program.
    Missing,
    /// It could not be asked, or answered something else; why.
    Nothing(String),
}

/// What a list of plugins can offer to runtimes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Never empty, oldest first.
    pub versions: Vec<SpecVersion>,
    /// What keeps the node from more, each with what to do.
    pub complaints: Vec<String>,
}

/// Versions for runtimes that read `cniVersions`, when every plugin speaks them.
const WHOLE: [SpecVersion; 2] = [SpecVersion::V1_0_0, SpecVersion::V1_1_0];

impl ChainedPlugins {
    /// Asks the plugins in `folder`.
    pub fn ask(folder: &Path) -> Self {
        Self([PORTMAP, BANDWIDTH].into_iter().map(|name| (name.to_owned(), ask(&folder.join(name)))).collect())
    }

    /// Keeps it for the agent's next start.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        fs::create_dir_all(state_dir)?;
        let fresh = state_dir.join(format!("{FILE}.new"));
        fs::write(&fresh, serde_json::to_vec_pretty(self)?)?;
        fs::rename(fresh, state_dir.join(FILE))
    }

    /// What the last `install` found; `None` when there was none, or it left nothing that can be read.
    pub fn read(state_dir: &Path) -> Option<Self> {
        let path = state_dir.join(FILE);
        let text = fs::read(&path).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "what install wrote is not understood"))
            .ok()
    }
}

impl std::fmt::Display for ChainedPlugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, said) in &self.0 {
            match said {
                Said::Speaks(versions) => writeln!(f, "{name} speaks CNI {}", versions.join(", "))?,
                Said::Missing => writeln!(f, "{name} is not on this node")?,
                Said::Nothing(why) => writeln!(f, "{name} does not say what it speaks: {why}")?,
            }
        }
        Ok(())
    }
}

/// The versions that our plugin and all `chained` speak. Where nobody asked them (`said` is none: the agent was started by
/// hand), they are taken for current. One that was asked and did not say is taken for one of 2021, which speaks 1.0.0.
pub fn offer(said: Option<&ChainedPlugins>, chained: &[&str]) -> Offer {
    let mut complaints = Vec::new();
    let mut versions = SpecVersion::SUPPORTED.to_vec();
    for name in chained {
        let off = format!("set agent.chainedPlugins.{name}=false in the chart's values");
        match said.map(|said| said.0.get(*name).unwrap_or(&Said::Missing)) {
            None => {}
            Some(Said::Speaks(spoken)) => {
                let speaks = |version: &SpecVersion| spoken.iter().any(|text| text == version.as_str());
                let common: Vec<_> = versions.iter().copied().filter(speaks).collect();
                if common.is_empty() {
                    complaints.push(format!("the node's {name} speaks CNI {} only, and no pod will start: install the CNI plugins 1.0.0 or later, or {off}", spoken.join(", ")));
                    continue;
                }
                if !common.contains(&SpecVersion::NEWEST) {
                    complaints.push(format!("the node's {name} does not speak CNI {}: the runtime is offered {} at most, without GC and STATUS. Newer CNI plugins on the node mend that at the agent's next start", SpecVersion::NEWEST, common.last().copied().unwrap_or(SpecVersion::V1_0_0)));
                }
                versions = common;
            }
            Some(Said::Missing) => {
                complaints.push(format!("the node has no CNI plugin {name}, and no pod will start until it has: install the CNI plugins, or {off}"));
                versions.retain(|version| *version <= SpecVersion::V1_0_0);
            }
            Some(Said::Nothing(why)) => {
                complaints.push(format!("the node's {name} does not say which CNI versions it speaks ({why}): 1.0.0 is assumed. If pods fail to start with its name, install the CNI plugins 1.0.0 or later, or {off}"));
                versions.retain(|version| *version <= SpecVersion::V1_0_0);
            }
        }
    }
    // Old forms are for those who have nothing better.
    let current: Vec<_> = versions.iter().copied().filter(|version| WHOLE.contains(version)).collect();
    let versions = if current.is_empty() { versions.last().copied().into_iter().collect() } else { current };
    Offer { versions, complaints }
}

/// As the reference library asks: some old plugins want all variables also for VERSION.
fn ask(program: &Path) -> Said {
    let child = Command::new(program)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs([("CNI_COMMAND", "VERSION"), ("CNI_CONTAINERID", "dummy"), ("CNI_NETNS", "dummy")])
        .envs([("CNI_IFNAME", "dummy"), ("CNI_PATH", "dummy")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        // A program that is linked dynamically says the same when its loader is missing: then there is a file.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !program.exists() => return Said::Missing,
        Err(error) => return Said::Nothing(error.to_string()),
    };
    let pid = Pid::from_raw(child.id().cast_signed());
    let (answer, answered) = mpsc::channel();
    thread::spawn(move || {
        // One that ends without reading has its reasons; what it says decides.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(br#"{"cniVersion":"1.0.0"}"#));
        let mut text = String::new();
        let read = child.stdout.take().map(|stdout| stdout.take(ANSWER_BYTES).read_to_string(&mut text));
        let ended = child.wait();
        // Nobody listens any more when it took too long.
        let _ = answer.send(read.unwrap_or(Ok(0)).and(ended).map(|_| text));
    });
    match answered.recv_timeout(ANSWER_MAX) {
        Ok(Ok(text)) => understand(&text),
        Ok(Err(error)) => Said::Nothing(error.to_string()),
        Err(_) => {
            // Our child, which the thread above still waits for: the number is its own.
            let _ = kill(pid, Signal::SIGKILL);
            Said::Nothing("no answer in time".into())
        }
    }
}

fn understand(answer: &str) -> Said {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        supported_versions: Vec<String>,
    }
    match serde_json::from_str::<Answer>(answer) {
        Ok(Answer { supported_versions }) => Said::Speaks(supported_versions),
        Err(_) => Said::Nothing(format!("it answers {:?}", answer.chars().take(200).collect::<String>())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn said(portmap: Said) -> ChainedPlugins {
        ChainedPlugins([(PORTMAP.to_owned(), portmap)].into())
    }

    fn speaks(versions: &[&str]) -> ChainedPlugins {
        said(Said::Speaks(versions.iter().map(|version| (*version).to_owned()).collect()))
    }

    #[test]
    fn the_list_offers_what_all_of_its_plugins_speak() {
        use SpecVersion::{V0_4_0, V1_0_0, V1_1_0};
        let all = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        for (portmap, versions, complaint) in [
            (None, vec![V1_0_0, V1_1_0], ""),
            (Some(speaks(&all)), vec![V1_0_0, V1_1_0], ""),
            (Some(speaks(&all[..6])), vec![V1_0_0], "is offered 1.0.0 at most"),
            (Some(speaks(&all[..5])), vec![V0_4_0], "is offered 0.4.0 at most"),
            (Some(speaks(&all[..2])), vec![V1_0_0, V1_1_0], "install the CNI plugins 1.0.0 or later"),
            (Some(said(Said::Missing)), vec![V1_0_0], "agent.chainedPlugins.portmap=false"),
            (Some(ChainedPlugins::default()), vec![V1_0_0], "no CNI plugin portmap"),
            (Some(said(Said::Nothing("it answers \"\"".into()))), vec![V1_0_0], "it answers"),
        ] {
            let offer = offer(portmap.as_ref(), &[PORTMAP]);
            assert_eq!(offer.versions, versions, "{portmap:?}");
            assert_eq!(offer.complaints.is_empty(), complaint.is_empty(), "{offer:?}");
            assert!(offer.complaints.concat().contains(complaint), "{offer:?}");
        }
    }

    #[test]
    fn a_plugin_that_is_not_chained_holds_nobody_back() {
        let offer = offer(Some(&said(Said::Missing)), &[]);
        assert_eq!((offer.versions.as_slice(), offer.complaints.len()), (&WHOLE[..], 0));
    }

    fn program(folder: &Path, name: &str, script: &str) {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn plugins_are_asked_as_the_reference_library_asks_them_and_remembered() {
        let (bin, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let script = r#"asked=$(cat); test "$CNI_COMMAND $CNI_IFNAME $asked" = 'VERSION dummy {"cniVersion":"1.0.0"}' || exit 1
            echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}'"#;
        program(bin.path(), PORTMAP, script);
        let asked = ChainedPlugins::ask(bin.path());
        assert_eq!(asked.0[PORTMAP], Said::Speaks(vec!["0.4.0".into(), "1.0.0".into()]));
        assert_eq!(asked.0[BANDWIDTH], Said::Missing);
        assert_eq!(ChainedPlugins::read(state.path()), None);
        let folder = state.path().join("enipool");
        asked.write(&folder).unwrap();
        assert_eq!(ChainedPlugins::read(&folder), Some(asked));
        assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_plugin_that_says_something_else_or_cannot_be_run_is_told_from_one_that_is_not_there() {
        let bin = tempfile::tempdir().unwrap();
        program(bin.path(), PORTMAP, "echo unknown CNI_COMMAND: VERSION; exit 1");
        fs::write(bin.path().join(BANDWIDTH), "no program").unwrap();
        let asked = ChainedPlugins::ask(bin.path());
        assert!(matches!(&asked.0[PORTMAP], Said::Nothing(why) if why.contains("unknown CNI_COMMAND")), "{asked}");
        assert!(matches!(&asked.0[BANDWIDTH], Said::Nothing(_)), "{asked}");
    }
}

//! The network configuration that makes container runtimes use this plugin.
//!
//! Written when the node can serve pods: its presence is what makes the kubelet report the node as ready.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enipool_cni::SpecVersion;
use serde::Serialize;

use crate::chained::{BANDWIDTH, PORTMAP};

/// Name of the plugin's executable.
pub const PLUGIN: &str = "enipool-cni";

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflist {
    /// The network's name. Attachments are known by it: keep it for the life of a cluster.
    pub network: String,
    pub socket: PathBuf,
    pub del_queue: PathBuf,
    /// How long an ADD waits for an address. Rounded down to seconds, 1 to 600.
    pub add_timeout: Duration,
    /// Versions of the specification that all plugins of the list speak, oldest first.
    pub versions: Vec<SpecVersion>,
    /// hostPort: whether `portmap` runs after us.
    pub portmap: bool,
    /// The annotations `kubernetes.io/{in,e}gress-bandwidth`: whether `bandwidth` runs after us.
    pub bandwidth: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    cni_version: &'static str,
    cni_versions: Vec<&'static str>,
    name: &'a str,
    plugins: Vec<Plugin<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Plugin<'a> {
    #[serde(rename_all = "camelCase")]
    Enipool { r#type: &'static str, socket: &'a Path, del_queue: &'a Path, add_timeout_seconds: u64 },
    #[serde(rename_all = "camelCase")]
    Portmap { r#type: &'static str, capabilities: PortMappings, snat: bool },
    #[serde(rename_all = "camelCase")]
    Bandwidth { r#type: &'static str, capabilities: Bandwidth },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PortMappings {
    port_mappings: bool,
}

#[derive(Serialize)]
struct Bandwidth {
    bandwidth: bool,
}

impl Conflist {
    /// The file's text.
    ///
    /// Runtimes of today pick 1.1.0 from `cniVersions` (GC and STATUS); older ones read `cniVersion` only.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn render(&self) -> serde_json::Result<String> {
        let mut plugins = vec![Plugin::Enipool {
            r#type: PLUGIN,
            socket: &self.socket,
            del_queue: &self.del_queue,
            add_timeout_seconds: self.add_timeout.as_secs().clamp(1, 600),
        }];
        if self.portmap {
            let capabilities = PortMappings { port_mappings: true };
            plugins.push(Plugin::Portmap { r#type: PORTMAP, capabilities, snat: true });
        }
        if self.bandwidth {
            plugins.push(Plugin::Bandwidth { r#type: BANDWIDTH, capabilities: Bandwidth { bandwidth: true } });
        }
        // Runtimes that do not read `cniVersions` take the oldest.
        let cni_version = self.versions.first().copied().unwrap_or(SpecVersion::V1_0_0).as_str();
        let cni_versions = self.versions.iter().map(|version| version.as_str()).collect();
        let list = List { cni_version, cni_versions, name: &self.network, plugins };
        serde_json::to_string_pretty(&list).map(|text| text + "\n")
    }
}

/// Puts the configuration at `path`, whole or not at all. Returns whether anything changed.
///
/// # Errors
/// When the directory cannot be written.
pub fn install(path: &Path, conflist: &Conflist) -> io::Result<bool> {
    let text = conflist.render()?;
    if fs::read(path).is_ok_and(|present| present == text.as_bytes()) {
        return Ok(false);
    }
    // Runtimes watch the directory and read files by their extension: this name has none that they know.
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    Ok(true)
}

/// Takes the configuration away: the runtime reports the node as not ready. One that is not there is fine.
///
/// # Errors
/// When the directory cannot be written.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use enipool_cni::{PluginConf, Verb};

    fn conflist() -> Conflist {
        Conflist {
            network: "enipool".into(),
            socket: "/run/enipool/cni.sock".into(),
            del_queue: "/run/enipool/del-queue".into(),
            add_timeout: Duration::from_mins(1),
            versions: vec![SpecVersion::V1_0_0, SpecVersion::V1_1_0],
            portmap: true,
            bandwidth: false,
        }
    }

    #[test]
    fn portmap_follows_the_plugin_and_bandwidth_only_when_asked_for() {
        let types = |conflist: &Conflist| {
            let list: serde_json::Value = serde_json::from_str(&conflist.render().unwrap()).unwrap();
            list["plugins"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| p["type"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(types(&conflist()), ["enipool-cni", "portmap"]);
        assert_eq!(types(&Conflist { bandwidth: true, ..conflist() }), ["enipool-cni", "portmap", "bandwidth"]);
        assert_eq!(types(&Conflist { portmap: false, ..conflist() }), ["enipool-cni"]);
    }

    #[test]
    fn the_plugin_reads_its_own_part_as_the_runtime_passes_it_on() {
        let list: serde_json::Value = serde_json::from_str(&conflist().render().unwrap()).unwrap();
        let mut own = list["plugins"][0].clone();
        own["name"] = list["name"].clone();
        own["cniVersion"] = list["cniVersions"][1].clone();
        let (conf, version) = PluginConf::parse(own.to_string().as_bytes(), Verb::Add).unwrap();
        assert_eq!(version, SpecVersion::V1_1_0);
        assert_eq!((conf.network(), conf.socket.as_path()), ("enipool", Path::new("/run/enipool/cni.sock")));
        assert_eq!(conf.timeout(Verb::Add), Duration::from_mins(1));
    }

    #[test]
    fn runtimes_are_offered_the_versions_that_all_plugins_speak() {
        let said = |versions: &[SpecVersion]| {
            let list = Conflist { versions: versions.to_vec(), ..conflist() }.render().unwrap();
            let list: serde_json::Value = serde_json::from_str(&list).unwrap();
            (list["cniVersion"].clone(), list["cniVersions"].clone())
        };
        let both = [SpecVersion::V1_0_0, SpecVersion::V1_1_0];
        assert_eq!(said(&both), ("1.0.0".into(), serde_json::json!(["1.0.0", "1.1.0"])));
        assert_eq!(said(&both[..1]), ("1.0.0".into(), serde_json::json!(["1.0.0"])));
    }

    #[test]
    fn host_ports_are_masqueraded_and_declared_as_a_capability() {
        let list: serde_json::Value = serde_json::from_str(&conflist().render().unwrap()).unwrap();
        let portmap = &list["plugins"][1];
        assert_eq!(portmap["snat"], true);
        assert_eq!(portmap["capabilities"]["portMappings"], true);
    }

    #[test]
    fn installing_again_changes_nothing_and_removing_twice_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("10-enipool.conflist");
        assert!(install(&path, &conflist()).unwrap());
        assert!(!install(&path, &conflist()).unwrap());
        assert!(install(&path, &Conflist { bandwidth: true, ..conflist() }).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left in the directory");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}

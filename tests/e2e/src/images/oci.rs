//! An OCI image layout in one tar archive: a layer, a config, a manifest, an index. Knows nothing of what is inside.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufWriter,
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image ready to be written.
#[derive(Debug)]
pub struct Image {
    name: String,
    layer: Vec<u8>,
    config: Value,
}

/// An image in the making.
#[allow(missing_debug_implementations, reason = "the archive's writer has no Debug of its own")]
pub struct ImageBuilder {
    name: String,
    layer: Builder<Vec<u8>>,
    directories: BTreeSet<String>,
    entrypoint: Vec<String>,
    environment: Vec<String>,
    user: Option<String>,
    failed: Option<std::io::Error>,
}

impl Image {
    /// Begins an image of this name (`repository:tag`).
    #[allow(clippy::new_ret_no_self, reason = "the builder is the way to an image")]
    pub fn new(name: impl Into<String>) -> ImageBuilder {
        ImageBuilder {
            name: name.into(),
            layer: Builder::new(Vec::new()),
            directories: BTreeSet::new(),
            entrypoint: Vec::new(),
            environment: Vec::new(),
            user: None,
            failed: None,
        }
    }

    /// Writes the archive, which `ctr images import` takes.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let layer = digest(&self.layer);
        let mut config = self.config.clone();
        config["rootfs"] = json!({"type": "layers", "diff_ids": [layer]});
        let config = serde_json::to_vec(&config)?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(LAYER, &self.layer)],
        }))?;
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;

        // Renamed into place: a reader never sees half an archive.
        let unfinished = archive.with_extension("tar.new");
        let file = File::create(&unfinished).with_context(|| format!("creating {}", unfinished.display()))?;
        let mut tar = Builder::new(BufWriter::new(file));
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        append(&mut tar, "index.json", &index, 0o644)?;
        for blob in [&config, &manifest, &self.layer] {
            let name = format!("blobs/sha256/{}", digest(blob).trim_start_matches("sha256:"));
            append(&mut tar, &name, blob, 0o644)?;
        }
        tar.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_data()?;
        fs::rename(&unfinished, archive)?;
        Ok(())
    }
}

impl ImageBuilder {
    /// Adds an executable file.
    pub fn program(self, path: &str, from: &Path) -> Result<Self> {
        self.add(path, from, 0o755)
    }

    /// Adds a file that everybody may read.
    pub fn file(self, path: &str, from: &Path) -> Result<Self> {
        self.add(path, from, 0o644)
    }

    /// Adds a folder that anybody may write to.
    pub fn directory(mut self, path: &str) -> Self {
        self.parents(&format!("{path}/"));
        self
    }

    /// Adds a symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = header(EntryType::Symlink, 0, 0o777);
        let linked = self.layer.append_link(&mut header, path.trim_start_matches('/'), target);
        self.remember(linked);
        self
    }

    pub fn entrypoint(mut self, command: &[&str]) -> Self {
        self.entrypoint = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Sets `NAME=value` for every program of the image.
    pub fn environment(mut self, variable: &str) -> Self {
        self.environment.push(variable.to_owned());
        self
    }

    /// `uid:gid`; root otherwise.
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    pub fn finish(self) -> Result<Image> {
        if let Some(error) = self.failed {
            return Err(error).context("building a layer");
        }
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Env": self.environment,
                "User": self.user.unwrap_or_default(),
                "WorkingDir": "/",
            },
        });
        Ok(Image { name: self.name, layer: self.layer.into_inner()?, config })
    }

    fn add(mut self, path: &str, from: &Path, mode: u32) -> Result<Self> {
        let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.parents(path);
        append(&mut self.layer, path.trim_start_matches('/'), &bytes, mode)?;
        Ok(self)
    }

    fn parents(&mut self, path: &str) {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            let directory = path[..=end].to_owned();
            if self.directories.insert(directory.clone()) {
                let mode = if directory == "tmp/" { 0o1777 } else { 0o755 };
                let mut header = header(EntryType::Directory, 0, mode);
                let added = self.layer.append_data(&mut header, &directory, std::io::empty());
                self.remember(added);
            }
        }
    }

    fn remember(&mut self, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
    }
}

fn append<W: std::io::Write>(tar: &mut Builder<W>, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = header(EntryType::Regular, bytes.len() as u64, mode);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("adding {path}"))
}

/// No times, no owners' names: the same files give the same archive.
fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::from("sha256:"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_archive_names_the_image_and_every_blob_by_its_digest() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("program");
        fs::write(&program, b"\x7fELF")?;
        let archive = folder.path().join("image.tar");
        Image::new("example/thing:1")
            .program("/bin/thing", &program)?
            .entrypoint(&["/bin/thing"])
            .finish()?
            .write(&archive)?;

        let mut names = Vec::new();
        for entry in tar::Archive::new(File::open(&archive)?).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(format!("sha256:{name}"), digest(&bytes));
            }
            if path == "index.json" {
                let index: Value = serde_json::from_slice(&bytes)?;
                assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "example/thing:1");
            }
            names.push(path);
        }
        assert_eq!(names.len(), 5, "layout, index, config, manifest, layer: {names:?}");
        Ok(())
    }

    #[test]
    fn the_same_files_give_the_same_archive() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("program");
        fs::write(&program, b"\x7fELF")?;
        let build = |name: &str| -> Result<Vec<u8>> {
            let archive = folder.path().join(name);
            Image::new("example/thing:1").program("/thing", &program)?.finish()?.write(&archive)?;
            Ok(fs::read(archive)?)
        };
        assert_eq!(build("a.tar")?, build("b.tar")?);
        Ok(())
    }
}

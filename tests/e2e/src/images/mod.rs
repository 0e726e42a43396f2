//! The images that the cluster runs, built from static binaries without a Docker engine. Each is one layer; no registry is
//! asked for anything.

mod oci;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

pub use oci::Image;

/// The sandbox of every pod.
pub const PAUSE: &str = "enipool.dev/pause:1";
/// A shell, ping, wget and a small web server for the pods that try the network.
pub const BUSYBOX: &str = "enipool.dev/busybox:1";
/// The operator's repository; its tag is the version of this workspace.
pub const OPERATOR: &str = "enipool.dev/operator";
/// The agent's repository; its tag is the version of this workspace.
pub const AGENT: &str = "enipool.dev/agent";
/// The authorities that certificates of the real EC2 are checked against: an image from scratch has none.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The tag of our own images.
pub const TAG: &str = env!("CARGO_PKG_VERSION");

/// The static binaries that images are made of.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// The folder that this very program was built into: images and harness come from one build.
    pub fn beside_this_program() -> Result<Self> {
        let program = env::current_exe().context("asking for this program's path")?;
        let mut dir = program.parent().context("this program has no folder")?.to_owned();
        // Cargo puts tests and benches one folder deeper.
        if dir.file_name().is_some_and(|name| name == "deps") {
            dir.pop();
        }
        Ok(Self { dir })
    }

    fn get(&self, name: &str) -> Result<PathBuf> {
        checked(self.dir.join(name))
    }

    /// The plugin has a profile of its own, for its size.
    fn shim(&self) -> Result<PathBuf> {
        checked(self.dir.with_file_name("shim").join("enipool-cni"))
    }
}

fn checked(path: PathBuf) -> Result<PathBuf> {
    let bytes = fs::read(&path).with_context(|| format!("{} is not built: run `make build`", path.display()))?;
    // A container of ours holds nothing but the binary: no loader, no libc.
    if contains(&bytes, b"/ld-linux") || contains(&bytes, b"/ld-musl") {
        bail!("{} is not static: build it for a musl target (`make build`)", path.display());
    }
    Ok(path)
}

/// What to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// The sandbox and the shell: a cluster without the product.
    Plain,
    /// All four.
    WithProduct,
}

/// Builds the images into `out` and returns their archives.
pub fn build(binaries: &Binaries, set: Set, out: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
    let mut images = vec![("pause", pause(binaries)?), ("busybox", busybox()?)];
    if set == Set::WithProduct {
        images.push(("operator", operator(binaries)?));
        images.push(("agent", agent(binaries)?));
    }
    let mut archives = Vec::new();
    for (name, image) in images {
        let archive = out.join(format!("{name}.tar"));
        image.write(&archive).with_context(|| format!("writing {}", archive.display()))?;
        archives.push(archive);
    }
    Ok(archives)
}

fn pause(binaries: &Binaries) -> Result<Image> {
    Image::new(PAUSE).program("/pause", &binaries.get("pause")?)?.entrypoint(&["/pause"]).user("65535:65535").finish()
}

fn operator(binaries: &Binaries) -> Result<Image> {
    Image::new(format!("{OPERATOR}:{TAG}"))
        .program("/enipool-operator", &binaries.get("enipool-operator")?)?
        .file(AUTHORITIES, Path::new(AUTHORITIES))?
        .entrypoint(&["/enipool-operator"])
        .user("65532:65532")
        .finish()
}

fn agent(binaries: &Binaries) -> Result<Image> {
    Image::new(format!("{AGENT}:{TAG}"))
        .program("/enipool-agent", &binaries.get("enipool-agent")?)?
        .program("/enipool-cni", &binaries.shim()?)?
        .file(AUTHORITIES, Path::new(AUTHORITIES))?
        .entrypoint(&["/enipool-agent"])
        .finish()
}

fn busybox() -> Result<Image> {
    let busybox =
        crate::cluster::in_path("busybox").context("busybox is missing: apt-get install -y busybox-static")?;
    let listed = std::process::Command::new(&busybox).arg("--list").output().context("running busybox --list")?;
    let applets = String::from_utf8(listed.stdout).context("busybox --list")?;
    let mut image = Image::new(BUSYBOX).program("/bin/busybox", &busybox)?.directory("/tmp").directory("/www");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        image = image.link(&format!("/bin/{applet}"), "busybox");
    }
    image.environment("PATH=/bin").entrypoint(&[]).finish()
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

//! Deletions that wait on disk while the agent is away.
//!
//! One file for each, named by a sequence number: the agent carries them out in that order. A file appears whole or not at
//! all (written beside, then linked into place), and the same deletion is queued once however often the runtime repeats
//! it. The plugin writes; only the agent removes.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::frame::Request;

/// Deletions that the queue takes. A node has at most 737 pods; this is several times its whole content.
pub const MAX_ENTRIES: usize = 4096;

/// A directory of waiting deletions.
#[derive(Debug, Clone)]
pub struct DelQueue {
    dir: PathBuf,
    max: usize,
}

/// One waiting deletion.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    sequence: u64,
    key: u64,
}

impl Entry {
    fn file_name(&self) -> String {
        format!("{:020}-{:016x}.json", self.sequence, self.key)
    }

    fn parse(name: &str) -> Option<Self> {
        let (sequence, key) = name.strip_suffix(".json")?.split_once('-')?;
        Some(Self { sequence: sequence.parse().ok()?, key: u64::from_str_radix(key, 16).ok()? })
    }
}

/// Why a deletion was not queued.
#[derive(Debug)]
pub enum QueueError {
    /// The bound is reached: the agent has been away for very long.
    Full(usize),
    Io(io::Error),
}

impl std::fmt::Display for QueueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(entries) => write!(f, "{entries} deletions wait for the agent already, which is the most"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for QueueError {}

impl From<io::Error> for QueueError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl DelQueue {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), max: MAX_ENTRIES }
    }

    #[must_use]
    pub fn bounded(mut self, max: usize) -> Self {
        self.max = max;
        self
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Queues `request` of `network` behind all others; the same attachment waits once only.
    ///
    /// # Errors
    /// When the queue is full or the directory cannot be written.
    pub fn push(&self, network: &str, request: &Request) -> Result<(), QueueError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let key = key_of(network, &request.container_id, &request.ifname);
        let body = serde_json::to_vec(request).map_err(io::Error::from)?;
        let temporary = self.dir.join(format!(".{}.tmp", std::process::id()));
        // A second round only when the agent tidied the temporary file away between the write and the link.
        let mut rounds = 3;
        loop {
            let entries = self.entries()?;
            if entries.iter().any(|entry| entry.key == key) {
                return Ok(());
            }
            if entries.len() >= self.max {
                return Err(QueueError::Full(entries.len()));
            }
            // Two plugins may pick the same number at the same moment: their keys tell them apart, and the order between
            // them does not matter.
            let sequence = entries.last().map_or(1, |entry| entry.sequence.saturating_add(1));
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(&body)?;
            let linked = fs::hard_link(&temporary, self.dir.join(Entry { sequence, key }.file_name()));
            fs::remove_file(&temporary).or_else(ignore_missing)?;
            rounds -= 1;
            match linked {
                Err(error) if error.kind() == io::ErrorKind::NotFound && rounds > 0 => {}
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
                _ => return Ok(()),
            }
        }
    }

    /// All that wait, first to last. A directory that does not exist holds none.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let listing = match fs::read_dir(&self.dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut entries = Vec::new();
        for file in listing {
            entries.extend(file?.file_name().to_str().and_then(Entry::parse));
        }
        entries.sort_unstable();
        Ok(entries)
    }

    /// Whether a deletion of this attachment waits.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn holds(&self, network: &str, container_id: &str, ifname: &str) -> io::Result<bool> {
        let key = key_of(network, container_id, ifname);
        Ok(self.entries()?.iter().any(|entry| entry.key == key))
    }

    /// Reads one.
    ///
    /// # Errors
    /// `InvalidData` when the file holds no request.
    pub fn load(&self, entry: &Entry) -> io::Result<Request> {
        Ok(serde_json::from_slice(&fs::read(self.dir.join(entry.file_name()))?)?)
    }

    /// Takes one off the queue once it is carried out; one that is gone already is fine.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn remove(&self, entry: &Entry) -> io::Result<()> {
        fs::remove_file(self.dir.join(entry.file_name())).or_else(ignore_missing)
    }

    /// Removes what plugins killed in mid-write left behind.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn tidy(&self) -> io::Result<()> {
        let listing = match fs::read_dir(&self.dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for file in listing {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&path).or_else(ignore_missing)?;
            }
        }
        Ok(())
    }
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// FNV-1a of what makes two deletions the same: the attachment. The rest of the request, such as the runtime's cached
/// result, may differ from one attempt to the next. Stable over builds, unlike the standard library's hasher.
fn key_of(network: &str, container_id: &str, ifname: &str) -> u64 {
    [network, container_id, ifname]
        .iter()
        .flat_map(|part| part.bytes().chain([0]))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

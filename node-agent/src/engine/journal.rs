//! The journal's file: records are appended as they happen, and the file is written anew when it has grown much.
//!
//! It lives on tmpfs: it survives every end of the process and goes with the node's boot, as its pods do. So nothing is
//! synced to a disk; what a killed process wrote, the next one reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use enipool_pool::ledger::record::{self, Reading, Record};

/// Below this the file is not worth rewriting.
const COMPACT_ABOVE: u64 = 256 * 1024;

/// Where the journal's bytes are kept: a file. Tests have one that refuses.
pub(super) trait Medium: std::fmt::Debug + Send {
    /// Adds these bytes behind all others: the whole of them, or on an error none.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Puts these bytes in the place of all others, or on an error leaves those.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    medium: Box<dyn Medium>,
    bytes: u64,
    /// Size after the last rewrite.
    base: u64,
    behind: bool,
}

impl Journal {
    /// Reads what is at `path`; nothing there is an empty journal.
    pub fn read(path: &Path) -> io::Result<Reading> {
        match fs::read(path) {
            Ok(bytes) => Ok(record::read(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Reading::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the journal at `path` by these records and opens it for more. A crash leaves the old one or the new.
    pub fn create(path: &Path, records: &[Record]) -> io::Result<Self> {
        Self::on(Box::new(OnDisk { path: path.to_owned(), file: None, bytes: 0 }), records)
    }

    /// A journal of these records on `medium`.
    pub(super) fn on(medium: Box<dyn Medium>, records: &[Record]) -> io::Result<Self> {
        let mut journal = Self { medium, bytes: 0, base: 0, behind: false };
        journal.rewrite(records)?;
        Ok(journal)
    }

    /// Appends records in one write. On an error none of them counts, and the journal is [behind](Self::is_behind).
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let text = encode(records)?;
        if let Err(error) = self.medium.append(text.as_bytes()) {
            self.behind = true;
            return Err(error);
        }
        self.bytes = self.bytes.saturating_add(length(&text));
        Ok(())
    }

    /// Whether records were lost: what they said has to be written with the whole file, before any other is appended.
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// Whether the file is worth writing anew.
    pub fn is_long(&self) -> bool {
        self.bytes > COMPACT_ABOVE && self.bytes > self.base.saturating_mul(4)
    }

    /// Writes the file anew: these records are everything that is to be known. On an error the old file stands.
    pub fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let text = encode(records)?;
        self.medium.replace(text.as_bytes())?;
        self.bytes = length(&text);
        self.base = self.bytes;
        self.behind = false;
        Ok(())
    }
}

#[derive(Debug)]
struct OnDisk {
    path: PathBuf,
    /// `None` until it has been written once.
    file: Option<File>,
    /// Of whole records.
    bytes: u64,
}

impl Medium for OnDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = file.write_all(bytes) {
            // Half a record at the end would spoil the next one.
            file.set_len(self.bytes)?;
            file.seek(io::SeekFrom::Start(self.bytes))?;
            return Err(error);
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let write = || -> io::Result<File> {
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            fs::rename(&new, &self.path)?;
            Ok(file)
        };
        let file = write().inspect_err(|_| {
            // Half of a new one only takes the room that the old one needs.
            let _ = fs::remove_file(&new);
        })?;
        self.file = Some(file);
        self.bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

fn encode(records: &[Record]) -> io::Result<String> {
    let mut text = String::with_capacity(records.len().saturating_mul(192));
    for record in records {
        text.push_str(&record.encode().map_err(io::Error::other)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use enipool_pool::Timestamp;
    use enipool_pool::ledger::AttachmentKey;

    use super::*;

    fn released(container: &str) -> Record {
        let key = AttachmentKey::new("enipool", container, "eth0");
        Record::Released { key, until: Timestamp(42), period: Duration::from_secs(30) }
    }

    #[test]
    fn what_was_appended_is_read_and_a_torn_tail_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, &[released("a")]).unwrap();
        journal.append(&[released("b")]).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(b"deadbeef {\"is\":\"rel");
        fs::write(&path, bytes).unwrap();
        let reading = Journal::read(&path).unwrap();
        assert!(reading.torn);
        assert_eq!(reading.records, [released("a"), released("b")]);
        Journal::create(&path, &reading.records).unwrap().append(&[released("c")]).unwrap();
        assert_eq!(Journal::read(&path).unwrap().records, [released("a"), released("b"), released("c")]);
    }

    #[test]
    fn no_file_is_an_empty_journal() {
        let dir = tempfile::tempdir().unwrap();
        let reading = Journal::read(&dir.path().join("none")).unwrap();
        assert!(reading.records.is_empty() && !reading.torn);
    }
}

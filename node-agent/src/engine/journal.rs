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

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Size after the last rewrite.
    base: u64,
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
        let text = encode(records)?;
        let new = path.with_extension("new");
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, path)?;
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        Ok(Self { path: path.to_owned(), file, bytes, base: bytes })
    }

    /// Appends records in one write. On an error none of them counts.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let text = encode(records)?;
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            // Half a record at the end would spoil the next one.
            self.file.set_len(self.bytes)?;
            self.file.seek(io::SeekFrom::Start(self.bytes))?;
            return Err(error);
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Whether the file is worth writing anew.
    pub fn is_long(&self) -> bool {
        self.bytes > COMPACT_ABOVE && self.bytes > self.base.saturating_mul(4)
    }

    /// Writes the file anew.
    pub fn compact(&mut self, records: &[Record]) -> io::Result<()> {
        *self = Self::create(&self.path, records)?;
        Ok(())
    }
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

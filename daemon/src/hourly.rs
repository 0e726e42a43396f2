//! Hourly log files within a bound of bytes: `<prefix>.YYYY-MM-DD-HH`, in UTC, the oldest removed first.
//!
//! An hour that logs too much is cut into parts (`….1`, `….2`; the newest lines are in the file without a number), so that
//! also a flood of lines costs old ones and never the disk. It knows nothing of lines: whoever writes gives whole ones.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

const HOUR: u64 = 3600;
/// A file may take one part in so many of all bytes before it is cut.
const PARTS: u64 = 4;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Hours of which files are kept.
    pub hours: usize,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// A writer into the file of the hour.
#[derive(Debug)]
pub(crate) struct HourlyFile {
    folder: PathBuf,
    prefix: String,
    bounds: Bounds,
    now: fn() -> SystemTime,
    /// Hours since the epoch.
    hour: u64,
    file: File,
    written: u64,
}

/// A file of ours in the folder. The order is that of age: parts of an hour by number, then the one without.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    hour: String,
    part: u64,
    path: PathBuf,
}

impl HourlyFile {
    /// Opens the file of this hour, to append to it, and removes what is beyond the bounds. The folder must exist.
    pub(crate) fn open(folder: PathBuf, prefix: String, bounds: Bounds, now: fn() -> SystemTime) -> io::Result<Self> {
        let hour = hours(now());
        let file = append_to(&folder.join(format!("{prefix}.{}", name(hour))))?;
        let written = file.metadata()?.len();
        let opened = Self { folder, prefix, bounds, now, hour, file, written };
        opened.prune()?;
        Ok(opened)
    }

    fn part_max(&self) -> u64 {
        (self.bounds.bytes / PARTS).max(1)
    }

    fn path(&self, hour: u64) -> PathBuf {
        self.folder.join(format!("{}.{}", self.prefix, name(hour)))
    }

    /// Goes on in another file if the hour is over or the file is full.
    fn turn(&mut self, coming: u64) -> io::Result<()> {
        let hour = hours((self.now)());
        let full = self.written > 0 && self.written.saturating_add(coming) > self.part_max();
        // A clock that was set back goes on with the file that is open.
        let hour = hour.max(self.hour);
        if hour == self.hour {
            if !full {
                return Ok(());
            }
            let parts = self.found()?.into_iter().filter(|found| found.hour == name(hour) && found.part < u64::MAX);
            let part = parts.map(|found| found.part).max().unwrap_or(0).saturating_add(1);
            match fs::rename(self.path(hour), self.folder.join(format!("{}.{}.{part}", self.prefix, name(hour)))) {
                // Renamed before, and then the new one could not be made.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        let file = append_to(&self.path(hour))?;
        self.written = file.metadata()?.len();
        (self.file, self.hour) = (file, hour);
        self.prune()
    }

    /// Removes files until the bounds hold also when the open one is full.
    fn prune(&self) -> io::Result<()> {
        let mut files = self.found()?;
        files.sort();
        let hours: BTreeSet<String> = files.iter().map(|found| found.hour.clone()).collect();
        let kept: BTreeSet<&String> = hours.iter().rev().take(self.bounds.hours.max(1)).collect();
        let mut left = self.bounds.bytes.saturating_sub(self.part_max());
        let open = self.path(self.hour);
        for found in files.iter().rev().filter(|found| found.path != open) {
            let bytes = fs::metadata(&found.path).map_or(0, |metadata| metadata.len());
            if kept.contains(&found.hour) && bytes <= left {
                left -= bytes;
            } else {
                // Nothing older is kept either: no gaps.
                left = 0;
                fs::remove_file(&found.path)?;
            }
        }
        Ok(())
    }

    fn found(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(rest) = name.strip_prefix(self.prefix.as_str()).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            let (hour, part) = rest.split_once('.').map_or((rest, Some(u64::MAX)), |(hour, n)| (hour, n.parse().ok()));
            let is_hour = hour.len() == "2026-11-23-06".len() && hour.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            if let Some(part) = part.filter(|_| is_hour) {
                found.push(Found { hour: hour.to_owned(), part, path });
            }
        }
        Ok(found)
    }
}

impl Write for HourlyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let coming = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // A file that cannot be turned is better than lines that are lost; the next line tries again.
        let turned = self.turn(coming);
        if turned.is_err() && self.written.saturating_add(coming) > self.bounds.bytes {
            turned?;
        }
        self.file.write_all(bytes)?;
        self.written = self.written.saturating_add(coming);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn hours(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / HOUR
}

fn name(hour: u64) -> String {
    let seconds = i64::try_from(hour.saturating_mul(HOUR)).unwrap_or_default();
    let at = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%d-%H").to_string()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    thread_local! {
        static HOURS: Cell<u64> = const { Cell::new(0) };
    }

    /// 2026-11-23T06:00:00Z and as many hours more as the test has let pass.
    fn clock() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_413_600 + HOURS.get() * HOUR)
    }

    fn open(folder: &std::path::Path, hours: usize, bytes: u64) -> HourlyFile {
        HourlyFile::open(folder.to_owned(), "agent.log".into(), Bounds { hours, bytes }, clock).unwrap()
    }

    fn files(folder: &std::path::Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    fn bytes(folder: &std::path::Path) -> u64 {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    #[test]
    fn each_hour_has_its_file_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 3, 1000);
        for hour in 0..5 {
            HOURS.set(hour);
            log.write_all(b"a line\n").unwrap();
            log.write_all(b"a line\n").unwrap();
        }
        assert_eq!(
            files(dir.path()),
            ["agent.log.2026-11-23-08", "agent.log.2026-11-23-09", "agent.log.2026-11-23-10"]
        );
        assert_eq!(bytes(dir.path()), 3 * 14);
    }

    #[test]
    fn a_flood_within_an_hour_costs_old_lines_and_never_more_than_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 48, 1000);
        for n in 0..500 {
            log.write_all(format!("line {n:04}\n").as_bytes()).unwrap();
            assert!(bytes(dir.path()) <= 1000, "{:?}", files(dir.path()));
        }
        let text = fs::read_to_string(dir.path().join("agent.log.2026-11-23-06")).unwrap();
        assert!(text.ends_with("line 0499\n"), "{text}");
        assert!(bytes(dir.path()) > 500, "most of the bound is used: {:?}", files(dir.path()));
        // What is left is the end of the story, without gaps.
        let mut found = log.found().unwrap();
        found.sort();
        let all: String = found.iter().map(|found| fs::read_to_string(&found.path).unwrap()).collect();
        let first: usize = all[5..9].parse().unwrap();
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len(), 500 - first);
        assert!(lines.iter().zip(first..).all(|(line, n)| *line == format!("line {n:04}")), "{lines:?}");
    }

    #[test]
    fn a_restart_goes_on_in_the_same_file_and_clears_up_what_another_bound_left() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), 48, 10_000).write_all(&[b'x'; 400]).unwrap();
        HOURS.set(1);
        open(dir.path(), 48, 10_000).write_all(b"before\n").unwrap();
        fs::write(dir.path().join("agent.log.tar.gz"), [0; 4000]).unwrap();
        fs::write(dir.path().join("other.log.2026-11-23-06"), [0; 4000]).unwrap();
        open(dir.path(), 48, 400).write_all(b"after\n").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("agent.log.2026-11-23-07")).unwrap(), "before\nafter\n");
        assert_eq!(files(dir.path()), ["agent.log.2026-11-23-07", "agent.log.tar.gz", "other.log.2026-11-23-06"]);
    }
}

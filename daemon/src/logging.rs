//! Logs: to stdout as text or JSON, and to hourly files of which no more is kept than their bounds allow.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;
use std::{fmt, io};

use tracing::Metadata;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt as format};

use crate::hourly::{Bounds, HourlyFile};

/// Lines that may wait for the disk. 4096 lines of 250 bytes are 1 MB; what comes beyond is dropped and counted.
const LINES_WAITING_MAX: usize = 4096;

/// How lines on stdout look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("unknown log format {other:?}: use text or json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// An hourly log file: `<folder>/<prefix>.YYYY-MM-DD-HH`, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    pub folder: PathBuf,
    pub prefix: String,
    pub bounds: Bounds,
    /// Only events whose target begins with this go here, and to no other file. `None`: all the rest.
    pub target: Option<&'static str>,
}

/// Where logs go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    pub format: LogFormat,
    /// Levels by target, as in `info,enipool_agent=debug`.
    pub filter: String,
    pub files: Vec<LogFile>,
}

/// Logging that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log filter {filter:?} is not understood (expected levels such as info,enipool_agent=debug)")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("log folder {} cannot be made", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("log files {}.* cannot be opened in {}", file.prefix, file.folder.display())]
    File { file: LogFile, source: io::Error },
    #[error("logging was set up before")]
    Twice,
}

/// Checks levels by target as [`LogOptions::filter`] takes them: for arguments, which are refused by name.
pub fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.into()),
        Err(error) => Err(format!("{error} (expected levels such as info,enipool_agent=debug)")),
    }
}

/// Keeps the log files open; what is still waiting for the disk is written when it is dropped. Hold it in `main`.
#[derive(Debug)]
pub struct LogGuard {
    dropped: Vec<ErrorCounter>,
    workers: Vec<WorkerGuard>,
}

impl LogGuard {
    /// Lines lost since the start because the disk was too slow, in a form that metrics can keep.
    pub fn dropped_lines(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let counters = self.dropped.clone();
        move || counters.iter().map(ErrorCounter::dropped_lines).sum()
    }
}

/// Sets up logging for the process. Call it once, first thing in `main`. Files that cannot be opened are said and left out:
/// a daemon does not stay away over its logs, which standard output has too.
pub fn init(options: &LogOptions) -> Result<LogGuard, LogError> {
    let (subscriber, guard, left_out) = build(options, io::stdout)?;
    subscriber.try_init().map_err(|_| LogError::Twice)?;
    for error in left_out {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%error, cause, "logs go to standard output only");
    }
    Ok(guard)
}

fn build<W>(
    options: &LogOptions,
    stdout: W,
) -> Result<(impl tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync + use<W>, LogGuard, Vec<LogError>), LogError>
where
    W: for<'a> format::MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(&options.filter)
        .map_err(|source| LogError::Filter { filter: options.filter.clone(), source })?;
    let own_targets: Vec<&'static str> = options.files.iter().filter_map(|file| file.target).collect();
    let mut layers = Vec::new();
    let mut guard = LogGuard { dropped: Vec::new(), workers: Vec::new() };
    let mut left_out = Vec::new();
    for file in &options.files {
        let (writer, worker) = match open(file) {
            Ok(opened) => opened,
            Err(error) => {
                left_out.push(error);
                continue;
            }
        };
        guard.dropped.push(writer.error_counter());
        guard.workers.push(worker);
        let belongs = belongs_to(file.target, own_targets.clone());
        layers.push(format::layer().with_ansi(false).with_writer(writer).with_filter(FilterFn::new(belongs)).boxed());
    }
    layers.push(match options.format {
        LogFormat::Text => format::layer().with_ansi(false).with_writer(stdout).boxed(),
        LogFormat::Json => format::layer().json().flatten_event(true).with_writer(stdout).boxed(),
    });
    Ok((tracing_subscriber::registry().with(layers.with_filter(filter)), guard, left_out))
}

fn belongs_to(target: Option<&'static str>, others: Vec<&'static str>) -> impl Fn(&Metadata<'_>) -> bool {
    move |event| match target {
        Some(target) => event.target().starts_with(target),
        None => !others.iter().any(|other| event.target().starts_with(other)),
    }
}

fn open(file: &LogFile) -> Result<(NonBlocking, WorkerGuard), LogError> {
    std::fs::create_dir_all(&file.folder).map_err(|source| LogError::Folder { folder: file.folder.clone(), source })?;
    let appender = HourlyFile::open(file.folder.clone(), file.prefix.clone(), file.bounds, SystemTime::now)
        .map_err(|source| LogError::File { file: file.clone(), source })?;
    Ok(NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX).finish(appender))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A stdout that tests can read.
    #[derive(Debug, Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
        }
    }

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl format::MakeWriter<'_> for Captured {
        type Writer = Self;
        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("enipool-logging-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    fn only_file(folder: &Path, prefix: &str) -> (String, String) {
        let names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(prefix))
            .collect();
        assert_eq!(names.len(), 1, "{names:?}");
        (names[0].clone(), std::fs::read_to_string(folder.join(&names[0])).unwrap())
    }

    #[test]
    fn files_are_named_by_the_hour_and_split_by_target() {
        let folder = folder("split");
        let bounds = Bounds { hours: 24, bytes: 1 << 20 };
        let file = |prefix: &str, target| LogFile { folder: folder.clone(), prefix: prefix.into(), bounds, target };
        let options = LogOptions {
            format: LogFormat::Json,
            filter: "info".into(),
            files: vec![file("ipamd.log", None), file("plugin.log", Some("plugin"))],
        };
        let stdout = Captured::default();
        let (subscriber, guard, left_out) = build(&options, stdout.clone()).unwrap();
        assert!(left_out.is_empty(), "{left_out:?}");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(eni = "eni-1", "attached");
            tracing::info!(target: "plugin", "added a pod");
            tracing::debug!("not asked for");
        });
        drop(guard);
        let (name, agent) = only_file(&folder, "ipamd.log");
        let hour = name.strip_prefix("ipamd.log.").unwrap();
        assert_eq!(hour.len(), "2026-11-23-06".len(), "{hour}");
        assert!(agent.contains("attached") && !agent.contains("added a pod"), "{agent}");
        let (_, plugin) = only_file(&folder, "plugin.log");
        assert!(plugin.contains("added a pod") && !plugin.contains("attached"), "{plugin}");
        let lines = stdout.text();
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert!(lines.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{lines}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_wrong_filter_is_refused_by_name() {
        let options = LogOptions { format: LogFormat::Text, filter: "enipool=loud".into(), files: Vec::new() };
        let error = build(&options, io::sink).err().unwrap();
        assert!(error.to_string().contains("enipool=loud"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named_and_standard_output_has_the_lines() {
        let file = LogFile {
            folder: "/proc/enipool".into(),
            prefix: "a".into(),
            bounds: Bounds { hours: 1, bytes: 1 },
            target: None,
        };
        let options = LogOptions { format: LogFormat::Text, filter: "info".into(), files: vec![file] };
        let stdout = Captured::default();
        let (subscriber, _guard, left_out) = build(&options, stdout.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || tracing::info!("served"));
        assert!(stdout.text().contains("served"));
        let [error] = left_out.as_slice() else { panic!("{left_out:?}") };
        assert!(error.to_string().contains("/proc/enipool"), "{error}");
    }
}

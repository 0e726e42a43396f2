//! What the instance's type can hold: EC2's own word where it is known, the bundled table until then.
//!
//! EC2 is asked once for a type and boot, and its answer is kept beside the journal, so that a restart need not ask. For a
//! type that the table knows that is done long after the node has filled: the table is made of the same answers, and the
//! first pods' calls are counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use enipool_pool::InstanceType;
use enipool_pool::capacity::Capacity;
use enipool_pool::ec2::{Action, Ec2, Ec2Error, Ec2ErrorKind, InstanceTypeLimits};
use enipool_pool::imds::Imds;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::pool::Shared;
use super::port::Kernel;
use super::run::Hands;

/// Of the file. Another version's is as good as none.
const VERSION: u32 = 1;
/// Its name.
pub(crate) const FILE: &str = "instance-type.json";
/// The file has some 150 bytes.
const FILE_MAX: u64 = 4096;
/// From the start to the question, for a type that the table knows. Up to twice as long, by the node's seed: the nodes of
/// a group start together.
const CONFIRM_AFTER: Duration = Duration::from_secs(600);
/// Longest pause before the question is put again after a failure; it doubles up to here.
const AGAIN_AFTER: Duration = Duration::from_secs(6 * 3600);
/// The adapter has a deadline of its own; this one holds for every adapter.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    limits: InstanceTypeLimits,
}

/// The file in the node's state folder. On tmpfs: a reboot, after which the instance may be of another type, empties it.
#[derive(Debug, Clone)]
pub(super) struct TypeFile(PathBuf);

impl TypeFile {
    pub(super) fn beside(journal: &Path) -> Self {
        Self(journal.with_file_name(FILE))
    }

    /// EC2's answer about this type, if it was kept and can be read.
    pub(super) fn read(&self, instance_type: &InstanceType) -> Option<InstanceTypeLimits> {
        let mut text = String::new();
        let read = File::open(&self.0).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, path = %self.0.display(), "what EC2 said of the instance type cannot be read");
                return None;
            }
        }
        let kept: Option<Kept> = serde_json::from_str(&text).ok();
        let limits = kept.filter(|kept| kept.version == VERSION).map(|kept| kept.limits).filter(make_sense);
        if limits.is_none() {
            tracing::warn!(path = %self.0.display(), "the file makes no sense and is not used");
        }
        limits.filter(|limits| limits.instance_type == *instance_type)
    }

    /// Keeps EC2's answer. A crash leaves the old file or the new. Failing only costs the next start a call.
    pub(super) fn write(&self, limits: &InstanceTypeLimits) {
        let write = || {
            let text = serde_json::to_vec(&Kept { version: VERSION, limits: limits.clone() })?;
            let new = self.0.with_extension("new");
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            fs::rename(&new, &self.0)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, path = %self.0.display(), "what EC2 said of the instance type cannot be kept");
        }
    }
}

/// An instance has at least its primary interface, with its primary address.
fn make_sense(limits: &InstanceTypeLimits) -> bool {
    limits.max_enis > 0 && limits.ipv4_per_eni > 0
}

/// Where a type's limits were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// By EC2, now or earlier: nothing to ask any more.
    Ec2,
    Table,
}

/// Types whose limits come with the agent; `None` for one that is newer.
pub type Table = fn(&InstanceType) -> Option<InstanceTypeLimits>;

/// What is known without asking anybody.
pub(super) fn known(
    file: &TypeFile,
    table: Table,
    instance_type: &InstanceType,
) -> Option<(InstanceTypeLimits, Source)> {
    let kept = file.read(instance_type).map(|limits| (limits, Source::Ec2));
    kept.or_else(|| table(instance_type).map(|limits| (limits, Source::Table)))
}

/// Asks EC2 about a type that was taken from the table, once and off everybody's way, until `shutdown`. What EC2 says
/// counts from then on.
pub(super) async fn confirm<E: Ec2, I: Imds, K: Kernel>(
    instance_type: InstanceType,
    file: TypeFile,
    seed: u64,
    shared: Arc<Shared>,
    hands: Hands<E, I, K>,
    shutdown: CancellationToken,
) {
    let mut pause = CONFIRM_AFTER;
    let spread = CONFIRM_AFTER.mul_f64(f64::from(u16::try_from(seed % 1000).unwrap_or_default()) / 1000.0);
    let mut due = Instant::now() + CONFIRM_AFTER + spread;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until(due) => {}
        }
        shared.lock().machine.count_call(Action::DescribeInstanceTypes);
        let begun = Instant::now();
        let answer = tokio::select! {
            () = shutdown.cancelled() => return,
            answer = timeout(PATIENCE, hands.ec2.describe_instance_type(&instance_type)) => answer,
        };
        let answer = answer.unwrap_or_else(|_| Err(no_answer()));
        if let Some(observer) = &hands.observer {
            observer(Action::DescribeInstanceTypes, answer.as_ref().err().map(|error| &error.kind), begun.elapsed());
        }
        match answer {
            Ok(limits) if make_sense(&limits) => {
                file.write(&limits);
                let now = shared.clock.now();
                shared.lock().machine.set_capacity(Capacity::new(&limits), now);
                shared.casual.notify_one();
                return;
            }
            Ok(limits) => tracing::warn!(?limits, "EC2 says something of the instance type that makes no sense"),
            Err(Ec2Error { kind: Ec2ErrorKind::AccessDenied, .. }) => {
                tracing::info!("the role may not describe instance types; the bundled table stands");
                return;
            }
            Err(error) => tracing::info!(%error, "the instance type cannot be described; the bundled table stands"),
        }
        pause = pause.saturating_mul(2).min(AGAIN_AFTER);
        due = Instant::now() + pause;
    }
}

fn no_answer() -> Ec2Error {
    Ec2Error { action: Action::DescribeInstanceTypes, kind: Ec2ErrorKind::NoAnswer, message: None }
}

#[cfg(test)]
mod tests {
    use enipool_pool::capacity;

    use super::*;

    fn file() -> (tempfile::TempDir, TypeFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = TypeFile::beside(&dir.path().join("ledger.journal"));
        (dir, file)
    }

    fn limits(max_enis: u32) -> InstanceTypeLimits {
        let instance_type = InstanceType::new("m5.large");
        InstanceTypeLimits { instance_type, max_enis, ipv4_per_eni: 10, supports_prefixes: true, vcpus: 2 }
    }

    #[test]
    fn what_ec2_said_wins_over_the_table() {
        let (_dir, file) = file();
        let m5_large = InstanceType::new("m5.large");
        assert_eq!(known(&file, capacity::bundled, &m5_large), Some((limits(3), Source::Table)));
        file.write(&limits(4));
        assert_eq!(known(&file, capacity::bundled, &m5_large), Some((limits(4), Source::Ec2)));
    }

    #[test]
    fn of_another_type_it_says_nothing() {
        let (_dir, file) = file();
        file.write(&limits(4));
        assert_eq!(file.read(&InstanceType::new("m5.xlarge")), None);
        assert_eq!(known(&file, capacity::bundled, &InstanceType::new("zz9.large")), None, "to be asked for");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_as_none() {
        let (_dir, file) = file();
        let kept = |version, enis: u32| serde_json::to_vec(&Kept { version, limits: limits(enis) }).unwrap();
        let cut = kept(VERSION, 3)[..40].to_vec();
        for bytes in [Vec::new(), cut, b"\xff\xfe".to_vec(), kept(VERSION + 1, 3), kept(VERSION, 0)] {
            fs::write(&file.0, bytes).unwrap();
            assert_eq!(file.read(&InstanceType::new("m5.large")), None);
        }
    }
}

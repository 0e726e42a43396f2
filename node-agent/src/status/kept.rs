//! The last word of people and operator, kept in the node's state folder: after a restart the agent goes on by it until the
//! API server answers. Without it every restart would first act on the flags, and then take that back.
//!
//! What is kept is the ENIPool and its class, not what follows from them: the next start may have other flags, and one
//! function ([`wishes`]) puts both together. On tmpfs, beside the journal: it goes with the node's boot.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use enipool_crds::class::{ENIPoolClassStatus, SubnetStatus};
use enipool_crds::condition::ConditionType;
use enipool_crds::{ENIPool, ENIPoolClass};
use enipool_pool::{InstanceId, Zone};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use super::wishes::{Wishes, wishes};

/// Of the file. Another version's is not read.
const VERSION: u32 = 1;
pub(crate) const FILE: &str = "wishes.json";
/// An ENIPool's spec and its class have some kilobytes.
const FILE_MAX: u64 = 1 << 20;

/// What people and operator said last, without what does not bear on the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    pool: ENIPool,
    class: Option<ENIPoolClass>,
    /// Whether the agent planned for itself.
    operator_away: bool,
}

impl Kept {
    /// `class`: the one in force; `None`: none matches. `operator_away`: whether the agent plans for itself.
    pub fn new(pool: &ENIPool, class: Option<&ENIPoolClass>, operator_away: bool) -> Self {
        let mut own = ENIPool::new(&pool.name_any(), pool.spec.clone());
        own.metadata.generation = pool.metadata.generation;
        Self { pool: own, class: class.map(essence), operator_away }
    }

    pub fn pool(&self) -> &ENIPool {
        &self.pool
    }

    pub fn class(&self) -> Option<&ENIPoolClass> {
        self.class.as_ref()
    }

    /// Whether the operator planned for the node.
    pub fn is_planned_for(&self) -> bool {
        !self.operator_away && self.pool.spec.allocation.is_some()
    }

    /// The same, with the operator gone.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self { operator_away: true, ..self.clone() }
    }

    /// What it asks for, on top of these flags.
    pub fn wishes(&self, flags: &Wishes, zone: &Zone) -> Wishes {
        wishes(flags, Some(&self.pool), self.class.as_ref(), zone, self.operator_away)
    }
}

/// What of a class bears on a node. The rest of its status changes all the time.
fn essence(class: &ENIPoolClass) -> ENIPoolClass {
    let mut own = ENIPoolClass::new(&class.name_any(), class.spec.clone());
    own.metadata.generation = class.metadata.generation;
    let status = class.status.as_ref().filter(|_| class.spec.subnet_selector.is_some());
    own.status = status.map(|status| {
        let mut conditions = status.conditions.clone();
        conditions.retain(|condition| condition.type_ == ConditionType::Ready.as_str());
        for condition in &mut conditions {
            condition.message.clear();
        }
        let subnet = |known: &SubnetStatus| SubnetStatus {
            id: known.id.clone(),
            zone: known.zone.clone(),
            ..Default::default()
        };
        ENIPoolClassStatus {
            subnets: status.subnets.iter().map(subnet).collect(),
            observed_generation: status.observed_generation,
            conditions,
            ..ENIPoolClassStatus::default()
        }
    });
    own
}

/// What the agent starts from: the last word that was kept. Without one it is the flags, and for the first seconds only as
/// far as pods need it: somebody will say what else.
pub fn first_wishes(flags: &Wishes, kept: Option<&Kept>, zone: &Zone) -> Wishes {
    if let Some(kept) = kept {
        return kept.wishes(flags, zone);
    }
    let mut wishes = flags.clone();
    wishes.engine.awaits_word = true;
    wishes
}

/// The file of one instance's node.
#[derive(Debug)]
pub struct WishesFile {
    path: PathBuf,
    instance: InstanceId,
    kept: Option<Kept>,
    /// The last write failed, which has been said.
    failing: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    version: u32,
    instance: &'a InstanceId,
    #[serde(flatten)]
    kept: &'a Kept,
}

#[derive(Deserialize)]
struct Header {
    version: u32,
    instance: InstanceId,
}

/// Why a file is as good as none.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("it makes no sense: {0}")]
    Garbled(#[from] serde_json::Error),
    #[error("it has version {0}, and this agent reads version {VERSION}")]
    Version(u32),
    #[error("it is that of {0}, another instance")]
    Foreign(InstanceId),
}

impl WishesFile {
    /// Reads what an earlier start of this instance kept. What cannot be used is as none, and said.
    pub fn open(state_dir: &Path, instance: &InstanceId) -> Self {
        let path = state_dir.join(FILE);
        let kept = match read(&path, instance) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "what was asked for before the start is not used");
                None
            }
        };
        Self { path, instance: instance.clone(), kept, failing: false }
    }

    /// What the file says.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// Keeps this from now on; `None`: nobody asks for anything any more. Touches the file only if that is news; a crash
    /// leaves the old one or the new. What fails is tried again with the next call.
    pub fn keep(&mut self, kept: Option<Kept>) {
        if self.kept == kept {
            return;
        }
        match self.write(kept.as_ref()) {
            Ok(()) => (self.kept, self.failing) = (kept, false),
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(%error, path = %self.path.display(), "what is asked for cannot be kept for the next start");
            }
            Err(_) => {}
        }
    }

    fn write(&self, kept: Option<&Kept>) -> io::Result<()> {
        let Some(kept) = kept else {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let text = serde_json::to_vec(&Written { version: VERSION, instance: &self.instance, kept })?;
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        fs::rename(&new, &self.path)
    }
}

fn read(path: &Path, instance: &InstanceId) -> Result<Option<Kept>, Unusable> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut text)?;
    // First whose it is: another version may look different from there on.
    let value: serde_json::Value = serde_json::from_slice(&text)?;
    let header = Header::deserialize(&value)?;
    if header.version != VERSION {
        return Err(Unusable::Version(header.version));
    }
    if header.instance != *instance {
        return Err(Unusable::Foreign(header.instance));
    }
    Ok(Some(serde_json::from_value(value)?))
}

#[cfg(test)]
mod tests {
    use enipool_crds::class::ResourceSelector;
    use enipool_crds::{Allocation, ENIPoolStatus, Operations, fixtures};
    use k8s_openapi::jiff;

    use super::*;
    use crate::status::fixture::flags;

    fn instance() -> InstanceId {
        "i-0123456789abcdef0".parse().unwrap()
    }

    fn zone() -> Zone {
        Zone::new("eu-west-1a")
    }

    fn kept(warm: i32) -> Kept {
        let mut pool = fixtures::pool_with_enis("node", 2, 9, 3);
        pool.spec.targets.warm_ip_target = Some(warm);
        pool.spec.operations = Some(Operations::NoRelease);
        pool.spec.allocation =
            Some(Allocation { class: "default".into(), addresses: 7, enis: 1, ceiling: 20, ..Allocation::default() });
        Kept::new(&pool, Some(&fixtures::default_class()), false)
    }

    #[test]
    fn the_next_start_of_the_instance_reads_what_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        WishesFile::open(dir.path(), &instance()).keep(Some(kept(2)));
        let file = WishesFile::open(dir.path(), &instance());
        assert_eq!(file.kept(), Some(&kept(2)));
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [FILE]);

        let wishes = first_wishes(&flags(), file.kept(), &zone()).engine;
        assert_eq!((wishes.policy.targets.warm_ips, wishes.ceiling, wishes.awaits_word), (Some(2), Some(20), false));
        assert_eq!(wishes.allocation.map(|allocation| allocation.addresses), Some(7), "the operator still plans");
        let alone = file.kept().unwrap().alone().wishes(&flags(), &zone()).engine;
        assert_eq!((alone.allocation, alone.ceiling), (None, Some(20)));
    }

    #[test]
    fn what_cannot_be_read_or_is_not_ours_is_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        WishesFile::open(dir.path(), &instance()).keep(Some(kept(2)));
        let whole = fs::read(&path).unwrap();
        let text = String::from_utf8(whole.clone()).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(WishesFile::open(dir.path(), &instance()).kept(), None, "cut at {cut}");
        }
        let newer = text.replace("\"version\":1", "\"version\":2");
        let garbled = text.replace("\"warmIPTarget\":2", "\"warmIPTarget\":\"two\"");
        for other in [newer.as_bytes(), garbled.as_bytes(), b"\xff\xfe", b"[]", b"{\"version\":1}"] {
            assert_ne!(other, &whole);
            fs::write(&path, other).unwrap();
            assert_eq!(WishesFile::open(dir.path(), &instance()).kept(), None, "{}", String::from_utf8_lossy(other));
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(WishesFile::open(dir.path(), &"i-0fedcba9876543210".parse().unwrap()).kept(), None);
    }

    #[test]
    fn a_write_that_died_halfway_leaves_the_last_word_whole() {
        let dir = tempfile::tempdir().unwrap();
        WishesFile::open(dir.path(), &instance()).keep(Some(kept(2)));
        fs::write(dir.path().join("wishes.new"), b"{\"version\":1,\"inst").unwrap();
        let mut file = WishesFile::open(dir.path(), &instance());
        assert_eq!(file.kept(), Some(&kept(2)));
        file.keep(Some(kept(3)));
        assert_eq!(WishesFile::open(dir.path(), &instance()).kept(), Some(&kept(3)));
    }

    #[test]
    fn the_file_is_touched_only_for_news_and_goes_when_nobody_asks_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut file = WishesFile::open(dir.path(), &instance());
        file.keep(None);
        file.keep(Some(kept(2)));
        fs::remove_file(&path).unwrap();
        file.keep(Some(kept(2)));
        assert!(!path.exists(), "no news");
        file.keep(Some(kept(3)));
        assert!(path.exists());
        file.keep(None);
        assert!(!path.exists());
        assert_eq!(WishesFile::open(dir.path(), &instance()).kept(), None);
    }

    #[test]
    fn a_write_that_fails_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("later");
        let mut file = WishesFile::open(&folder, &instance());
        file.keep(Some(kept(2)));
        assert_eq!(file.kept(), None);
        fs::create_dir(&folder).unwrap();
        file.keep(Some(kept(2)));
        assert_eq!(WishesFile::open(&folder, &instance()).kept(), Some(&kept(2)));
    }

    #[test]
    fn what_changes_all_the_time_and_bears_on_nothing_is_no_news() {
        let pool = fixtures::new_pool("node");
        let mut class = fixtures::default_class();
        class.spec.subnet_selector = Some(ResourceSelector::default());
        let subnet = |available| SubnetStatus {
            id: "subnet-1".into(),
            zone: "eu-west-1a".into(),
            available,
            ..SubnetStatus::default()
        };
        let status = |available| ENIPoolClassStatus {
            nodes: available,
            subnets: vec![subnet(available)],
            ..ENIPoolClassStatus::default()
        };
        class.status = Some(status(100));
        let before = Kept::new(&pool, Some(&class), true);
        class.status = Some(status(99));
        class.metadata.resource_version = Some("8".into());
        let mut told = pool.clone();
        told.status = Some(ENIPoolStatus::default());
        told.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(Kept::new(&told, Some(&class), true), before);
    }

    #[test]
    fn without_a_word_the_flags_serve_what_pods_need_until_one_comes() {
        let first = first_wishes(&flags(), None, &zone());
        assert!(first.engine.awaits_word);
        assert_eq!(first.host, flags().host);
        assert!(!flags().engine.awaits_word, "who needs no API server waits for nobody");
    }
}

//! What is worth an event. Pure: snapshots, drift and time go in, sentences come out.
//!
//! A cause is told once, and again only after it has been silent (or has gone on) for ten minutes. Whatever happens, a
//! node tells no more than its budget: 25 at once, then one in ten seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use enipool_pool::Timestamp;
use enipool_pool::ec2::{Action, Ec2ErrorKind};
use enipool_pool::ledger::PodRef;
use enipool_pool::node::HoldReason;

use crate::dataplane::Drift;
use crate::engine::{Notice, PoolSnapshot, Shortage, WaitingView};

/// A pod that waits for what is on its way is no news before this; EC2 mostly needs less.
const ON_ITS_WAY: Duration = Duration::from_secs(15);
/// A pod that waits for what passes by itself, mostly with EC2's next answer; a shortage of the node's, likewise.
const STANDS: Duration = Duration::from_secs(5);
/// A pod that waits for anything else.
const WAITS: Duration = Duration::from_secs(2);
/// The same cause is not told again before.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Causes remembered; more than a node has pods. Beyond it the oldest is forgotten.
const TOPICS_MAX: usize = 2048;
/// Budget of the node.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(10);
/// The API server takes 1 kB.
const NOTE_MAX: usize = 1000;

/// The object that an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    Pod(PodRef),
    /// This node's ENIPool.
    Pool,
    Node,
}

/// One event to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    pub about: About,
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// One of a closed set, in PascalCase.
    pub reason: &'static str,
    /// What was being done, likewise.
    pub action: &'static str,
    /// At most 1000 characters.
    pub note: String,
}

/// What makes two events tell the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Waits { namespace: Box<str>, name: Box<str>, uid: Box<str>, shortage: Shortage },
    Shortage(Shortage),
    Denied(Action),
    Notice(&'static str, String),
    Drift(&'static str),
}

/// Remembers what was told.
#[derive(Debug, Default)]
pub struct Teller {
    told: BTreeMap<Topic, Timestamp>,
    last_notice: Option<Notice>,
    shortage: Option<(Shortage, Timestamp)>,
    /// Drifts of each kind since the last that was told.
    drifts: BTreeMap<&'static str, u32>,
    spent: u32,
    refilled: Timestamp,
    withheld: u64,
}

impl Teller {
    /// What is new in the picture.
    pub fn look(&mut self, snapshot: &PoolSnapshot, now: Timestamp) -> Vec<Telling> {
        self.told.retain(|_, at| now.since(*at) < AGAIN_AFTER);
        let mut tellings = Vec::new();
        self.notices(snapshot, now, &mut tellings);
        self.denied(snapshot, now, &mut tellings);
        self.shortage(snapshot, now, &mut tellings);
        if let Some(shortage) = snapshot.shortage {
            for waiting in &snapshot.waiting {
                self.waiting(waiting, shortage, snapshot, now, &mut tellings);
            }
        }
        tellings
    }

    /// Somebody changed what is ours in the kernel.
    pub fn drift(&mut self, drift: &Drift, now: Timestamp) -> Option<Telling> {
        let kind = drift.kind.as_str();
        let count = self.drifts.entry(kind).or_default();
        *count = count.saturating_add(1);
        let more = count.saturating_sub(1);
        self.told.retain(|_, at| now.since(*at) < AGAIN_AFTER);
        if !self.is_new(Topic::Drift(kind), now) {
            return None;
        }
        self.drifts.remove(kind);
        let since = if more == 0 { String::new() } else { format!(" ({more} more of this kind since the last event)") };
        let (reason, what) = if drift.repaired {
            ("DriftRepaired", "Somebody changed what enipool keeps on this node; it was put right")
        } else {
            ("Drift", "Somebody changed what enipool keeps on this node")
        };
        let note = format!("{what}: {}{since}.", drift.detail);
        Some(telling(About::Node, !drift.repaired, reason, "KeepHost", note))
    }

    /// When to look again although nothing changes: a wait or a shortage comes of age.
    pub fn wake_at(&self, snapshot: &PoolSnapshot, now: Timestamp) -> Option<Timestamp> {
        let shortage = snapshot.shortage?;
        let waits = snapshot.waiting.iter().map(|waiting| waiting.since.plus(patience(shortage)));
        let stands = self.shortage.map(|(_, since)| since.plus(STANDS));
        waits.chain(stands).filter(|at| *at > now).min()
    }

    /// How often the budget kept an event back so far. It may have been told later.
    pub fn withheld(&self) -> u64 {
        self.withheld
    }

    fn notices(&mut self, snapshot: &PoolSnapshot, now: Timestamp, tellings: &mut Vec<Telling>) {
        let new = snapshot.notices_after(self.last_notice.as_ref());
        let mut kinds: BTreeMap<&'static str, (&Notice, usize)> = BTreeMap::new();
        for notice in new {
            kinds.entry(notice.kind).and_modify(|(_, more)| *more += 1).or_insert((notice, 0));
        }
        for (kind, (first, more)) in kinds {
            if !self.is_new(Topic::Notice(kind, first.text.clone()), now) {
                continue;
            }
            let Kind { about, warning, reason, action } = kind_of(kind);
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            tellings.push(telling(about, warning, reason, action, format!("{}{more}", first.text)));
        }
        if let Some(last) = snapshot.notices.last() {
            self.last_notice = Some(last.clone());
        }
    }

    fn denied(&mut self, snapshot: &PoolSnapshot, now: Timestamp, tellings: &mut Vec<Telling>) {
        let Some(error) = snapshot.last_ec2_error.as_ref().filter(|error| error.kind == Ec2ErrorKind::AccessDenied)
        else {
            return;
        };
        // An error of long ago is still the last one.
        if now.since(error.at) < AGAIN_AFTER && self.is_new(Topic::Denied(error.action), now) {
            let advice = Shortage::Hold(HoldReason::AccessDenied).advice();
            let said = error.message.as_ref().map(|message| format!(" EC2 says: {message}")).unwrap_or_default();
            let note = format!("The node's IAM role may not call ec2:{}; {advice}.{said}", error.action.name());
            tellings.push(telling(About::Pool, true, "AccessDenied", "CallEC2", note));
        }
    }

    fn shortage(&mut self, snapshot: &PoolSnapshot, now: Timestamp, tellings: &mut Vec<Telling>) {
        let Some(shortage) = snapshot.shortage else {
            self.shortage = None;
            return;
        };
        let since = match self.shortage {
            Some((same, since)) if same == shortage => since,
            _ => now,
        };
        self.shortage = Some((shortage, since));
        let pods_wait = !snapshot.waiting.is_empty();
        if !is_news(shortage, pods_wait) || now.since(since) < STANDS || !self.is_new(Topic::Shortage(shortage), now) {
            return;
        }
        let whom = match snapshot.waiting.len() {
            0 => "No pod waits yet".to_owned(),
            1 => "A pod waits".to_owned(),
            pods => format!("{pods} pods wait"),
        };
        let note =
            format!("{whom}: {}; {}. Planned: {}.", shortage.explanation(), shortage.advice(), snapshot.decision);
        tellings.push(telling(About::Pool, true, shortage.label(), "Grow", note));
    }

    fn waiting(
        &mut self,
        waiting: &WaitingView,
        shortage: Shortage,
        snapshot: &PoolSnapshot,
        now: Timestamp,
        tellings: &mut Vec<Telling>,
    ) {
        let PodRef { namespace, name, uid } = &waiting.pod;
        let waited = now.since(waiting.since);
        let (namespace, name, uid) = (namespace.clone(), name.clone(), uid.clone());
        if waited < patience(shortage) || name.is_empty() {
            return;
        }
        let why = format!("`kubectl enipool why {name} -n {namespace}` tells more");
        if !self.is_new(Topic::Waits { namespace, name, uid, shortage }, now) {
            return;
        }
        let eta = snapshot.shortage_ends.filter(|at| *at > now).map(|at| at.since(now).as_secs().max(1));
        let eta = eta.map(|seconds| format!(" (expected in {seconds} s)")).unwrap_or_default();
        let said = snapshot.shortage_detail.as_ref().map(|said| format!(" ({said})")).unwrap_or_default();
        let note = format!(
            "Has waited {} s for an address: {}{said}{eta}; {}. {why}.",
            waited.as_secs(),
            shortage.explanation(),
            shortage.advice()
        );
        let about = About::Pod(waiting.pod.clone());
        tellings.push(telling(about, !is_on_its_way(shortage), shortage.label(), "AssignAddress", note));
    }

    /// Whether the topic was not told lately and the budget allows it; then it counts as told.
    fn is_new(&mut self, topic: Topic, now: Timestamp) -> bool {
        if self.told.contains_key(&topic) {
            return false;
        }
        let refilled = now.since(self.refilled).as_millis() / REFILL.as_millis();
        if refilled > 0 {
            self.spent = self.spent.saturating_sub(u32::try_from(refilled).unwrap_or(u32::MAX));
            self.refilled = now;
        }
        if self.spent >= BURST {
            // Not told, so it may be told later, should it last.
            self.withheld = self.withheld.saturating_add(1);
            return false;
        }
        self.spent += 1;
        if self.told.len() >= TOPICS_MAX
            && let Some(oldest) = self.told.iter().min_by_key(|(_, at)| **at).map(|(topic, _)| topic.clone())
        {
            self.told.remove(&oldest);
        }
        self.told.insert(topic, now);
        true
    }
}

/// How a kind of notice is told.
struct Kind {
    about: About,
    warning: bool,
    reason: &'static str,
    action: &'static str,
}

fn kind_of(kind: &'static str) -> Kind {
    let (about, warning, reason, action) = match kind {
        "Leftover" => (About::Pool, false, "LeftoverDeleted", "CleanUp"),
        "ForgottenLease"
        | "ForgottenLeaseEnded"
        | "LeaseWithoutPod"
        | "LeaseWithoutPodEnded"
        | "HandsOff"
        | "CapacityDiffers" => (About::Pool, false, kind, "Reconcile"),
        "AttachStuck" => (About::Pool, true, kind, "Attach"),
        "HostSetUp" => (About::Node, true, "HostNotSetUp", "KeepHost"),
        // What journal, kernel and EC2 did not agree about.
        _ => (About::Pool, true, kind, "Reconcile"),
    };
    Kind { about, warning, reason, action }
}

/// Whether the pool's people should know of a shortage that stands.
fn is_news(shortage: Shortage, pods_wait: bool) -> bool {
    match shortage {
        // What the kernel refuses is told on the node, with its words.
        Shortage::Starting | Shortage::Cooling | Shortage::HostNotSetUp => false,
        Shortage::Hold(reason) => match reason {
            HoldReason::SubnetExhausted
            | HoldReason::NoContiguousPrefix
            | HoldReason::AccountLimit
            | HoldReason::NoSubnet
            | HoldReason::Throttled
            | HoldReason::CallLimit
            | HoldReason::Ec2Unavailable => true,
            // A full node is as it should be until a pod comes that it cannot take.
            HoldReason::InstanceLimit | HoldReason::MaxPods | HoldReason::Ceiling | HoldReason::Paused => pods_wait,
            // On its way, told by the call that was denied, or the instance's own end.
            HoldReason::AttachInFlight
            | HoldReason::AssignInFlight
            | HoldReason::AwaitingTurn
            | HoldReason::AccessDenied
            | HoldReason::InstanceNotRunning => false,
        },
    }
}

fn is_on_its_way(shortage: Shortage) -> bool {
    match shortage {
        Shortage::Starting | Shortage::Cooling => true,
        Shortage::HostNotSetUp => false,
        Shortage::Hold(reason) => {
            matches!(reason, HoldReason::AttachInFlight | HoldReason::AssignInFlight | HoldReason::AwaitingTurn)
        }
    }
}

fn patience(shortage: Shortage) -> Duration {
    match shortage {
        _ if is_on_its_way(shortage) => ON_ITS_WAY,
        // One refusal is none: it is tried again at once.
        Shortage::HostNotSetUp
        | Shortage::Hold(HoldReason::Ec2Unavailable | HoldReason::Throttled | HoldReason::CallLimit) => STANDS,
        _ => WAITS,
    }
}

fn telling(about: About, warning: bool, reason: &'static str, action: &'static str, mut note: String) -> Telling {
    note.truncate(note.floor_char_boundary(NOTE_MAX));
    Telling { about, warning, reason, action, note }
}

#[cfg(test)]
mod tests;

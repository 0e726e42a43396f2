//! One interface of ours in the machine, and a creation whose interface has no id yet.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use enipool_pool::eni::{Holdings, Intent};
use enipool_pool::node as planner;
use enipool_pool::{AttachmentId, ClientToken, Prefix, SecurityGroupId, Timestamp};

/// Where an interface is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Exists, not attached, nothing under way.
    Detached,
    /// AttachNetworkInterface is under way.
    Attaching,
    /// EC2 says attached; the kernel does not show it or is not set up for it.
    Attached,
    /// Serves pods.
    Ready,
    /// To be detached, then deleted.
    Detaching,
    /// To be deleted.
    Deleting,
}

impl Stage {
    pub(super) fn is_leaving(self) -> bool {
        matches!(self, Self::Detaching | Self::Deleting)
    }
    pub(super) fn is_attached(self) -> bool {
        matches!(self, Self::Attached | Self::Ready | Self::Detaching)
    }
}

/// How it is attached, as far as EC2 has said.
#[derive(Debug, Clone, Default)]
pub(super) struct Attachment {
    /// Not known after a crash or an answer that was lost, until EC2 has been asked.
    pub(super) id: Option<AttachmentId>,
    pub(super) delete_on_termination: bool,
    /// EC2 is taking it off the instance, and not because we asked: no new pods, their addresses would go with it.
    pub(super) being_detached: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// What EC2 gave it, whether the host is set up for that or not.
    pub(super) holdings: Holdings,
    pub(super) stage: Stage,
    pub(super) attachment: Attachment,
    /// When it was attached (or made, while it is not attached).
    pub(super) since: Timestamp,
    /// When our last change of it ended: answers about earlier moments may be stale.
    pub(super) changed_at: Timestamp,
    /// When EC2 was last asked about it, of the answers that came: what people do to it is seen with these.
    pub(super) looked_at: Timestamp,
    /// A conclusive look is owed: a change ended without our knowing how, or an answer contradicts.
    pub(super) doubtful: bool,
    /// The intent that made it, until fulfilled.
    pub(super) intent: Option<ClientToken>,
    /// As EC2 said last; `None`: not known.
    pub(super) security_groups: Option<BTreeSet<SecurityGroupId>>,
    /// Not to be set again before, after EC2 refused.
    pub(super) groups_retry_at: Option<Timestamp>,
    /// Became somebody else's while we had it (`no_manage`): left alone, its leases go on.
    pub(super) hands_off: Option<&'static str>,
    /// The kernel shows its link.
    pub(super) link: bool,
    /// When to begin to wait for its link again.
    pub(super) link_at: Option<Timestamp>,
    /// When to try the next step of its release again, and how often that failed.
    pub(super) retry_at: Option<Timestamp>,
    pub(super) failures: u32,
}

impl Entry {
    pub(super) fn new(holdings: Holdings, stage: Stage, now: Timestamp) -> Self {
        Self {
            holdings,
            stage,
            attachment: Attachment::default(),
            since: now,
            changed_at: now,
            looked_at: Timestamp(0),
            doubtful: false,
            intent: None,
            security_groups: None,
            groups_retry_at: None,
            hands_off: None,
            link: false,
            link_at: None,
            retry_at: None,
            failures: 0,
        }
    }

    pub(super) fn is_primary(&self) -> bool {
        self.holdings.device_index == Some(0)
    }
}

/// A creation that was begun.
#[derive(Debug, Clone)]
pub(super) struct Creation {
    pub(super) intent: Intent,
    /// A call with this intent ended without our knowing how: it may have made the interface.
    pub(super) uncertain: bool,
    pub(super) failures: u32,
    pub(super) retry_at: Option<Timestamp>,
    /// Ask EC2 by tag instead of repeating the creation: the token is too old or does not match, or the repetition was
    /// refused, which does not tell what became of the first call.
    pub(super) find: bool,
    /// When the creation was last asked for.
    pub(super) asked_at: Timestamp,
}

impl Creation {
    pub(super) fn action(&self) -> planner::Action {
        planner::Action::Create {
            subnet: self.intent.request.subnet.clone(),
            device_index: self.intent.device_index,
            supply: self.intent.request.supply,
        }
    }
}

/// An attached interface that is not ours.
#[derive(Debug, Clone)]
pub(super) struct Foreign {
    pub(super) holdings: Holdings,
    pub(super) network_card: u32,
    pub(super) because: &'static str,
    pub(super) since: Timestamp,
    /// IMDS has shown it: so its absence there says something.
    pub(super) hinted: bool,
    /// EC2 has shown it long after it was met, and not as on its way out: that does not lag.
    pub(super) confirmed: bool,
}

/// Single addresses and prefixes of one interface.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    pub(super) addresses: BTreeSet<Ipv4Addr>,
    pub(super) prefixes: BTreeSet<Prefix>,
}

impl Slots {
    pub(super) fn of(holdings: &Holdings) -> Self {
        Self { addresses: holdings.addresses.clone(), prefixes: holdings.prefixes.clone() }
    }
}

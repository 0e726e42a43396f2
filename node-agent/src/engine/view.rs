//! The picture of the pool that everybody else reads: plain data, made afresh after changes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use enipool_pool::ec2::{Action, Ec2ErrorKind};
use enipool_pool::ledger::{AddressView, AttachmentKey, Counts, PodRef, Stray};
use enipool_pool::{EniId, InstanceId, InstanceType, MacAddress, Prefix, SubnetCidr, SubnetId, Timestamp, Zone};
use ipnet::Ipv4Net;

use super::config::EffectiveConfig;
use super::error::Shortage;

/// How far the agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Not serving yet; the words say what it waits for.
    Starting(String),
    Serving,
    Stopping,
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    pub id: InstanceId,
    pub instance_type: InstanceType,
    pub zone: Zone,
    pub region: String,
    pub primary_ip: Ipv4Addr,
    pub primary_mac: MacAddress,
    /// All ranges of the VPC.
    pub vpc_cidrs: Vec<Ipv4Net>,
}

/// What the instance can hold on its default network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapacityView {
    pub enis: u32,
    /// Secondary slots of one interface (the primary address not counted).
    pub slots_per_eni: u32,
    /// Addresses for pods, with every slot as the addressing in force fills it.
    pub addresses: u32,
    pub max_pods: u32,
}

/// Where an interface is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EniState {
    /// Exists in EC2, not attached.
    Created,
    /// Attached in EC2; the kernel does not show it yet, or is not set up for it.
    Attached,
    /// Pods can have its addresses.
    Ready,
    /// Is to run empty: gets pods only when no other has room, and comes back with the next demand.
    Draining,
    /// Never gets a pod again, as its subnet is none of its class's; goes when its last one is gone.
    Retiring,
    /// On its way out: detached and deleted.
    Releasing,
    /// Attached, but not ours to use: foreign, `no_manage`, trunk, EFA, or on another network card.
    Unmanaged,
    /// We thought we had it; EC2 does not show it. Looked at again before it is given up.
    Missing,
}

impl EniState {
    pub fn label(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Attached => "Attached",
            Self::Ready => "Ready",
            Self::Draining => "Draining",
            Self::Retiring => "Retiring",
            Self::Releasing => "Releasing",
            Self::Unmanaged => "Unmanaged",
            Self::Missing => "Missing",
        }
    }
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniView {
    pub id: EniId,
    pub mac: MacAddress,
    /// `None` until attached.
    pub device_index: Option<u32>,
    pub subnet: SubnetId,
    pub subnet_cidr: Option<SubnetCidr>,
    pub primary_ip: Ipv4Addr,
    pub state: EniState,
    /// Why it is unmanaged.
    pub unmanaged_because: Option<&'static str>,
    pub prefixes: Vec<Prefix>,
    /// Single addresses, and the addresses of the prefixes.
    pub addresses: Vec<AddressView>,
    pub counts: Counts,
    /// Whether pods can get its free addresses.
    pub gives: bool,
}

/// An ADD that waits for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingView {
    pub key: AttachmentKey,
    pub pod: PodRef,
    pub since: Timestamp,
}

/// A creation that is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntentView {
    /// ClientToken, and value of the tag `enipool.dev/intent`.
    pub id: String,
    pub subnet: SubnetId,
    pub eni: Option<EniId>,
    pub since: Timestamp,
}

/// An EC2 mutation under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionView {
    pub action: Action,
    pub eni: Option<EniId>,
    pub since: Timestamp,
    /// In words: "attach eni-0a1 as device 2".
    pub text: String,
}

/// The last EC2 call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ec2ErrorView {
    pub at: Timestamp,
    pub action: Action,
    pub kind: Ec2ErrorKind,
    pub message: Option<String>,
}

/// Calls of one action since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallCounts {
    pub calls: u64,
    pub errors: u64,
    pub throttles: u64,
}

/// Something that a person should know: journal, kernel and EC2 disagreed, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub at: Timestamp,
    /// A closed set, for events and metrics: `StrayAddress`, `VanishedENI`, `ForgottenLease`, …
    pub kind: &'static str,
    pub text: String,
}

/// The whole pool at one moment.
#[derive(Debug, Clone)]
pub struct PoolSnapshot {
    pub at: Timestamp,
    /// Grows by one with each snapshot.
    pub generation: u64,
    pub phase: Phase,
    pub instance: Option<InstanceView>,
    pub capacity: Option<CapacityView>,
    /// By device index.
    pub enis: Vec<EniView>,
    /// Addresses of interfaces that are ready or will be.
    pub counts: Counts,
    /// Leases whose address EC2 says is not ours.
    pub strays: Vec<Stray>,
    pub waiting: Vec<WaitingView>,
    pub intents: Vec<IntentView>,
    pub in_progress: Vec<ActionView>,
    /// What stands between the node and the addresses that it should have; `None` when it has them.
    pub shortage: Option<Shortage>,
    /// What kernel or EC2 said of it, where that tells more than the reason.
    pub shortage_detail: Option<String>,
    /// When that may be over, where anybody can tell.
    pub shortage_ends: Option<Timestamp>,
    /// What the planner says about its last plan, for a person.
    pub decision: String,
    /// Addresses that the node should hold, by its last plan.
    pub target: u32,
    pub last_ec2_error: Option<Ec2ErrorView>,
    pub calls: BTreeMap<Action, CallCounts>,
    pub config: Arc<EffectiveConfig>,
    /// The newest of them last; at most 64.
    pub notices: Vec<Notice>,
}

impl PoolSnapshot {
    /// Addresses that a pod can have now.
    pub fn available(&self) -> u32 {
        self.enis.iter().filter(|eni| eni.gives).fold(0, |sum, eni| sum.saturating_add(eni.counts.free()))
    }

    /// The notices after `last`; all of them if it is not among them any more.
    pub fn notices_after(&self, last: Option<&Notice>) -> &[Notice] {
        let known = last.and_then(|last| self.notices.iter().rposition(|notice| notice == last));
        known.and_then(|at| self.notices.get(at + 1..)).unwrap_or(&self.notices)
    }

    pub fn throttles(&self) -> u64 {
        self.calls.values().map(|counts| counts.throttles).sum()
    }

    pub fn errors(&self) -> u64 {
        self.calls.values().map(|counts| counts.errors).sum()
    }
}

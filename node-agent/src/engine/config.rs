//! What the engine is told to aim for, after people's wishes, the class and the operator's word have been put together.

use std::collections::BTreeSet;
use std::time::Duration;

use enipool_pool::ec2::Tags;
use enipool_pool::ledger::DEFAULT_COOLDOWN;
use enipool_pool::node::AllocationView;
use enipool_pool::targets::Policy;
use enipool_pool::{SecurityGroupId, SubnetId};

/// Everything about the pool that may change while the agent runs. Whole desired state: each one replaces the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveConfig {
    pub policy: Policy,
    /// The operator's allocation; `None` while it is away: the agent then plans for itself.
    pub allocation: Option<AllocationView>,
    /// The most addresses that the node may ever hold, by the operator's last word.
    pub ceiling: Option<u32>,
    /// Pods bound to the node that need an address; `None`: not known.
    pub demand: Option<u32>,
    /// The kubelet's limit of pods; `None`: the instance type decides.
    pub max_pods: Option<u32>,
    /// Rest of an address between two pods.
    pub cooldown: Duration,
    /// Subnets for new interfaces, best first. Empty: the primary interface's.
    pub subnets: Vec<SubnetId>,
    /// Subnets that interfaces for pods belong in. One elsewhere, the primary excepted, gets no new pod and goes when its
    /// last one is gone; none is made elsewhere. `None`: anywhere.
    pub class_subnets: Option<BTreeSet<SubnetId>>,
    /// Security groups of new interfaces. Empty: the primary interface's.
    pub security_groups: Vec<SecurityGroupId>,
    /// Tags for new interfaces, besides those that the pool needs.
    pub eni_tags: Tags,
    /// Whether interfaces that somebody else attached, with no tag of ours, are used for pods.
    pub manage_untagged: bool,
    /// Whether somebody is expected to say what the node should hold, and has not yet. For the first seconds after a start
    /// the policy then serves pods' demand alone: what the flags keep warm might be what the class wants given back.
    pub awaits_word: bool,
}

impl EffectiveConfig {
    /// Whether an operator plans for the node, or did before it went away: its ceiling outlasts its allocation.
    pub fn had_operator(&self) -> bool {
        self.allocation.is_some() || self.ceiling.is_some()
    }

    /// Whether interfaces for pods may be in `subnet`.
    pub fn admits(&self, subnet: &SubnetId) -> bool {
        self.class_subnets.as_ref().is_none_or(|subnets| subnets.contains(subnet))
    }
}

impl Default for EffectiveConfig {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            allocation: None,
            ceiling: None,
            demand: None,
            max_pods: None,
            cooldown: DEFAULT_COOLDOWN,
            subnets: Vec::new(),
            class_subnets: None,
            security_groups: Vec::new(),
            eni_tags: Tags::new(),
            manage_untagged: false,
            awaits_word: false,
        }
    }
}

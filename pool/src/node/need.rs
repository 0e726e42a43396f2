//! How many addresses a node should hold: the arithmetic of the targets, for the agent and for the fleet alike.
//!
//! It knows numbers only, not which interface holds what, and nothing of time.

use std::fmt::Write as _;

use super::action::HoldReason;
use crate::address::Prefix;
use crate::capacity::Capacity;
use crate::targets::{Addressing, Policy};

/// Whole ENIs kept free where no target says otherwise (`WARM_ENI_TARGET` of the AWS plugin).
const DEFAULT_WARM_ENIS: u32 = 1;
/// Whole prefixes kept free where no target says otherwise (`WARM_PREFIX_TARGET` of the AWS plugin's chart).
const DEFAULT_WARM_PREFIXES: u32 = 1;

/// What a node has and who uses it, summed up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Addresses that pods use, on any interface and in any kind of slot.
    pub assigned: u32,
    /// Addresses that rest after use.
    pub cooling: u32,
    /// Assigned or cooling addresses outside prefixes.
    pub single_held: u32,
    /// Prefixes with an assigned or cooling address.
    pub prefixes_in_use: u32,
    /// Free addresses in those.
    pub free_in_used_prefixes: u32,
    /// Of those, on interfaces that get no pod any more: EC2 counts them, and no pod can use them.
    pub lost: u32,
    /// Interfaces that the pool may have for pods: the instance's limit without foreign and retiring ones, and without
    /// the primary where pods may not use it.
    pub enis_for_pods: u32,
    /// Slots that assigned and cooling addresses take on the pool's other interfaces.
    pub slots_elsewhere: u32,
    /// Pods bound to the node, or assigned addresses plus waiting ADDs, whichever is more.
    pub used: u32,
}

/// What a node should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    /// Addresses in all.
    pub addresses: u32,
    /// Of them in prefixes, counted in prefixes. Only with [`Addressing::Prefix`].
    pub prefixes: u32,
    /// Beside those, free addresses that no pod can use ([`Holdings::lost`]), in the prefixes that count here.
    pub lost: u32,
    /// What demand alone asks for, within the limits: used and cooling addresses.
    pub demand: u32,
    /// What demand and the minimum ask for, within the limits.
    pub minimum: u32,
    /// Never more than this, whatever is rounded up: the instance and the ceiling.
    pub most: u32,
    /// Pods that the node may run. Nothing is asked for beyond it, but that a whole /28 may pass it by up to 15 addresses.
    /// While a node goes over from one kind of slots to the other it holds both.
    pub max_pods: u32,
    /// Addresses that pods need and the limits refuse.
    pub refused: Option<(HoldReason, u32)>,
    /// The reckoning in one line.
    pub decision: String,
}

/// Reckons what a node should hold. `max_pods` is the kubelet's limit, `ceiling` the operator's.
pub fn need(
    capacity: Capacity,
    policy: &Policy,
    holdings: &Holdings,
    max_pods: Option<u32>,
    ceiling: Option<u32>,
) -> Need {
    let addressing = capacity.addressing(policy.addressing);
    let limits = Limits::new(capacity, addressing, holdings, max_pods, ceiling);
    let busy = holdings.used + holdings.cooling;
    let demand = busy.min(limits.demand);
    let targets = &policy.targets;
    let by_address = targets.warm_ips.is_some() || targets.minimum_ips.is_some();

    let (minimum, wish, words) = if by_address {
        let minimum = targets.minimum_ips.unwrap_or(0);
        let warm = targets.warm_ips.unwrap_or(0);
        (minimum, (busy + warm).max(minimum), Words::Addresses { warm, minimum })
    } else {
        let (wish, words) = whole_units(capacity, addressing, policy, holdings);
        (0, wish, words)
    };
    let mut addresses = wish.min(limits.warm).max(demand);
    let mut prefixes = 0;
    if addressing == Addressing::Prefix {
        prefixes = prefixes_for(addresses, holdings, &limits);
        let of_use = (holdings.single_held + prefixes * Prefix::SIZE).saturating_sub(holdings.lost);
        addresses = of_use.max(demand).min(limits.hard.max(demand));
    }
    let refused = (busy > demand).then_some((limits.demand_reason, busy - demand));
    let mut decision = words.tell(addresses, prefixes, holdings);
    if wish > addresses && wish > limits.warm {
        let _ = write!(decision, "; {} not kept: {}", wish - addresses.max(limits.warm), limits.warm_words());
    }
    Need {
        addresses,
        prefixes,
        lost: holdings.lost,
        demand,
        minimum: minimum.min(limits.warm).max(demand),
        most: limits.hard.saturating_add(holdings.lost),
        max_pods: limits.pods,
        refused,
        decision,
    }
}

impl Need {
    /// Addresses outside prefixes, with [`Addressing::Prefix`]: in use, or standing in where the limits leave no room for a
    /// whole /28.
    pub fn singles(&self) -> u32 {
        singles_beside(self.prefixes, self.addresses, self.lost)
    }
}

/// What of `addresses` is not in `prefixes`, in which `lost` are of no use.
pub(super) fn singles_beside(prefixes: u32, addresses: u32, lost: u32) -> u32 {
    (addresses + lost).saturating_sub(prefixes * Prefix::SIZE)
}

/// How many interfaces `addresses` (of which `prefixes` x 16 in prefixes) take, the primary included.
pub fn enis_for(capacity: Capacity, policy: &Policy, need: &Need) -> u32 {
    if capacity.slots_per_eni == 0 {
        return 1;
    }
    let slots = match capacity.addressing(policy.addressing) {
        Addressing::Secondary => need.addresses,
        Addressing::Prefix => need.prefixes + need.singles(),
        // As few as will do: Mixed takes a /28 where single addresses would need another interface.
        Addressing::Mixed => need.addresses.div_ceil(Prefix::SIZE),
    };
    let unused_primary = u32::from(!policy.use_primary_eni);
    (slots.div_ceil(capacity.slots_per_eni) + unused_primary).max(1)
}

/// `WARM_ENI_TARGET` and `WARM_PREFIX_TARGET`: whole units of free addresses.
fn whole_units(capacity: Capacity, addressing: Addressing, policy: &Policy, holdings: &Holdings) -> (u32, Words) {
    let busy = holdings.used + holdings.cooling;
    let per_eni = capacity.slots_per_eni;
    let targets = &policy.targets;
    match (addressing, targets.warm_prefixes) {
        (Addressing::Prefix, warm) => {
            let warm = warm.unwrap_or(DEFAULT_WARM_PREFIXES);
            let coming = holdings.used.saturating_sub(holdings.assigned);
            let of_use = holdings.free_in_used_prefixes.saturating_sub(holdings.lost);
            let more = coming.saturating_sub(of_use).div_ceil(Prefix::SIZE);
            let prefixes = holdings.prefixes_in_use + more + warm;
            let wish = holdings.single_held + prefixes * Prefix::SIZE;
            (wish.saturating_sub(holdings.lost), Words::Prefixes { warm })
        }
        (Addressing::Mixed, Some(warm)) => (busy + warm * Prefix::SIZE, Words::Prefixes { warm }),
        (Addressing::Mixed, None) => {
            let warm = targets.warm_enis.unwrap_or(DEFAULT_WARM_ENIS);
            (busy + warm * per_eni, Words::Enis { warm, per_eni })
        }
        (Addressing::Secondary, _) => {
            let warm = targets.warm_enis.unwrap_or(DEFAULT_WARM_ENIS);
            let wish = busy + warm * per_eni;
            let wish = if per_eni == 0 { 0 } else { wish.next_multiple_of(per_eni) };
            (wish, Words::Enis { warm, per_eni })
        }
    }
}

/// Prefixes for `addresses`, rounded up, but never through the ceiling or the instance's slots.
fn prefixes_for(addresses: u32, holdings: &Holdings, limits: &Limits) -> u32 {
    let in_prefixes = |addresses: u32| (addresses + holdings.lost).saturating_sub(holdings.single_held);
    in_prefixes(addresses).div_ceil(Prefix::SIZE).min(in_prefixes(limits.hard) / Prefix::SIZE)
}

/// The most a node may hold, and which limit it is.
struct Limits {
    /// For free addresses kept ahead of demand.
    warm: u32,
    warm_reason: HoldReason,
    /// For demand: cooling addresses serve no pod, so they do not count against max pods.
    demand: u32,
    demand_reason: HoldReason,
    /// Never above, whatever is rounded up: instance and ceiling.
    hard: u32,
    pods: u32,
    lost: u32,
}

impl Limits {
    fn new(
        capacity: Capacity,
        addressing: Addressing,
        holdings: &Holdings,
        max_pods: Option<u32>,
        ceiling: Option<u32>,
    ) -> Self {
        let slots = holdings.enis_for_pods * capacity.slots_per_eni + holdings.slots_elsewhere;
        let held_in_prefixes = (holdings.assigned + holdings.cooling).saturating_sub(holdings.single_held);
        let instance = match addressing {
            Addressing::Secondary => slots.saturating_sub(holdings.prefixes_in_use) + held_in_prefixes,
            Addressing::Prefix | Addressing::Mixed => {
                let all = slots.saturating_sub(holdings.single_held) * Prefix::SIZE + holdings.single_held;
                all.saturating_sub(holdings.lost)
            }
        };
        let pods = max_pods.unwrap_or_else(|| capacity.max_pods(addressing));
        let ceiling = ceiling.unwrap_or(u32::MAX).saturating_sub(holdings.lost);
        let hard = instance.min(ceiling);
        let hard_reason = if ceiling < instance { HoldReason::Ceiling } else { HoldReason::InstanceLimit };
        let least = |pods: u32| if pods < hard { (pods, HoldReason::MaxPods) } else { (hard, hard_reason) };
        let (warm, warm_reason) = least(pods);
        let (demand, demand_reason) = least(pods.saturating_add(holdings.cooling));
        Self { warm, warm_reason, demand, demand_reason, hard, pods, lost: holdings.lost }
    }

    fn warm_words(&self) -> String {
        match self.warm_reason {
            HoldReason::MaxPods => format!("max pods is {}", self.warm),
            HoldReason::Ceiling => format!("the ceiling is {}", self.warm + self.lost),
            _ => format!("the instance holds {}", self.warm),
        }
    }
}

/// The rule that set the figure, for the decision line.
enum Words {
    Addresses { warm: u32, minimum: u32 },
    Enis { warm: u32, per_eni: u32 },
    Prefixes { warm: u32 },
}

impl Words {
    fn tell(&self, addresses: u32, prefixes: u32, holdings: &Holdings) -> String {
        let mut text = format!("{addresses}");
        if prefixes > 0 {
            let _ = write!(text, " ({prefixes} x /28)");
        }
        let _ = write!(text, " = {} used", holdings.used);
        if holdings.cooling > 0 {
            let _ = write!(text, " + {} cooling", holdings.cooling);
        }
        let _ = match self {
            Self::Addresses { warm, minimum: 0 } => write!(text, " + {warm} warm"),
            Self::Addresses { warm, minimum } => write!(text, " + {warm} warm, at least {minimum}"),
            Self::Enis { warm: 1, per_eni } => write!(text, " + 1 warm ENI of {per_eni}"),
            Self::Enis { warm, per_eni } => write!(text, " + {warm} warm ENIs of {per_eni}"),
            Self::Prefixes { warm: 1 } => write!(text, " + 1 warm /28"),
            Self::Prefixes { warm } => write!(text, " + {warm} warm /28s"),
        };
        text
    }
}

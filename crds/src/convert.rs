//! From the objects of the API to the types of `enipool-pool`: the one place where their loose numbers and strings are
//! parsed. The API server has already refused what the schema forbids; what still does not fit is an error that names
//! the field, or the nearest value that is safe.

use std::time::Duration;

use enipool_pool::ec2::Tags;
use enipool_pool::node::AllocationView;
use enipool_pool::targets::{Policy, Targets};
use enipool_pool::{SecurityGroupId, SubnetId, Timestamp, id::IdError, targets};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{Addressing, Allocation, ENIPoolClassSpec, ENIPoolSpec, Operations, TargetFields};

/// MTU where the class names none: what AWS's jumbo frames allow.
pub const DEFAULT_MTU: u32 = 9001;
/// Cooldown where the class names none: the AWS plugin's `IP_COOLDOWN_PERIOD`.
pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(30);

impl From<Addressing> for targets::Addressing {
    fn from(addressing: Addressing) -> Self {
        match addressing {
            Addressing::Secondary => Self::Secondary,
            Addressing::Prefix => Self::Prefix,
            Addressing::Mixed => Self::Mixed,
        }
    }
}

impl From<targets::Addressing> for Addressing {
    fn from(addressing: targets::Addressing) -> Self {
        match addressing {
            targets::Addressing::Secondary => Self::Secondary,
            targets::Addressing::Prefix => Self::Prefix,
            targets::Addressing::Mixed => Self::Mixed,
        }
    }
}

impl From<Operations> for targets::Operations {
    fn from(operations: Operations) -> Self {
        match operations {
            Operations::Normal => Self::Normal,
            Operations::NoRelease => Self::NoRelease,
            Operations::NoCloud => Self::NoCloud,
        }
    }
}

/// A count that the schema keeps at zero or more.
fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

impl TargetFields {
    /// The targets as the planner takes them; zero stays zero, absent stays absent.
    pub fn targets(&self) -> Targets {
        Targets {
            warm_enis: self.warm_eni_target.map(count),
            warm_ips: self.warm_ip_target.map(count),
            minimum_ips: self.minimum_ip_target.map(count),
            warm_prefixes: self.warm_prefix_target.map(count),
            max_enis: self.max_enis.map(count),
        }
    }

    /// The fields that say what the planner's targets say.
    pub fn from_targets(targets: &Targets, addressing: targets::Addressing) -> Self {
        let field = |value: Option<u32>| value.map(|value| i32::try_from(value).unwrap_or(i32::MAX));
        Self {
            warm_eni_target: field(targets.warm_enis),
            warm_ip_target: field(targets.warm_ips),
            minimum_ip_target: field(targets.minimum_ips),
            warm_prefix_target: field(targets.warm_prefixes),
            max_enis: field(targets.max_enis),
            addressing: Some(addressing.into()),
        }
    }

    /// The warm target in force in a word or two, for the WARM column.
    pub fn summary(&self) -> String {
        match (self.warm_ip_target, self.minimum_ip_target) {
            (Some(warm), Some(minimum)) => return format!("{warm} IPs, min {minimum}"),
            (Some(warm), None) => return format!("{warm} IPs"),
            (None, Some(minimum)) => return format!("min {minimum}"),
            (None, None) => {}
        }
        let prefixes = self.addressing == Some(Addressing::Prefix)
            || (self.addressing == Some(Addressing::Mixed) && self.warm_prefix_target.is_some());
        if prefixes {
            return format!("{} /28", self.warm_prefix_target.unwrap_or(1));
        }
        match self.warm_eni_target.unwrap_or(1) {
            1 => "1 ENI".into(),
            more => format!("{more} ENIs"),
        }
    }
}

impl ENIPoolSpec {
    /// The targets in force: the pool's own where it names them, its class's elsewhere.
    pub fn effective_targets(&self, class: Option<&ENIPoolClassSpec>) -> TargetFields {
        class.map_or_else(|| self.targets.clone(), |class| self.targets.or(&class.targets))
    }

    /// All that people decide about this pool, with its class's defaults filled in.
    pub fn policy(&self, class: Option<&ENIPoolClassSpec>) -> Policy {
        let fields = self.effective_targets(class);
        Policy {
            targets: fields.targets(),
            addressing: fields.addressing.map(Into::into).unwrap_or_default(),
            operations: self.operations.unwrap_or_default().into(),
            use_primary_eni: class.is_none_or(ENIPoolClassSpec::uses_primary_eni),
        }
    }
}

impl Allocation {
    /// The allocation as the node planner follows it.
    pub fn view(&self) -> Result<AllocationView, IdError> {
        Ok(AllocationView {
            addresses: count(self.addresses),
            enis: count(self.enis),
            prefixes: count(self.prefixes),
            subnet: self.subnet_id.as_deref().map(str::parse::<SubnetId>).transpose()?,
            withheld: count(self.withheld),
        })
    }

    /// The question of the agent that the operator knew of, [`asked_at`](crate::ENIPoolStatus::asked_at).
    pub fn answers(&self) -> Option<Timestamp> {
        let asked = self.answers.as_ref()?.0.as_millisecond();
        u64::try_from(asked).ok().map(Timestamp)
    }

    /// The most addresses that the node may ever hold.
    pub fn ceiling(&self) -> u32 {
        count(self.ceiling)
    }

    /// Pods bound to the node that need an address.
    pub fn pods(&self) -> u32 {
        count(self.pods)
    }

    /// Security groups of the next ENI; none means those of the primary ENI.
    pub fn security_groups(&self) -> Result<Vec<SecurityGroupId>, IdError> {
        self.security_group_ids.iter().map(|id| id.parse()).collect()
    }
}

/// What a subnet keeps for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headroom {
    Addresses(u32),
    /// 0 to 99.
    Percent(u32),
}

impl Headroom {
    /// Addresses that this means in a subnet of `size` addresses.
    pub fn of(self, size: u32) -> u32 {
        match self {
            Self::Addresses(addresses) => addresses.min(size),
            Self::Percent(percent) => {
                let share = u64::from(size) * u64::from(percent.min(100)) / 100;
                u32::try_from(share).unwrap_or(size)
            }
        }
    }
}

/// A headroom that the rules of the CRD would have refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadroomError(pub String);

impl std::fmt::Display for HeadroomError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "headroom {:?} is neither a number of addresses nor a percentage from 0% to 99%", self.0)
    }
}

impl std::error::Error for HeadroomError {}

impl ENIPoolClassSpec {
    /// Whether pods get addresses of the primary ENI.
    pub fn uses_primary_eni(&self) -> bool {
        self.use_primary_eni.unwrap_or(true)
    }

    /// How long an address rests between two pods.
    pub fn cooldown(&self) -> Duration {
        self.cooldown_seconds.map_or(DEFAULT_COOLDOWN, |seconds| Duration::from_secs(count(seconds).into()))
    }

    /// MTU of ENIs and pods, in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu.map_or(DEFAULT_MTU, count)
    }

    /// Tags for new ENIs beside the pool's own.
    pub fn tags(&self) -> Tags {
        self.eni_tags.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect()
    }

    /// What the pool leaves untouched in each subnet.
    pub fn parsed_headroom(&self) -> Result<Headroom, HeadroomError> {
        match &self.headroom {
            None => Ok(Headroom::Addresses(0)),
            Some(IntOrString::Int(addresses)) => {
                u32::try_from(*addresses).map(Headroom::Addresses).map_err(|_| HeadroomError(addresses.to_string()))
            }
            Some(IntOrString::String(text)) => text
                .strip_suffix('%')
                .and_then(|percent| percent.parse().ok())
                .filter(|percent| *percent < 100)
                .map(Headroom::Percent)
                .ok_or_else(|| HeadroomError(text.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_a_value_and_absent_is_not() {
        let fields = TargetFields { warm_ip_target: Some(0), ..TargetFields::default() };
        assert_eq!(fields.targets(), Targets { warm_ips: Some(0), ..Targets::default() });
    }

    #[test]
    fn the_warm_column_says_which_target_is_in_force() {
        let fields = |f: fn(&mut TargetFields)| {
            let mut fields = TargetFields::default();
            f(&mut fields);
            fields.summary()
        };
        assert_eq!(fields(|_| {}), "1 ENI");
        assert_eq!(fields(|f| f.warm_eni_target = Some(2)), "2 ENIs");
        assert_eq!(fields(|f| f.warm_ip_target = Some(5)), "5 IPs");
        assert_eq!(fields(|f| f.addressing = Some(Addressing::Prefix)), "1 /28");
        let both = TargetFields { warm_ip_target: Some(2), minimum_ip_target: Some(20), ..TargetFields::default() };
        assert_eq!(both.summary(), "2 IPs, min 20");
    }

    #[test]
    fn headroom_is_a_number_or_a_share_of_the_subnet() {
        let class =
            |headroom| ENIPoolClassSpec { headroom: Some(headroom), ..ENIPoolClassSpec::default() }.parsed_headroom();
        assert_eq!(class(IntOrString::Int(100)).map(|h| h.of(251)), Ok(100));
        assert_eq!(class(IntOrString::String("5%".into())).map(|h| h.of(251)), Ok(12));
        for wrong in ["100%", "5", "-1%", "some"] {
            assert!(class(IntOrString::String(wrong.into())).is_err(), "{wrong}");
        }
        assert_eq!(ENIPoolClassSpec::default().parsed_headroom(), Ok(Headroom::Addresses(0)));
    }

    #[test]
    fn an_answer_is_the_question_again_after_its_way_through_json() {
        let asked = Timestamp(1_790_000_000_000);
        let time = k8s_openapi::jiff::Timestamp::from_millisecond(1_790_000_000_000).unwrap();
        let allocation = Allocation { answers: Some(time.into()), ..Allocation::default() };
        let sent = serde_json::to_string(&allocation).unwrap();
        assert_eq!(serde_json::from_str::<Allocation>(&sent).unwrap().answers(), Some(asked));
        assert!(!sent.contains("withheld"), "only said where there is something to say: {sent}");
    }

    #[test]
    fn an_allocation_with_a_subnet_that_is_none_is_refused() {
        let allocation = Allocation { subnet_id: Some("eni-1".into()), ..Allocation::default() };
        assert!(allocation.view().is_err());
    }
}

//! What people (ENIPool and class) and the operator (allocation) ask for, as one configuration for the engine and one for
//! the host's plumbing. Whatever cannot be read keeps its last good value, and is told.

use enipool_crds::condition::ConditionType;
use enipool_crds::{ENIPool, ENIPoolClass, Snat as SnatFields, SnatMode, TargetFields};
use enipool_pool::{SubnetId, Zone};
use ipnet::Ipv4Net;

use crate::dataplane::{Randomization, Snat};
use crate::engine::EffectiveConfig;

/// What the host's plumbing is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostWishes {
    pub snat: Snat,
    /// MTU of ENIs and pods, in bytes.
    pub mtu: u32,
}

/// All that the agent is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    pub engine: EffectiveConfig,
    pub host: HostWishes,
    /// No class matches the node, or the one that the operator names does not exist.
    pub class_missing: bool,
    /// What could not be read, in words.
    pub problems: Vec<String>,
}

/// Puts the levels together: the ENIPool's own wishes, then its class, then the agent's flags (`defaults`).
///
/// `zone`: the node's. `operator_away`: the allocation counts for nothing but its ceiling and where interfaces go, and the
/// engine plans for itself.
pub fn wishes(
    defaults: &Wishes,
    pool: Option<&ENIPool>,
    class: Option<&ENIPoolClass>,
    zone: &Zone,
    operator_away: bool,
) -> Wishes {
    let mut wishes = defaults.clone();
    let Some(pool) = pool else { return wishes };
    wishes.class_missing = class.is_none();

    if let Some(class) = class {
        let spec = &class.spec;
        wishes.engine.policy = pool.spec.policy(Some(spec));
        wishes.engine.cooldown = spec.cooldown();
        wishes.engine.eni_tags.extend(spec.tags());
        wishes.host.mtu = spec.mtu();
        if let Some(here) = subnets_of(class, zone) {
            wishes.engine.class_subnets = Some(here.iter().cloned().collect());
            wishes.engine.subnets = here;
        }
        if let Some(fields) = &spec.snat {
            match snat(fields) {
                Ok(snat) => wishes.host.snat = snat,
                Err(problem) => wishes.problems.push(format!("class {}: {problem}", class_name(class))),
            }
        }
    } else {
        // The flags stand where the class would.
        let policy = &defaults.engine.policy;
        let fields = pool.spec.targets.or(&TargetFields::from_targets(&policy.targets, policy.addressing));
        wishes.engine.policy.targets = fields.targets();
        wishes.engine.policy.addressing = fields.addressing.map_or(policy.addressing, Into::into);
        wishes.engine.policy.operations = pool.spec.operations.map_or(policy.operations, Into::into);
    }

    if let Some(allocation) = &pool.spec.allocation {
        wishes.engine.ceiling = Some(allocation.ceiling());
        match allocation.view() {
            Ok(view) => {
                if let Some(subnet) = &view.subnet {
                    wishes.engine.subnets.retain(|other| other != subnet);
                    wishes.engine.subnets.insert(0, subnet.clone());
                }
                wishes.engine.allocation = Some(view).filter(|_| !operator_away);
            }
            Err(error) => wishes.problems.push(format!("spec.allocation.subnetID: {error}")),
        }
        if !operator_away {
            wishes.engine.demand = Some(allocation.pods());
        }
        match allocation.security_groups() {
            Ok(groups) if !groups.is_empty() => wishes.engine.security_groups = groups,
            Ok(_) => {}
            Err(error) => wishes.problems.push(format!("spec.allocation.securityGroupIDs: {error}")),
        }
    }
    wishes
}

/// The class's subnets in `zone`, as the operator found them. `None`: the class chooses none, has none here, or the
/// operator has not (yet) found those that it asks for; then nothing that exists is given up for it.
fn subnets_of(class: &ENIPoolClass, zone: &Zone) -> Option<Vec<SubnetId>> {
    class.spec.subnet_selector.as_ref()?;
    let status = class.status.as_ref()?;
    let found = status.observed_generation == class.metadata.generation
        && status
            .conditions
            .iter()
            .any(|condition| condition.type_ == ConditionType::Ready.as_str() && condition.status == "True");
    let here = status.subnets.iter().filter(|subnet| found && subnet.zone == zone.as_str());
    let here: Vec<SubnetId> = here.filter_map(|subnet| subnet.id.parse().ok()).collect();
    (!here.is_empty()).then_some(here)
}

fn class_name(class: &ENIPoolClass) -> &str {
    class.metadata.name.as_deref().unwrap_or("without a name")
}

fn snat(fields: &SnatFields) -> Result<Snat, String> {
    let randomization = match fields.mode {
        SnatMode::External => return Ok(Snat::External),
        SnatMode::RandomFully => Randomization::Prng,
        SnatMode::HashRandom => Randomization::HashRandom,
        SnatMode::Sequential => Randomization::None,
    };
    let exclude = fields
        .exclude_cidrs
        .iter()
        .map(|cidr| {
            cidr.parse::<Ipv4Net>().map_err(|_| format!("snat.excludeCIDRs: {cidr:?} is no range such as 10.8.0.0/16"))
        })
        .collect::<Result<_, _>>()?;
    Ok(Snat::Primary { randomization, exclude })
}

#[cfg(test)]
mod tests {
    use enipool_crds::class::{ENIPoolClassStatus, ResourceSelector, SubnetStatus};
    use enipool_crds::condition::{self, Reason};
    use enipool_crds::{Allocation, fixtures};
    use enipool_pool::targets::Targets;

    use super::*;
    use crate::status::fixture::flags;

    fn zone() -> Zone {
        Zone::new("eu-west-1a")
    }

    /// A class that chooses subnets, with what the operator found for its second generation.
    fn choosy(generation: i64, ready: &str, subnets: &[(&str, &str)]) -> ENIPoolClass {
        let mut class = fixtures::default_class();
        class.metadata.generation = Some(2);
        class.spec.subnet_selector = Some(ResourceSelector::default());
        let subnet = |(id, zone): &(&str, &str)| SubnetStatus {
            id: (*id).into(),
            zone: (*zone).into(),
            ..SubnetStatus::default()
        };
        let mut status = ENIPoolClassStatus {
            observed_generation: Some(generation),
            subnets: subnets.iter().map(subnet).collect(),
            ..ENIPoolClassStatus::default()
        };
        let reason = Reason::AsPlanned;
        let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
        condition::set(
            &mut status.conditions,
            ConditionType::Ready,
            Some(ready == "True"),
            reason,
            String::new(),
            None,
            now,
        );
        class.status = Some(status);
        class
    }

    fn pool(edit: impl FnOnce(&mut ENIPool)) -> ENIPool {
        let mut pool = fixtures::new_pool("node");
        edit(&mut pool);
        pool
    }

    #[test]
    fn without_an_enipool_the_agent_lives_by_its_flags() {
        assert_eq!(wishes(&flags(), None, None, &zone(), true), flags());
    }

    #[test]
    fn an_edit_of_one_pool_wins_over_its_class() {
        let pool = pool(|pool| pool.spec.targets.warm_eni_target = Some(2));
        let wishes = wishes(&flags(), Some(&pool), Some(&fixtures::default_class()), &zone(), false);
        assert_eq!(wishes.engine.policy.targets.warm_enis, Some(2));
    }

    #[test]
    fn a_missing_class_is_told_and_replaced_by_the_flags() {
        let mut flags = flags();
        flags.engine.policy.targets = Targets { warm_ips: Some(3), ..Targets::default() };
        let wishes = wishes(&flags, Some(&pool(|_| {})), None, &zone(), false);
        assert!(wishes.class_missing);
        assert_eq!(wishes.engine.policy.targets.warm_ips, Some(3));
    }

    #[test]
    fn with_the_operator_away_only_its_ceiling_stands() {
        let pool = pool(|pool| {
            pool.spec.allocation = Some(Allocation { ceiling: 27, addresses: 9, enis: 1, ..Allocation::default() });
        });
        let class = fixtures::default_class();
        let present = wishes(&flags(), Some(&pool), Some(&class), &zone(), false).engine;
        assert_eq!((present.allocation.map(|a| a.addresses), present.ceiling), (Some(9), Some(27)));
        let away = wishes(&flags(), Some(&pool), Some(&class), &zone(), true).engine;
        assert_eq!((away.allocation, away.ceiling), (None, Some(27)));
    }

    #[test]
    fn pods_interfaces_belong_in_the_subnets_that_the_operator_found_for_the_class_in_this_zone() {
        let two = [("subnet-1", "eu-west-1a"), ("subnet-2", "eu-west-1b"), ("subnet-3", "eu-west-1a")];
        let asked = |class: &ENIPoolClass| wishes(&flags(), Some(&pool(|_| {})), Some(class), &zone(), true).engine;
        let here: Vec<SubnetId> = vec!["subnet-1".parse().unwrap(), "subnet-3".parse().unwrap()];
        let engine = asked(&choosy(2, "True", &two));
        assert_eq!(engine.subnets, here);
        assert_eq!(engine.class_subnets, Some(here.into_iter().collect()));

        // Not yet found, not found, none here, none chosen: what exists is not given up for that.
        let mut chooses_none = choosy(2, "True", &two);
        chooses_none.spec.subnet_selector = None;
        let elsewhere = choosy(2, "True", &two[1..2]);
        for class in [choosy(1, "True", &two), choosy(2, "False", &two), elsewhere, chooses_none] {
            assert_eq!(asked(&class).class_subnets, None, "{class:?}");
        }
    }

    #[test]
    fn with_the_operator_away_interfaces_go_where_it_said_last() {
        let pool = pool(|pool| {
            pool.spec.allocation =
                Some(Allocation { subnet_id: Some("subnet-3".into()), ceiling: 5, ..Allocation::default() });
        });
        let class = choosy(2, "True", &[("subnet-1", "eu-west-1a"), ("subnet-3", "eu-west-1a")]);
        let engine = wishes(&flags(), Some(&pool), Some(&class), &zone(), true).engine;
        assert_eq!(engine.subnets, ["subnet-3".parse().unwrap(), "subnet-1".parse().unwrap()]);
    }

    #[test]
    fn a_subnet_that_is_none_is_told_and_does_not_stop_the_rest() {
        let pool = pool(|pool| {
            pool.spec.targets.warm_ip_target = Some(4);
            pool.spec.allocation =
                Some(Allocation { subnet_id: Some("eni-1".into()), ceiling: 5, ..Allocation::default() });
        });
        let wishes = wishes(&flags(), Some(&pool), Some(&fixtures::default_class()), &zone(), false);
        assert_eq!(wishes.problems.len(), 1);
        assert_eq!(wishes.engine.policy.targets.warm_ips, Some(4));
    }
}

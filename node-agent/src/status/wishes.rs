//! What people (ENIPool and class) and the operator (allocation) ask for, as one configuration for the engine and one for
//! the host's plumbing. Whatever cannot be read keeps its last good value, and is told.

use enipool_crds::{ENIPool, ENIPoolClass, Snat as SnatFields, SnatMode, TargetFields};
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
/// `operator_away`: the allocation counts for nothing but its ceiling, and the engine plans for itself.
pub fn wishes(defaults: &Wishes, pool: Option<&ENIPool>, class: Option<&ENIPoolClass>, operator_away: bool) -> Wishes {
    let mut wishes = defaults.clone();
    let Some(pool) = pool else { return wishes };
    wishes.class_missing = class.is_none();

    match class {
        Some(class) => {
            let spec = &class.spec;
            wishes.engine.policy = pool.spec.policy(Some(spec));
            wishes.engine.cooldown = spec.cooldown();
            wishes.engine.eni_tags.extend(spec.tags());
            wishes.host.mtu = spec.mtu();
            if let Some(fields) = &spec.snat {
                match snat(fields) {
                    Ok(snat) => wishes.host.snat = snat,
                    Err(problem) => wishes.problems.push(format!("class {}: {problem}", class_name(class))),
                }
            }
        }
        None => {
            // The flags stand where the class would.
            let policy = &defaults.engine.policy;
            let fields = pool.spec.targets.or(&TargetFields::from_targets(&policy.targets, policy.addressing));
            wishes.engine.policy.targets = fields.targets();
            wishes.engine.policy.addressing = fields.addressing.map_or(policy.addressing, Into::into);
            wishes.engine.policy.operations = pool.spec.operations.map_or(policy.operations, Into::into);
        }
    }

    if let Some(allocation) = &pool.spec.allocation {
        wishes.engine.ceiling = Some(allocation.ceiling());
        if !operator_away {
            wishes.engine.demand = Some(allocation.pods());
            match allocation.view() {
                Ok(view) => wishes.engine.allocation = Some(view),
                Err(error) => wishes.problems.push(format!("spec.allocation.subnetID: {error}")),
            }
        }
        match allocation.security_groups() {
            Ok(groups) if !groups.is_empty() => wishes.engine.security_groups = groups,
            Ok(_) => {}
            Err(error) => wishes.problems.push(format!("spec.allocation.securityGroupIDs: {error}")),
        }
    }
    wishes
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
    use enipool_crds::{Allocation, fixtures};
    use enipool_pool::targets::Targets;

    use super::*;

    fn flags() -> Wishes {
        Wishes {
            engine: EffectiveConfig::default(),
            host: HostWishes {
                snat: Snat::Primary { randomization: Randomization::Prng, exclude: Vec::new() },
                mtu: 9001,
            },
            class_missing: false,
            problems: Vec::new(),
        }
    }

    fn pool(edit: impl FnOnce(&mut ENIPool)) -> ENIPool {
        let mut pool = fixtures::new_pool("node");
        edit(&mut pool);
        pool
    }

    #[test]
    fn without_an_enipool_the_agent_lives_by_its_flags() {
        assert_eq!(wishes(&flags(), None, None, true), flags());
    }

    #[test]
    fn an_edit_of_one_pool_wins_over_its_class() {
        let pool = pool(|pool| pool.spec.targets.warm_eni_target = Some(2));
        let wishes = wishes(&flags(), Some(&pool), Some(&fixtures::default_class()), false);
        assert_eq!(wishes.engine.policy.targets.warm_enis, Some(2));
    }

    #[test]
    fn a_missing_class_is_told_and_replaced_by_the_flags() {
        let mut flags = flags();
        flags.engine.policy.targets = Targets { warm_ips: Some(3), ..Targets::default() };
        let wishes = wishes(&flags, Some(&pool(|_| {})), None, false);
        assert!(wishes.class_missing);
        assert_eq!(wishes.engine.policy.targets.warm_ips, Some(3));
    }

    #[test]
    fn with_the_operator_away_only_its_ceiling_stands() {
        let pool = pool(|pool| {
            pool.spec.allocation = Some(Allocation { ceiling: 27, addresses: 9, enis: 1, ..Allocation::default() });
        });
        let class = fixtures::default_class();
        let present = wishes(&flags(), Some(&pool), Some(&class), false).engine;
        assert_eq!((present.allocation.map(|a| a.addresses), present.ceiling), (Some(9), Some(27)));
        let away = wishes(&flags(), Some(&pool), Some(&class), true).engine;
        assert_eq!((away.allocation, away.ceiling), (None, Some(27)));
    }

    #[test]
    fn a_subnet_that_is_none_is_told_and_does_not_stop_the_rest() {
        let pool = pool(|pool| {
            pool.spec.targets.warm_ip_target = Some(4);
            pool.spec.allocation =
                Some(Allocation { subnet_id: Some("eni-1".into()), ceiling: 5, ..Allocation::default() });
        });
        let wishes = wishes(&flags(), Some(&pool), Some(&fixtures::default_class()), false);
        assert_eq!(wishes.problems.len(), 1);
        assert_eq!(wishes.engine.policy.targets.warm_ips, Some(4));
    }
}

//! What instance types can hold: AWS's figures, from the table of `pool::capacity`, and the few types with several
//! network cards from a table of our own.

use enipool_pool::InstanceType;
use enipool_pool::capacity::{bundled, bundled_types};
use enipool_pool::ec2::InstanceTypeLimits;

const CARDS: &str = include_str!("../../data/network-cards.txt");

/// One instance type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeInfo {
    pub name: InstanceType,
    /// Of the default network card.
    pub limits: InstanceTypeLimits,
    /// Interfaces that each network card takes.
    pub enis_per_card: Vec<u32>,
    pub default_card: u32,
}

impl TypeInfo {
    /// EC2's `hypervisor`; bare metal has none.
    pub fn hypervisor(&self) -> Option<&'static str> {
        match (self.is_bare_metal(), self.limits.supports_prefixes) {
            (true, _) => None,
            (false, true) => Some("nitro"),
            (false, false) => Some("xen"),
        }
    }

    pub fn is_bare_metal(&self) -> bool {
        self.name.as_str().split_once('.').is_some_and(|(_, size)| size.starts_with("metal"))
    }

    /// EC2's `maximumNetworkInterfaces`: of all cards together.
    pub fn max_enis(&self) -> u32 {
        self.enis_per_card.iter().sum()
    }
}

/// `None`: EC2 has no such type.
pub fn find(name: &InstanceType) -> Option<TypeInfo> {
    let limits = bundled(name)?;
    let several = CARDS.lines().find_map(|line| {
        let mut fields = line.strip_prefix(name.as_str())?.strip_prefix(' ')?.split(' ');
        let default_card = fields.next()?.parse().ok()?;
        let cards = fields.next()?.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>().ok()?;
        Some((default_card, cards))
    });
    let (default_card, enis_per_card) = several.unwrap_or_else(|| (0, vec![limits.max_enis]));
    Some(TypeInfo { name: name.clone(), limits, enis_per_card, default_card })
}

/// Every type that the table has.
pub fn all() -> impl Iterator<Item = TypeInfo> {
    bundled_types().filter_map(|name| find(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_the_table_has_cards_that_agree_with_its_limits() {
        let types: Vec<_> = all().collect();
        assert!(types.len() > 1000, "{}", types.len());
        for info in types {
            let default = info.enis_per_card[info.default_card as usize];
            assert_eq!(default, info.limits.max_enis, "{}", info.name);
        }
    }

    #[test]
    fn well_known_types_have_their_published_figures() {
        let of = |name: &str| find(&InstanceType::new(name)).unwrap();
        assert_eq!((of("m5.large").max_enis(), of("m5.large").limits.ipv4_per_eni), (3, 10));
        assert_eq!(of("p5.48xlarge").enis_per_card.len(), 32);
        assert_eq!((of("p5.48xlarge").max_enis(), of("p5.48xlarge").limits.max_enis), (64, 2));
        assert_eq!(of("m5.metal").hypervisor(), None);
        assert_eq!(of("m4.large").hypervisor(), Some("xen"));
        assert_eq!(find(&InstanceType::new("m5.enormous")), None);
    }
}

//! What an instance type can hold, with a bundled table behind DescribeInstanceTypes.
//!
//! Only the default network card counts. The table serves where EC2 cannot be asked (no permission, API away); a type
//! that it does not know has to be described.

use crate::address::Prefix;
use crate::ec2::InstanceTypeLimits;
use crate::id::InstanceType;
use crate::targets::Addressing;

/// AWS's answers to DescribeInstanceTypes, one line a family; made by `data/generate-instance-types.py`.
const TABLE: &str = include_str!("../data/instance-types.txt");

/// Pods advised on an instance with prefixes: below 30 vCPUs, and from there on
/// ([EKS best practices: prefix mode](https://docs.aws.amazon.com/eks/latest/best-practices/prefix-mode-linux.html)).
const PREFIX_PODS: [u32; 2] = [110, 250];

/// What one instance can hold on its default network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Capacity {
    /// Interfaces, the primary included.
    pub max_enis: u32,
    /// Slots of one interface: places for a secondary address or a /28; the primary address is not among them.
    pub slots_per_eni: u32,
    /// Whether a slot may hold a /28.
    pub supports_prefixes: bool,
    /// Pods that EKS advises with prefixes: 110 below 30 vCPUs, else 250.
    pub advised_prefix_pods: u32,
}

impl Capacity {
    pub fn new(limits: &InstanceTypeLimits) -> Self {
        Self {
            max_enis: limits.max_enis,
            slots_per_eni: limits.ipv4_per_eni.saturating_sub(1),
            supports_prefixes: limits.supports_prefixes,
            advised_prefix_pods: PREFIX_PODS[usize::from(limits.vcpus >= 30)],
        }
    }

    /// Slots of the whole instance.
    pub fn slots(self) -> u32 {
        self.max_enis.saturating_mul(self.slots_per_eni)
    }

    /// Addresses of one interface whose slots all hold prefixes.
    pub fn prefix_addresses_per_eni(self) -> u32 {
        self.slots_per_eni.saturating_mul(Prefix::SIZE)
    }

    /// How slots are really filled: prefixes need a Nitro instance.
    pub fn addressing(self, asked: Addressing) -> Addressing {
        if self.supports_prefixes { asked } else { Addressing::Secondary }
    }

    /// Pods with an address of their own, where nobody has set a limit. `hostNetwork` pods are not among them: the
    /// kubelet's `maxPods` is commonly this plus two.
    pub fn max_pods(self, addressing: Addressing) -> u32 {
        match self.addressing(addressing) {
            Addressing::Secondary => self.slots(),
            Addressing::Prefix | Addressing::Mixed => {
                self.slots().saturating_mul(Prefix::SIZE).min(self.advised_prefix_pods)
            }
        }
    }
}

/// The bundled limits of `instance_type`; `None` if it came out after this version.
pub fn bundled(instance_type: &InstanceType) -> Option<InstanceTypeLimits> {
    let (family, size) = instance_type.as_str().split_once('.')?;
    let line = family_line(family)?;
    let entry = line.split(' ').find_map(|entry| entry.strip_prefix(size)?.strip_prefix(':'))?;
    let (entry, supports_prefixes) = entry.strip_suffix('-').map_or((entry, true), |entry| (entry, false));
    let (enis, rest) = entry.split_once('x')?;
    let (addresses, vcpus) = rest.split_once('/')?;
    Some(InstanceTypeLimits {
        instance_type: instance_type.clone(),
        max_enis: enis.parse().ok()?,
        ipv4_per_eni: addresses.parse().ok()?,
        supports_prefixes,
        vcpus: vcpus.parse().ok()?,
    })
}

/// Every instance type of the table.
pub fn bundled_types() -> impl Iterator<Item = InstanceType> {
    TABLE.lines().filter(|line| !line.starts_with('#')).flat_map(|line| {
        let (family, sizes) = line.split_once(' ').unwrap_or((line, ""));
        sizes.split(' ').filter_map(move |entry| {
            let (size, _) = entry.split_once(':')?;
            Some(InstanceType::new(format!("{family}.{size}")))
        })
    })
}

/// The sizes of a family, by binary search in the text itself: nothing is parsed that is not asked for.
fn family_line(family: &str) -> Option<&'static str> {
    let mut rest = TABLE;
    while let Some(comment) = rest.strip_prefix('#') {
        rest = comment.split_once('\n')?.1;
    }
    while !rest.is_empty() {
        let middle = rest.floor_char_boundary(rest.len() / 2);
        let start = rest[..middle].rfind('\n').map_or(0, |newline| newline + 1);
        let end = rest[middle..].find('\n').map_or(rest.len(), |newline| middle + newline);
        let line = &rest[start..end];
        let (name, sizes) = line.split_once(' ')?;
        match family.cmp(name) {
            std::cmp::Ordering::Equal => return Some(sizes),
            std::cmp::Ordering::Less => rest = &rest[..start],
            std::cmp::Ordering::Greater => rest = rest.get(end + 1..).unwrap_or(""),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(name: &str) -> (u32, u32, bool, u32) {
        let limits = bundled(&InstanceType::new(name)).unwrap();
        (limits.max_enis, limits.ipv4_per_eni, limits.supports_prefixes, limits.vcpus)
    }

    fn capacity(name: &str) -> Capacity {
        Capacity::new(&bundled(&InstanceType::new(name)).unwrap())
    }

    #[test]
    fn the_bundled_table_gives_the_default_network_card_only() {
        assert_eq!(limits("m5.large"), (3, 10, true, 2));
        assert_eq!(limits("p4d.24xlarge"), (15, 50, true, 96), "60 interfaces on four cards");
        assert_eq!(limits("p5.48xlarge"), (2, 50, true, 192), "64 interfaces on 32 cards");
    }

    #[test]
    fn a_type_that_is_not_nitro_takes_no_prefixes_whatever_was_asked_for() {
        assert_eq!(limits("m4.large"), (2, 10, false, 2));
        assert_eq!(capacity("m4.large").addressing(Addressing::Prefix), Addressing::Secondary);
        assert_eq!(capacity("m5.large").addressing(Addressing::Prefix), Addressing::Prefix);
        assert!(limits("a1.metal").2, "bare metal takes prefixes");
    }

    #[test]
    fn max_pods_follow_the_documented_formulas() {
        // ENIs x (addresses - 1); AWS's published figures add two for hostNetwork pods.
        for (name, pods) in [
            ("t3.nano", 4),
            ("t3.small", 11),
            ("t3.medium", 17),
            ("m5.large", 29),
            ("m5.xlarge", 58),
            ("m5.4xlarge", 234),
            ("m4.4xlarge", 234),
            ("c5n.18xlarge", 737),
            ("p3dn.24xlarge", 737),
            ("p4d.24xlarge", 737),
            ("p5.48xlarge", 100),
            ("m7g.medium", 8),
            ("c6in.32xlarge", 394),
        ] {
            assert_eq!(capacity(name).max_pods(Addressing::Secondary) + 2, pods, "{name}");
        }
        assert_eq!(capacity("m5.large").max_pods(Addressing::Prefix), 110);
        assert_eq!(capacity("m5.8xlarge").max_pods(Addressing::Mixed), 250);
        assert_eq!(capacity("t3.nano").max_pods(Addressing::Prefix), 32, "two interfaces with one slot each");
        assert_eq!(capacity("m4.4xlarge").max_pods(Addressing::Prefix), 232, "no prefixes there");
    }

    #[test]
    fn every_type_of_the_table_is_found_and_makes_sense() {
        let mut count = 0;
        for instance_type in bundled_types() {
            let limits = bundled(&instance_type).unwrap_or_else(|| panic!("{instance_type} is listed but not found"));
            assert!((1..=100).contains(&limits.max_enis), "{instance_type}");
            assert!((2..=128).contains(&limits.ipv4_per_eni), "{instance_type}");
            assert!(limits.vcpus > 0, "{instance_type}");
            count += 1;
        }
        assert!(count > 1300, "{count} types");
    }

    #[test]
    fn an_unknown_type_is_unknown_rather_than_a_guess() {
        for name in ["m5.huge", "zz9.large", "", "m5", "a", "m5.larg", ".large", "#.x"] {
            assert_eq!(bundled(&InstanceType::new(name)), None, "{name}");
        }
    }
}

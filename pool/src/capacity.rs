//! What an instance type can hold, with a bundled table behind DescribeInstanceTypes.

use crate::address::Prefix;
use crate::ec2::InstanceTypeLimits;

/// What one instance can hold on its default network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Capacity {
    /// Interfaces, the primary included.
    pub max_enis: u32,
    /// Slots of one interface: places for a secondary address or a /28; the primary address is not among them.
    pub slots_per_eni: u32,
    /// Whether a slot may hold a /28.
    pub supports_prefixes: bool,
    /// Pods that EKS advises with prefixes: 110 below 30 vCPUs, else 250
    /// ([EKS best practices: prefix mode](https://docs.aws.amazon.com/eks/latest/best-practices/prefix-mode-linux.html)).
    pub advised_prefix_pods: u32,
}

impl Capacity {
    pub fn new(limits: &InstanceTypeLimits) -> Self {
        Self {
            max_enis: limits.max_enis,
            slots_per_eni: limits.ipv4_per_eni.saturating_sub(1),
            supports_prefixes: limits.supports_prefixes,
            advised_prefix_pods: if limits.vcpus < 30 { 110 } else { 250 },
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
}

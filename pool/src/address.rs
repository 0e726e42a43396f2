//! Addresses of a VPC: /28 prefixes and subnet ranges, with the rules that AWS lays down for them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// A /28 that EC2 delegates to an interface: sixteen addresses in one of its slots, aligned on sixteen.
///
/// All sixteen are for pods; none is reserved
/// ([Assign prefixes to network interfaces](https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-prefix-eni.html)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(Ipv4Addr);

impl Prefix {
    /// Addresses in one prefix.
    pub const SIZE: u32 = 16;

    /// The prefix that holds `address`.
    pub fn containing(address: Ipv4Addr) -> Self {
        Self(Ipv4Addr::from_bits(address.to_bits() & !(Self::SIZE - 1)))
    }

    pub fn first(self) -> Ipv4Addr {
        self.0
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        Self::containing(address) == self
    }

    pub fn addresses(self) -> impl ExactSizeIterator<Item = Ipv4Addr> + Clone {
        let first = self.0.to_bits();
        // An aligned prefix never wraps: its last address is first + 15.
        (0..16u32).map(move |offset| Ipv4Addr::from_bits(first + offset))
    }
}

/// Text that is not an aligned /28.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a delegated prefix: expected an aligned IPv4 /28 such as 10.0.1.16/28")]
pub struct PrefixError(String);

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        match text.parse::<Ipv4Net>() {
            Ok(net) if net.prefix_len() == 28 && net.network() == net.addr() => Ok(Self(net.addr())),
            _ => Err(PrefixError(text.into())),
        }
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;
    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/28", self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The range of a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubnetCidr(pub Ipv4Net);

impl SubnetCidr {
    /// The VPC router: the network address plus one
    /// ([Subnet CIDR blocks](https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html)).
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.network().to_bits().saturating_add(1))
    }

    /// Whether AWS keeps `address` for itself: the first four and the last of every subnet
    /// ([Subnet CIDR blocks](https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html)).
    pub fn is_reserved(self, address: Ipv4Addr) -> bool {
        let offset = address.to_bits().wrapping_sub(self.0.network().to_bits());
        self.0.contains(&address) && (offset < 4 || address == self.0.broadcast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_aligned_and_holds_sixteen_addresses() {
        let prefix: Prefix = "10.0.1.16/28".parse().unwrap();
        assert_eq!(prefix.addresses().len(), 16);
        assert!(prefix.addresses().all(|address| prefix.contains(address)));
        assert!(!prefix.contains(Ipv4Addr::new(10, 0, 1, 32)));
        for wrong in ["10.0.1.17/28", "10.0.1.16/27", "10.0.1.16", "fd00::/28"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
        assert_eq!(Prefix::containing(Ipv4Addr::BROADCAST).addresses().last(), Some(Ipv4Addr::BROADCAST));
    }

    #[test]
    fn the_first_four_addresses_and_the_last_of_a_subnet_belong_to_aws() {
        let cidr = SubnetCidr("10.0.1.0/24".parse().unwrap());
        let reserved: Vec<_> =
            cidr.0.hosts().chain([cidr.0.network(), cidr.0.broadcast()]).filter(|a| cidr.is_reserved(*a)).collect();
        assert_eq!(reserved.len(), 5);
        assert_eq!(cidr.gateway(), Ipv4Addr::new(10, 0, 1, 1));
        assert!(!cidr.is_reserved(Ipv4Addr::new(10, 0, 2, 0)), "an address of another subnet is not ours to reserve");
    }
}

//! The address map of one subnet: which addresses are taken, which may be handed out, where a whole /28 is left.
//!
//! Reserved: the first four and the last ([Subnet CIDR blocks](https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html)).
//! EC2 picks single addresses from anywhere in the range, which is what fragments a subnet.

use std::net::Ipv4Addr;

use enipool_pool::{Prefix, SubnetCidr};

use super::rng::Rng;

/// How single addresses and prefixes are picked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// Anywhere in the subnet, as EC2 does.
    #[default]
    Random,
    /// The lowest free one: for tests that want to know addresses beforehand.
    Lowest,
}

/// Taken and free addresses of a subnet between /16 and /28.
#[derive(Debug, Clone)]
pub struct AddressMap {
    cidr: SubnetCidr,
    taken: Vec<bool>,
    /// Taken addresses in each aligned /28.
    block_taken: Vec<u8>,
    free: u32,
    free_blocks: u32,
    pick: Pick,
}

const BLOCK: u32 = Prefix::SIZE;

impl AddressMap {
    pub fn new(cidr: SubnetCidr, pick: Pick) -> Self {
        let size = 1u32 << (32 - u32::from(cidr.0.prefix_len()).min(32)).min(20);
        let blocks = size.div_ceil(BLOCK);
        let mut map = Self {
            cidr,
            taken: vec![false; size as usize],
            block_taken: vec![0; blocks as usize],
            free: size,
            free_blocks: blocks,
            pick,
        };
        for offset in 0..size {
            if cidr.is_reserved(map.at(offset)) {
                map.set(offset, true);
            }
        }
        map
    }

    pub fn free(&self) -> u32 {
        self.free
    }

    /// Aligned /28s that are wholly free.
    pub fn free_prefixes(&self) -> u32 {
        self.free_blocks
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.cidr.0.contains(&address)
    }

    pub fn is_taken(&self, address: Ipv4Addr) -> bool {
        self.offset(address).is_none_or(|offset| self.taken[offset as usize])
    }

    /// Takes one address that is free; `None` when the subnet is full.
    pub fn take_any(&mut self, rng: &mut Rng) -> Option<Ipv4Addr> {
        if self.free == 0 {
            return None;
        }
        let size = self.size();
        let offset = search(size, self.pick, rng, |offset| !self.taken[offset as usize])?;
        self.set(offset, true);
        Some(self.at(offset))
    }

    /// Takes this address; `false` if it is taken, reserved or outside the subnet.
    pub fn take(&mut self, address: Ipv4Addr) -> bool {
        match self.offset(address) {
            Some(offset) if !self.taken[offset as usize] => {
                self.set(offset, true);
                true
            }
            _ => false,
        }
    }

    pub fn give_back(&mut self, address: Ipv4Addr) {
        if let Some(offset) = self.offset(address)
            && !self.cidr.is_reserved(address)
            && self.taken[offset as usize]
        {
            self.set(offset, false);
        }
    }

    /// Takes a whole aligned /28; `None` when none is left, however many single addresses are.
    pub fn take_any_prefix(&mut self, rng: &mut Rng) -> Option<Prefix> {
        if self.free_blocks == 0 {
            return None;
        }
        let blocks = self.size() / BLOCK;
        let block = search(blocks, self.pick, rng, |block| self.block_taken[block as usize] == 0)?;
        let prefix = Prefix::containing(self.at(block * BLOCK));
        self.take_prefix(prefix).then_some(prefix)
    }

    /// Takes this /28; `false` if any of it is taken, reserved or outside the subnet.
    pub fn take_prefix(&mut self, prefix: Prefix) -> bool {
        let free = prefix.addresses().all(|address| !self.is_taken(address));
        if free {
            for address in prefix.addresses() {
                self.take(address);
            }
        }
        free
    }

    pub fn give_back_prefix(&mut self, prefix: Prefix) {
        for address in prefix.addresses() {
            self.give_back(address);
        }
    }

    fn size(&self) -> u32 {
        u32::try_from(self.taken.len()).unwrap_or(u32::MAX)
    }

    fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.cidr.0.network().to_bits().wrapping_add(offset))
    }

    fn offset(&self, address: Ipv4Addr) -> Option<u32> {
        self.contains(address).then(|| address.to_bits() - self.cidr.0.network().to_bits())
    }

    fn set(&mut self, offset: u32, taken: bool) {
        self.taken[offset as usize] = taken;
        let block = &mut self.block_taken[(offset / BLOCK) as usize];
        if taken {
            self.free_blocks -= u32::from(*block == 0);
            *block += 1;
            self.free -= 1;
        } else {
            *block -= 1;
            self.free_blocks += u32::from(*block == 0);
            self.free += 1;
        }
    }
}

/// Finds a place below `size`: some random tries, then from a random place onwards, so that a nearly full map costs one scan.
fn search(size: u32, pick: Pick, rng: &mut Rng, fits: impl Fn(u32) -> bool) -> Option<u32> {
    if pick == Pick::Lowest {
        return (0..size).find(|&place| fits(place));
    }
    for _ in 0..8 {
        let place = rng.below(size);
        if fits(place) {
            return Some(place);
        }
    }
    let start = rng.below(size);
    (start..size).chain(0..start).find(|&place| fits(place))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use crate::model::rng::Rng;

    use super::*;

    fn map(cidr: &str, pick: Pick) -> AddressMap {
        AddressMap::new(SubnetCidr(cidr.parse().unwrap()), pick)
    }

    #[test]
    fn a_24_has_251_addresses_and_14_prefixes() {
        let fresh = map("10.0.1.0/24", Pick::Random);
        assert_eq!(fresh.free(), 251);
        assert_eq!(fresh.free_prefixes(), 14, "the first and the last /28 hold reserved addresses");
    }

    #[test]
    fn all_addresses_are_handed_out_once_and_then_no_more() {
        let mut rng = Rng::new(1, "test");
        let mut full = map("10.0.1.0/26", Pick::Random);
        let taken: BTreeSet<_> = std::iter::from_fn(|| full.take_any(&mut rng)).collect();
        assert_eq!(taken.len(), 59);
        assert!(taken.iter().all(|a| !full.cidr.is_reserved(*a)));
        assert_eq!((full.free(), full.take_any(&mut rng)), (0, None));
    }

    #[test]
    fn scattered_addresses_leave_no_prefix_although_most_of_the_subnet_is_free() {
        let mut rng = Rng::new(1, "test");
        let mut scattered = map("10.0.0.0/22", Pick::Random);
        for block in 0..64 {
            assert!(scattered.take(Ipv4Addr::from_bits(0x0a00_0000 + block * 16 + 8)));
        }
        assert_eq!(scattered.take_any_prefix(&mut rng), None);
        assert!(scattered.free() > 900);
        scattered.give_back("10.0.1.8".parse().unwrap());
        assert_eq!(scattered.take_any_prefix(&mut rng), Some("10.0.1.0/28".parse().unwrap()));
    }

    #[test]
    fn reserved_addresses_cannot_be_taken_or_given_back() {
        let mut fresh = map("10.0.1.0/28", Pick::Lowest);
        for last in [0, 1, 2, 3, 15] {
            let address = Ipv4Addr::new(10, 0, 1, last);
            assert!(!fresh.take(address));
            fresh.give_back(address);
            assert!(fresh.is_taken(address));
        }
        assert_eq!(fresh.free(), 11);
        assert!(!fresh.take(Ipv4Addr::new(10, 0, 2, 5)), "outside");
    }

    proptest! {
        #[test]
        fn the_map_agrees_with_a_plain_set(seed: u64, steps in prop::collection::vec((0u8..4, 0u32..4096), 1..300)) {
            let mut rng = Rng::new(seed, "test");
            let cidr = SubnetCidr("10.0.0.0/24".parse().unwrap());
            let mut map = AddressMap::new(cidr, Pick::Random);
            let mut singles: Vec<Ipv4Addr> = Vec::new();
            let mut prefixes: Vec<Prefix> = Vec::new();
            for (step, place) in steps {
                match step {
                    0 => singles.extend(map.take_any(&mut rng)),
                    1 => prefixes.extend(map.take_any_prefix(&mut rng)),
                    2 if !singles.is_empty() => {
                        map.give_back(singles.swap_remove(place as usize % singles.len()));
                    }
                    3 if !prefixes.is_empty() => {
                        map.give_back_prefix(prefixes.swap_remove(place as usize % prefixes.len()));
                    }
                    _ => {}
                }
                let all: Vec<_> =
                    singles.iter().copied().chain(prefixes.iter().flat_map(|p| p.addresses())).collect();
                let unique: BTreeSet<_> = all.iter().copied().collect();
                prop_assert_eq!(unique.len(), all.len(), "an address has two owners");
                prop_assert!(unique.iter().all(|a| cidr.0.contains(a) && !cidr.is_reserved(*a)));
                prop_assert_eq!(map.free() as usize, 251 - unique.len());
                let whole = (1..15u32).filter(|block| {
                    unique.iter().all(|address| (address.to_bits() - 0x0a00_0000) / 16 != *block)
                });
                prop_assert_eq!(map.free_prefixes() as usize, whole.count());
            }
        }
    }
}

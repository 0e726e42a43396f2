//! Secondary addresses and /28 prefixes of interfaces: assign, unassign, and what a new interface takes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use enipool_pool::{EniId, Prefix, SubnetId};

use super::Model;
use super::error::ApiError;
use super::event::Event;
use super::request::{Assign, AssignedAddresses, Response, Unassign, Wanted};
use super::resource::{Interface, SubnetRecord};
use super::rng::Rng;

/// Most addresses and prefixes that an interface not yet attached can take: the largest instance types hold 50 per
/// interface, the primary included.
const MAX_UNATTACHED: u32 = 50;

/// What a new interface takes from its subnet.
pub(super) struct TakenForNew {
    pub(super) primary: Ipv4Addr,
    pub(super) secondary: AssignedAddresses,
}

impl Wanted {
    fn is_nothing(&self) -> bool {
        self.addresses.is_empty()
            && self.prefixes.is_empty()
            && self.address_count.unwrap_or(0) == 0
            && self.prefix_count.unwrap_or(0) == 0
    }

    fn slots(&self) -> u32 {
        let explicit = u32::try_from(self.addresses.len() + self.prefixes.len()).unwrap_or(u32::MAX);
        explicit.saturating_add(self.address_count.unwrap_or(0)).saturating_add(self.prefix_count.unwrap_or(0))
    }

    /// Addresses of the subnet that this uses up, a prefix counting as sixteen.
    fn addresses_needed(&self) -> u32 {
        let named = self.addresses.len().saturating_add(self.prefixes.len().saturating_mul(16));
        let prefixes = self.prefix_count.unwrap_or(0).saturating_mul(Prefix::SIZE);
        u32::try_from(named)
            .unwrap_or(u32::MAX)
            .saturating_add(self.address_count.unwrap_or(0))
            .saturating_add(prefixes)
    }

    /// EC2 takes addresses by name or by number, prefixes by name or by number, and not both kinds by number.
    fn check(&self) -> Result<(), ApiError> {
        let clash = |one: &str, other: &str| {
            Err(ApiError::invalid_combination(format!("The parameters {one} and {other} cannot be used together")))
        };
        if !self.addresses.is_empty() && self.address_count.is_some() {
            return clash("privateIpAddresses", "secondaryPrivateIpAddressCount");
        }
        if !self.prefixes.is_empty() && self.prefix_count.is_some() {
            return clash("ipv4Prefixes", "ipv4PrefixCount");
        }
        let addresses = !self.addresses.is_empty() || self.address_count.is_some_and(|count| count > 0);
        let prefixes = !self.prefixes.is_empty() || self.prefix_count.is_some_and(|count| count > 0);
        if addresses && prefixes {
            return clash("secondaryPrivateIpAddressCount", "ipv4PrefixCount");
        }
        Ok(())
    }
}

impl Model {
    pub(super) fn take_for_new_interface(
        &mut self,
        subnet: &SubnetId,
        primary: Option<Ipv4Addr>,
        secondary: &Wanted,
    ) -> Result<TakenForNew, ApiError> {
        secondary.check()?;
        if secondary.slots() >= MAX_UNATTACHED {
            return Err(address_limit());
        }
        let record = self.subnets.get_mut(subnet).ok_or_else(|| ApiError::subnet_not_found(subnet.as_str()))?;
        if secondary.addresses_needed().saturating_add(1) > record.map.free() {
            return Err(ApiError::more_than_free());
        }
        let primary = match primary {
            Some(address) => {
                check_address(record, address)?;
                if !record.map.take(address) {
                    return Err(in_use(address));
                }
                address
            }
            None => record.map.take_any(&mut self.address_rng).ok_or_else(ApiError::more_than_free)?,
        };
        match take(record, &mut self.address_rng, secondary) {
            Ok(secondary) => Ok(TakenForNew { primary, secondary }),
            Err(error) => {
                record.map.give_back(primary);
                Err(error)
            }
        }
    }

    pub(super) fn assign_addresses(&mut self, assign: &Assign) -> Result<Response, ApiError> {
        let wanted = &assign.wanted;
        wanted.check()?;
        if wanted.is_nothing() {
            return Err(ApiError::missing("secondaryPrivateIpAddressCount"));
        }
        let interface = self.found_interface(&assign.interface)?.clone();
        // What the interface has already is no error and takes no slot.
        let new = Wanted {
            addresses: wanted.addresses.iter().copied().filter(|a| !interface.addresses().any(|h| h == *a)).collect(),
            prefixes: wanted.prefixes.iter().copied().filter(|p| !interface.prefixes.contains(p)).collect(),
            ..wanted.clone()
        };
        let limits = interface
            .attachment
            .as_ref()
            .and_then(|attachment| self.instances.get(&attachment.instance))
            .map(|instance| &instance.info.limits);
        if limits.is_some_and(|limits| !limits.supports_prefixes) && new.slots() > 0 && has_prefixes(&new) {
            return Err(prefixes_unsupported());
        }
        let slots = limits.map_or(MAX_UNATTACHED, |limits| limits.ipv4_per_eni);
        if interface.slots().saturating_add(new.slots()) > slots {
            return Err(address_limit());
        }
        let moved = if assign.allow_reassignment { self.owners(&interface, &new.addresses) } else { BTreeMap::new() };
        let record = self.subnets.get(&interface.subnet).ok_or_else(ApiError::internal)?;
        if has_prefixes(&new) && new.addresses_needed() > record.map.free() {
            return Err(ApiError::more_than_free());
        }
        // Nobody loses an address to a call that is refused for another one.
        check_named(record, &new.addresses, |address| moved.contains_key(&address))?;
        for (address, owner) in moved {
            self.give_back(&owner, &[address], &[]);
        }
        let record = self.subnets.get_mut(&interface.subnet).ok_or_else(ApiError::internal)?;
        let taken = take(record, &mut self.address_rng, &new)?;
        self.change_interface(&assign.interface, |interface| {
            interface.secondary_ips.extend(&taken.addresses);
            interface.prefixes.extend(&taken.prefixes);
        });
        self.addresses_changed(&assign.interface);
        let assigned = AssignedAddresses {
            addresses: if wanted.addresses.is_empty() { taken.addresses } else { wanted.addresses.clone() },
            prefixes: if wanted.prefixes.is_empty() { taken.prefixes } else { wanted.prefixes.clone() },
        };
        Ok(Response::Assigned { interface: assign.interface.clone(), assigned })
    }

    /// AllowReassignment: which of these addresses are secondary ones of other interfaces in the subnet, and so can move.
    fn owners(&self, to: &Interface, addresses: &[Ipv4Addr]) -> BTreeMap<Ipv4Addr, EniId> {
        let others = || self.interfaces().filter(|eni| eni.id != to.id && eni.subnet == to.subnet);
        let owner = |address| others().find(|eni| eni.secondary_ips.contains(address)).map(|eni| eni.id.clone());
        addresses.iter().filter_map(|address| Some((*address, owner(address)?))).collect()
    }

    pub(super) fn unassign_addresses(&mut self, unassign: &Unassign) -> Result<Response, ApiError> {
        if unassign.addresses.is_empty() && unassign.prefixes.is_empty() {
            return Err(ApiError::missing("privateIpAddress"));
        }
        let interface = self.found_interface(&unassign.interface)?;
        if unassign.addresses.contains(&interface.primary_ip) {
            return Err(ApiError::invalid_value(format!(
                "Value ({}) for parameter privateIpAddress is invalid. The primary IP address of an interface cannot be \
                 unassigned.",
                interface.primary_ip
            )));
        }
        let all_there = unassign.addresses.iter().all(|address| interface.secondary_ips.contains(address))
            && unassign.prefixes.iter().all(|prefix| interface.prefixes.contains(prefix));
        if !all_there {
            return Err(ApiError::invalid_value(format!(
                "Some of the specified addresses are not assigned to interface {}",
                unassign.interface
            )));
        }
        self.give_back(&unassign.interface, &unassign.addresses, &unassign.prefixes);
        Ok(Response::Done)
    }

    /// Addresses and prefixes leave the interface and are free again.
    fn give_back(&mut self, eni: &EniId, addresses: &[Ipv4Addr], prefixes: &[Prefix]) {
        if let Some(subnet) = self.subnet_of(eni).cloned()
            && let Some(record) = self.subnets.get_mut(&subnet)
        {
            for address in addresses {
                record.map.give_back(*address);
            }
            for prefix in prefixes {
                record.map.give_back_prefix(*prefix);
            }
        }
        self.change_interface(eni, |interface| {
            interface.secondary_ips.retain(|address| !addresses.contains(address));
            interface.prefixes.retain(|prefix| !prefixes.contains(prefix));
        });
        self.addresses_changed(eni);
    }

    fn addresses_changed(&mut self, eni: &EniId) {
        self.publish_metadata(eni, false);
        if let Some(subnet) = self.subnet_of(eni).cloned() {
            self.publish_free_count(&subnet);
        }
        self.events.push(Event::AddressesChanged { eni: eni.clone() });
    }
}

/// Takes all that is wanted from the subnet, or nothing.
fn take(subnet: &mut SubnetRecord, rng: &mut Rng, wanted: &Wanted) -> Result<AssignedAddresses, ApiError> {
    let mut taken = AssignedAddresses::default();
    let result = take_into(&mut taken, subnet, rng, wanted);
    if result.is_err() {
        for address in taken.addresses.drain(..) {
            subnet.map.give_back(address);
        }
        for prefix in taken.prefixes.drain(..) {
            subnet.map.give_back_prefix(prefix);
        }
    }
    result.map(|()| taken)
}

fn take_into(
    taken: &mut AssignedAddresses,
    subnet: &mut SubnetRecord,
    rng: &mut Rng,
    wanted: &Wanted,
) -> Result<(), ApiError> {
    check_named(subnet, &wanted.addresses, |_| false)?;
    for address in &wanted.addresses {
        subnet.map.take(*address);
        taken.addresses.push(*address);
    }
    check_named_prefixes(subnet, &wanted.prefixes)?;
    for prefix in &wanted.prefixes {
        subnet.map.take_prefix(*prefix);
        taken.prefixes.push(*prefix);
    }
    for _ in 0..wanted.address_count.unwrap_or(0) {
        taken.addresses.push(subnet.map.take_any(rng).ok_or_else(ApiError::insufficient_addresses)?);
    }
    for _ in 0..wanted.prefix_count.unwrap_or(0) {
        taken.prefixes.push(subnet.map.take_any_prefix(rng).ok_or_else(ApiError::insufficient_prefixes)?);
    }
    Ok(())
}

/// Whether all these addresses can be had: free, or `movable` from where they are.
fn check_named(
    subnet: &SubnetRecord,
    addresses: &[Ipv4Addr],
    movable: impl Fn(Ipv4Addr) -> bool,
) -> Result<(), ApiError> {
    if addresses.iter().collect::<BTreeSet<_>>().len() < addresses.len() {
        return Err(ApiError::invalid_value("The same address is named twice."));
    }
    for address in addresses {
        check_address(subnet, *address)?;
    }
    let held = addresses.iter().filter(|address| subnet.map.is_taken(**address) && !movable(**address));
    no_move(held)
}

/// The same for prefixes. A whole prefix never moves, and AWS documents no code for one that is taken: it is refused as
/// addresses are. `InsufficientCidrBlocks` would say that no /28 at all is left.
fn check_named_prefixes(subnet: &SubnetRecord, prefixes: &[Prefix]) -> Result<(), ApiError> {
    if prefixes.iter().collect::<BTreeSet<_>>().len() < prefixes.len() {
        return Err(ApiError::invalid_value("The same prefix is named twice."));
    }
    if let Some(outside) = prefixes.iter().find(|prefix| !prefix.addresses().all(|a| subnet.map.contains(a))) {
        return Err(ApiError::invalid_value(format!("{outside} does not fall within the subnet's address range")));
    }
    if prefixes.iter().any(|prefix| prefix.addresses().any(|address| subnet.info.cidr.is_reserved(address))) {
        return Err(ApiError::invalid_value("Address is in subnet's reserved address range"));
    }
    let held = prefixes.iter().filter(|prefix| prefix.addresses().any(|address| subnet.map.is_taken(address)));
    no_move(held)
}

fn no_move(held: impl Iterator<Item = impl ToString>) -> Result<(), ApiError> {
    let held: Vec<String> = held.map(|it| it.to_string()).collect();
    if held.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid_value(format!("[{}] assigned, but move is not allowed.", held.join(", "))))
}

fn check_address(subnet: &SubnetRecord, address: Ipv4Addr) -> Result<(), ApiError> {
    if !subnet.map.contains(address) {
        return Err(ApiError::invalid_value("Address does not fall within the subnet's address range"));
    }
    if subnet.info.cidr.is_reserved(address) {
        return Err(ApiError::invalid_value("Address is in subnet's reserved address range"));
    }
    Ok(())
}

fn in_use(address: Ipv4Addr) -> ApiError {
    ApiError::client("InvalidIPAddress.InUse", format!("Address {address} is in use."))
}

pub(super) fn has_prefixes(wanted: &Wanted) -> bool {
    !wanted.prefixes.is_empty() || wanted.prefix_count.is_some_and(|count| count > 0)
}

pub(super) fn address_limit() -> ApiError {
    ApiError::client("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
}

pub(super) fn prefixes_unsupported() -> ApiError {
    ApiError::client(
        "UnsupportedOperation",
        "Prefix delegation is supported only on instances built on the Nitro System.",
    )
}

//! Secondary addresses and /28 prefixes of interfaces: assign, unassign, and what a new interface takes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use enipool_pool::{EniId, Prefix, SubnetId};

use super::Model;
use super::error::ApiError;
use super::event::Event;
use super::request::{Assign, AssignedAddresses, Response, Unassign, Wanted};
use super::resource::SubnetRecord;
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
        if assign.allow_reassignment {
            self.take_from_others(&assign.interface, &new.addresses)?;
        }
        let record = self.subnets.get_mut(&interface.subnet).ok_or_else(ApiError::internal)?;
        if has_prefixes(&new) && new.addresses_needed() > record.map.free() {
            return Err(ApiError::more_than_free());
        }
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

    /// AllowReassignment: secondary addresses named in the call leave the interface that has them.
    fn take_from_others(&mut self, to: &EniId, addresses: &[Ipv4Addr]) -> Result<(), ApiError> {
        for address in addresses {
            let owner = self.interfaces().find(|eni| eni.id != *to && eni.secondary_ips.contains(address));
            if let Some(owner) = owner.map(|eni| eni.id.clone()) {
                self.unassign_addresses(&Unassign {
                    interface: owner,
                    addresses: vec![*address],
                    prefixes: Vec::new(),
                })?;
            }
        }
        Ok(())
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
        if let Some(subnet) = self.subnet_of(&unassign.interface).cloned()
            && let Some(record) = self.subnets.get_mut(&subnet)
        {
            for address in &unassign.addresses {
                record.map.give_back(*address);
            }
            for prefix in &unassign.prefixes {
                record.map.give_back_prefix(*prefix);
            }
        }
        self.change_interface(&unassign.interface, |interface| {
            interface.secondary_ips.retain(|address| !unassign.addresses.contains(address));
            interface.prefixes.retain(|prefix| !unassign.prefixes.contains(prefix));
        });
        self.addresses_changed(&unassign.interface);
        Ok(Response::Done)
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
    let named: BTreeSet<_> = wanted.addresses.iter().collect();
    if named.len() < wanted.addresses.len() {
        return Err(ApiError::invalid_value("The same address is named twice."));
    }
    let mut moved = Vec::new();
    for address in &wanted.addresses {
        check_address(subnet, *address)?;
        if subnet.map.take(*address) {
            taken.addresses.push(*address);
        } else {
            moved.push(address.to_string());
        }
    }
    if !moved.is_empty() {
        return Err(ApiError::invalid_value(format!("[{}] assigned, but move is not allowed.", moved.join(", "))));
    }
    for prefix in &wanted.prefixes {
        if !prefix.addresses().all(|address| subnet.map.contains(address)) {
            return Err(ApiError::invalid_value(format!("{prefix} does not fall within the subnet's address range")));
        }
        if !subnet.map.take_prefix(*prefix) {
            return Err(ApiError::insufficient_prefixes());
        }
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

//! VPCs, subnets and security groups.

use std::time::Duration;

use enipool_pool::ec2::Tags;
use enipool_pool::{SecurityGroupId, SubnetCidr, SubnetId, Timestamp, VpcId, Zone};
use ipnet::Ipv4Net;

use super::Model;
use super::error::ApiError;
use super::filter::{check, passes};
use super::filters::{GROUPS, SUBNETS, VPCS};
use super::replicated::Replicated;
use super::request::{Describe, Response};
use super::resource::{SecurityGroup, SubnetInfo, SubnetRecord, SubnetView, Vpc};
use super::subnet::AddressMap;

/// Prefix lengths of VPCs and subnets ([VPC CIDR blocks](https://docs.aws.amazon.com/vpc/latest/userguide/vpc-cidr-blocks.html)).
const LENGTHS: std::ops::RangeInclusive<u8> = 16..=28;

impl Model {
    pub(super) fn build_network(&mut self) -> Result<(), ApiError> {
        let config = self.config.clone();
        let (first, more) = config.vpc.cidrs.split_first().ok_or_else(|| ApiError::missing("vpc.cidrs"))?;
        let vpc = self.make_vpc(*first, &config.vpc.tags)?;
        if let Some(record) = self.vpcs.get_mut(&vpc.id) {
            record.cidrs.extend(more);
        }
        for subnet in &config.subnets {
            self.make_subnet(&vpc.id, &Zone::new(subnet.zone.as_str()), subnet.cidr, &subnet.tags)?;
        }
        for name in &config.security_groups {
            self.make_group(&vpc.id, name, name, &Tags::new())?;
        }
        Ok(())
    }

    pub(super) fn create_vpc(&mut self, cidr: Ipv4Net, tags: &Tags) -> Result<Response, ApiError> {
        self.make_vpc(cidr, tags).map(Response::Vpc)
    }

    fn make_vpc(&mut self, cidr: Ipv4Net, tags: &Tags) -> Result<Vpc, ApiError> {
        check_length("InvalidVpc.Range", cidr)?;
        let vpc = Vpc { id: self.ids.id("vpc")?, cidrs: vec![cidr.trunc()], tags: tags.clone() };
        self.vpcs.insert(vpc.id.clone(), vpc.clone());
        self.make_group(&vpc.id, "default", "default VPC security group", &Tags::new())?;
        Ok(vpc)
    }

    pub(super) fn create_subnet(
        &mut self,
        vpc: &VpcId,
        zone: Option<&Zone>,
        cidr: SubnetCidr,
        tags: &Tags,
    ) -> Result<Response, ApiError> {
        let default = Zone::new(format!("{}a", self.config.region));
        let id = self.make_subnet(vpc, zone.unwrap_or(&default), cidr, tags)?;
        let subnet = self.subnets.get(&id).ok_or_else(ApiError::internal)?;
        Ok(Response::Subnet(subnet.view(self.now)))
    }

    fn make_subnet(&mut self, vpc: &VpcId, zone: &Zone, cidr: SubnetCidr, tags: &Tags) -> Result<SubnetId, ApiError> {
        check_length("InvalidSubnet.Range", cidr.0)?;
        let record = self.vpcs.get(vpc).ok_or_else(|| ApiError::vpc_not_found(vpc.as_str()))?;
        if cidr.0.network() != cidr.0.addr() || !record.cidrs.iter().any(|range| range.contains(&cidr.0)) {
            return Err(ApiError::client("InvalidSubnet.Range", format!("The CIDR '{}' is invalid.", cidr.0)));
        }
        let letter = zone.as_str().strip_prefix(self.config.region.as_str()).unwrap_or_default();
        if letter.len() != 1 || !letter.bytes().all(|b| b.is_ascii_lowercase()) {
            return Err(ApiError::invalid_value(format!(
                "Value ({zone}) for parameter availabilityZone is invalid. Zones of {region} are {region}a, {region}b, …",
                region = self.config.region
            )));
        }
        let overlaps = |other: &SubnetRecord| {
            other.info.vpc == *vpc && (other.info.cidr.0.contains(&cidr.0) || cidr.0.contains(&other.info.cidr.0))
        };
        if self.subnets.values().any(overlaps) {
            let message = format!("The CIDR '{}' conflicts with another subnet", cidr.0);
            return Err(ApiError::client("InvalidSubnet.Conflict", message));
        }
        let id: SubnetId = self.ids.id("subnet")?;
        let info = SubnetInfo { id: id.clone(), vpc: vpc.clone(), zone: zone.clone(), cidr, tags: tags.clone() };
        let map = AddressMap::new(cidr, self.config.pick);
        let shown_free = Replicated::created(map.free(), self.now, self.now);
        self.subnets.insert(id.clone(), SubnetRecord { info, map, shown_free });
        Ok(id)
    }

    pub(super) fn create_security_group(
        &mut self,
        vpc: &VpcId,
        name: &str,
        description: &str,
        tags: &Tags,
    ) -> Result<Response, ApiError> {
        self.make_group(vpc, name, description, tags).map(Response::SecurityGroup)
    }

    fn make_group(
        &mut self,
        vpc: &VpcId,
        name: &str,
        description: &str,
        tags: &Tags,
    ) -> Result<SecurityGroup, ApiError> {
        if !self.vpcs.contains_key(vpc) {
            return Err(ApiError::vpc_not_found(vpc.as_str()));
        }
        if self.groups.values().any(|group| group.vpc == *vpc && group.name == name) {
            return Err(ApiError::client(
                "InvalidGroup.Duplicate",
                format!("The security group '{name}' already exists for VPC '{vpc}'"),
            ));
        }
        let group = SecurityGroup {
            id: self.ids.id("sg")?,
            vpc: vpc.clone(),
            name: name.to_owned(),
            description: description.to_owned(),
            tags: tags.clone(),
        };
        self.groups.insert(group.id.clone(), group.clone());
        Ok(group)
    }

    pub(super) fn default_group(&self, vpc: &VpcId) -> Option<&SecurityGroup> {
        self.groups.values().find(|group| group.vpc == *vpc && group.name == "default")
    }

    pub(super) fn describe_vpcs(&self, describe: &Describe<VpcId>) -> Result<Response, ApiError> {
        check(&describe.filters, VPCS)?;
        describe.page.check(!describe.ids.is_empty(), "vpcIds")?;
        if let Some(id) = describe.ids.iter().find(|id| !self.vpcs.contains_key(*id)) {
            return Err(ApiError::vpc_not_found(id.as_str()));
        }
        let found = self
            .vpcs
            .values()
            .filter(|vpc| describe.ids.is_empty() || describe.ids.contains(&vpc.id))
            .filter(|vpc| passes(&describe.filters, |name| self.vpc_values(vpc, name)));
        describe.page.cut(found.cloned(), |vpc| vpc.id.as_str()).map(Response::Vpcs)
    }

    pub(super) fn describe_subnets(&self, describe: &Describe<SubnetId>) -> Result<Response, ApiError> {
        check(&describe.filters, SUBNETS)?;
        describe.page.check(!describe.ids.is_empty(), "subnetIds")?;
        if let Some(id) = describe.ids.iter().find(|id| !self.subnets.contains_key(*id)) {
            return Err(ApiError::subnet_not_found(id.as_str()));
        }
        let found = self
            .subnets
            .values()
            .filter(|subnet| describe.ids.is_empty() || describe.ids.contains(&subnet.info.id))
            .map(|subnet| subnet.view(self.now))
            .filter(|subnet| passes(&describe.filters, |name| self.subnet_values(subnet, name)));
        describe.page.cut(found, |subnet| subnet.info.id.as_str()).map(Response::Subnets)
    }

    pub(super) fn describe_security_groups(&self, describe: &Describe<SecurityGroupId>) -> Result<Response, ApiError> {
        check(&describe.filters, GROUPS)?;
        describe.page.check(!describe.ids.is_empty(), "groupIds")?;
        if let Some(id) = describe.ids.iter().find(|id| !self.groups.contains_key(*id)) {
            return Err(ApiError::group_not_found(id.as_str()));
        }
        let found = self
            .groups
            .values()
            .filter(|group| describe.ids.is_empty() || describe.ids.contains(&group.id))
            .filter(|group| passes(&describe.filters, |name| self.group_values(group, name)));
        describe.page.cut(found.cloned(), |group| group.id.as_str()).map(Response::SecurityGroups)
    }

    /// EC2's zone id, which is the same zone in every account: `euw1-az1`.
    pub fn zone_id(&self, zone: &Zone) -> String {
        zone_id(&self.config.region, zone)
    }

    /// Tells the readers of `availableIpAddressCount`, late.
    pub(super) fn publish_free_count(&mut self, subnet: &SubnetId) {
        let lag: Duration = self.config.timing.free_count.draw(&mut self.timing_rng);
        let now = self.now;
        if let Some(record) = self.subnets.get_mut(subnet) {
            let free = record.map.free();
            if record.shown_free.current() != Some(&free) {
                record.shown_free.set(Some(free), now, now.plus(lag));
            }
        }
    }

    /// Gives the VPC these ranges, as AssociateVpcCidrBlock and its counterpart would. The metadata services show them after
    /// their lag.
    pub fn set_vpc_cidrs(&mut self, vpc: &VpcId, cidrs: Vec<Ipv4Net>) -> Result<(), ApiError> {
        let record = self.vpcs.get_mut(vpc).ok_or_else(|| ApiError::vpc_not_found(vpc.as_str()))?;
        record.cidrs = cidrs;
        let inside: Vec<_> = self.interfaces().filter(|eni| eni.vpc == *vpc).map(|eni| eni.id.clone()).collect();
        for eni in inside {
            self.publish_metadata(&eni, false);
        }
        Ok(())
    }

    /// Takes addresses as others in the VPC would (load balancers, other clusters): at most `count`, and where `every` is
    /// more than 1 only one of so many in a row, which breaks the subnet's /28s. Returns how many were taken.
    pub fn occupy(&mut self, subnet: &SubnetId, count: u32, every: u32) -> Result<u32, ApiError> {
        let record = self.subnets.get_mut(subnet).ok_or_else(|| ApiError::subnet_not_found(subnet.as_str()))?;
        let step = usize::try_from(every.max(1)).unwrap_or(usize::MAX);
        let mut taken = 0;
        for address in record.info.cidr.0.hosts().step_by(step) {
            if taken == count {
                break;
            }
            taken += u32::from(record.map.take(address));
        }
        self.publish_free_count(subnet);
        Ok(taken)
    }

    /// Gives back every address of the subnet that no interface owns. Returns how many there were.
    pub fn vacate(&mut self, subnet: &SubnetId) -> Result<u32, ApiError> {
        let owned: std::collections::BTreeSet<_> = self
            .interfaces()
            .filter(|eni| eni.subnet == *subnet)
            .flat_map(|eni| {
                eni.addresses().chain(eni.prefixes.iter().flat_map(|prefix| prefix.addresses())).collect::<Vec<_>>()
            })
            .collect();
        let record = self.subnets.get_mut(subnet).ok_or_else(|| ApiError::subnet_not_found(subnet.as_str()))?;
        let before = record.map.free();
        for address in record.info.cidr.0.hosts().filter(|address| !owned.contains(address)) {
            record.map.give_back(address);
        }
        let freed = record.map.free() - before;
        self.publish_free_count(subnet);
        Ok(freed)
    }
}

impl SubnetRecord {
    /// As DescribeSubnets shows it at `now`.
    pub fn view(&self, now: Timestamp) -> SubnetView {
        let available_ips = self.shown_free.seen(now).copied().unwrap_or_default();
        SubnetView { info: self.info.clone(), available_ips }
    }
}

fn check_length(code: &'static str, cidr: Ipv4Net) -> Result<(), ApiError> {
    if LENGTHS.contains(&cidr.prefix_len()) {
        Ok(())
    } else {
        Err(ApiError::client(code, format!("The CIDR '{cidr}' is invalid. Its length must be between /16 and /28.")))
    }
}

/// The region's name in short and the number of the zone
/// ([AZ IDs](https://docs.aws.amazon.com/global-infrastructure/latest/regions/az-ids.html)). Where the letters of an account
/// point to is AWS's secret; here `a` is always `az1`.
fn zone_id(region: &str, zone: &Zone) -> String {
    let letter = zone.as_str().bytes().last().unwrap_or(b'a');
    let short = |direction: &str| match direction {
        "northeast" => "ne".to_owned(),
        "southeast" => "se".to_owned(),
        "northwest" => "nw".to_owned(),
        "southwest" => "sw".to_owned(),
        other => other.chars().take(1).collect(),
    };
    let parts: Vec<&str> = region.split('-').collect();
    let region = match parts.as_slice() {
        [area, direction, number] => format!("{area}{}{number}", short(direction)),
        // A partition of its own: us-gov-west-1.
        [area, partition, direction, number] => {
            format!("{area}{}{}{number}", partition.chars().take(1).collect::<String>(), short(direction))
        }
        _ => region.to_owned(),
    };
    format!("{region}-az{}", u32::from(letter.saturating_sub(b'a')) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_the_ids_that_aws_gives_them() {
        for (region, zone, id) in [
            ("eu-west-1", "eu-west-1a", "euw1-az1"),
            ("eu-central-1", "eu-central-1c", "euc1-az3"),
            ("us-east-1", "us-east-1f", "use1-az6"),
            ("ap-southeast-2", "ap-southeast-2b", "apse2-az2"),
            ("ap-northeast-1", "ap-northeast-1d", "apne1-az4"),
            ("us-gov-west-1", "us-gov-west-1a", "usgw1-az1"),
            ("us-gov-east-1", "us-gov-east-1b", "usge1-az2"),
        ] {
            assert_eq!(zone_id(region, &Zone::new(zone)), id);
        }
    }
}

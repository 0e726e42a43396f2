//! What the machine asks to be done outside, one call each, and what it is told when that is over.

use std::net::Ipv4Addr;
use std::time::Duration;

use enipool_pool::ec2::{
    Action, Assigned, CreateEni, Ec2Error, Ec2ErrorKind, Eni, EniFilter, EniStatus, Selector, Subnet, Supply, Tags,
};
use enipool_pool::eni::{TAG_INSTANCE, TAG_INTENT};
use enipool_pool::imds::{ImdsEni, ImdsError};
use enipool_pool::{AttachmentId, ClientToken, EniId, InstanceId, MacAddress, Prefix, SecurityGroupId, SubnetId};

use crate::engine::port::{HostPicture, KernelError};

/// Names one started [`Op`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// One thing to be done outside. Each is a single call, so that a crash falls between two of them or within one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Look(Look),
    DescribeSubnets(Vec<SubnetId>),
    Create(CreateEni),
    Attach {
        eni: EniId,
        instance: InstanceId,
        device_index: u32,
    },
    SetDeleteOnTermination {
        eni: EniId,
        attachment: AttachmentId,
    },
    SetSecurityGroups {
        eni: EniId,
        groups: Vec<SecurityGroupId>,
    },
    Assign {
        eni: EniId,
        supply: Supply,
    },
    Unassign {
        eni: EniId,
        addresses: Vec<Ipv4Addr>,
        prefixes: Vec<Prefix>,
    },
    Detach {
        eni: EniId,
        attachment: AttachmentId,
        force: bool,
    },
    Delete {
        eni: EniId,
    },
    /// Set the host up for the interfaces.
    Apply(HostPicture),
    /// Wait for the kernel to show the interface.
    AwaitLink {
        eni: EniId,
        mac: MacAddress,
        timeout: Duration,
    },
    /// Read all of IMDS: what is attached, and the surroundings.
    Hint,
    /// Read all of IMDS for the surroundings alone: what it says of interfaces that change just now is worth nothing.
    Surroundings,
}

/// Which interfaces to describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Those attached to the instance.
    Attached(InstanceId),
    Enis(Vec<EniId>),
    /// The one that an intent made, if it did.
    Intent(ClientToken),
    /// Unattached ones that were made for the instance.
    Orphans(InstanceId),
}

impl Look {
    pub fn filter(&self) -> EniFilter {
        match self {
            Self::Attached(instance) => EniFilter { instance: Some(instance.clone()), ..EniFilter::default() },
            Self::Enis(ids) => EniFilter { ids: ids.clone(), ..EniFilter::default() },
            Self::Intent(token) => EniFilter {
                tags: Tags::from([(TAG_INTENT.to_owned(), token.as_str().to_owned())]),
                ..EniFilter::default()
            },
            Self::Orphans(instance) => EniFilter {
                status: Some(EniStatus::Available),
                tags: Tags::from([(TAG_INSTANCE.to_owned(), instance.as_str().to_owned())]),
                ..EniFilter::default()
            },
        }
    }
}

impl Op {
    /// The EC2 action behind it, if it is one.
    pub fn action(&self) -> Option<Action> {
        Some(match self {
            Self::Look(_) => Action::DescribeNetworkInterfaces,
            Self::DescribeSubnets(_) => Action::DescribeSubnets,
            Self::Create(_) => Action::CreateNetworkInterface,
            Self::Attach { .. } => Action::AttachNetworkInterface,
            Self::SetDeleteOnTermination { .. } | Self::SetSecurityGroups { .. } => {
                Action::ModifyNetworkInterfaceAttribute
            }
            Self::Assign { .. } => Action::AssignPrivateIpAddresses,
            Self::Unassign { .. } => Action::UnassignPrivateIpAddresses,
            Self::Detach { .. } => Action::DetachNetworkInterface,
            Self::Delete { .. } => Action::DeleteNetworkInterface,
            Self::Apply(_) | Self::AwaitLink { .. } | Self::Hint | Self::Surroundings => return None,
        })
    }

    /// The interface that it changes or waits for.
    pub fn eni(&self) -> Option<&EniId> {
        match self {
            Self::Attach { eni, .. }
            | Self::SetDeleteOnTermination { eni, .. }
            | Self::SetSecurityGroups { eni, .. }
            | Self::Assign { eni, .. }
            | Self::Unassign { eni, .. }
            | Self::Detach { eni, .. }
            | Self::Delete { eni }
            | Self::AwaitLink { eni, .. } => Some(eni),
            Self::Look(_)
            | Self::DescribeSubnets(_)
            | Self::Create(_)
            | Self::Apply(_)
            | Self::Hint
            | Self::Surroundings => None,
        }
    }

    /// The end of one of which nothing was heard: as far as EC2 goes, with this error.
    pub(in crate::engine) fn unheard(&self, kind: Ec2ErrorKind, why: &str) -> Done {
        let kernel = || KernelError(why.to_owned());
        let Some(action) = self.action() else {
            return match self {
                Self::Apply(_) => Done::Applied(Err(kernel())),
                Self::AwaitLink { .. } => Done::Unheard,
                _ => Done::Hint(Err(ImdsError::Unavailable(why.to_owned()))),
            };
        };
        let error = Ec2Error { action, kind, message: Some(why.to_owned()) };
        match self {
            Self::Look(_) => Done::Enis(Err(error)),
            Self::DescribeSubnets(_) => Done::Subnets(Err(error)),
            Self::Create(_) => Done::Created(Err(error)),
            Self::Attach { .. } => Done::Attached(Err(error)),
            Self::Assign { .. } => Done::Assigned(Err(error)),
            _ => Done::Changed(Err(error)),
        }
    }

    /// In words, for status and logs.
    pub fn text(&self) -> String {
        match self {
            Self::Look(_) => "describe network interfaces".into(),
            Self::DescribeSubnets(_) => "describe subnets".into(),
            Self::Create(request) => {
                format!("create an interface in {} with {}", request.subnet, supply(request.supply))
            }
            Self::Attach { eni, device_index, .. } => format!("attach {eni} as device {device_index}"),
            Self::SetDeleteOnTermination { eni, .. } => format!("let {eni} die with the instance"),
            Self::SetSecurityGroups { eni, groups } => format!("give {eni} {} security groups", groups.len()),
            Self::Assign { eni, supply: what } => format!("assign {} to {eni}", supply(*what)),
            Self::Unassign { eni, addresses, prefixes } => {
                format!("take {} addresses and {} prefixes from {eni}", addresses.len(), prefixes.len())
            }
            Self::Detach { eni, force, .. } => format!("{}detach {eni}", if *force { "forcibly " } else { "" }),
            Self::Delete { eni } => format!("delete {eni}"),
            Self::Apply(picture) => format!("set the host up for {} interfaces", picture.enis.len()),
            Self::AwaitLink { eni, .. } => format!("wait for the link of {eni}"),
            Self::Hint | Self::Surroundings => "read IMDS".into(),
        }
    }
}

fn supply(supply: Supply) -> String {
    match supply {
        Supply::Addresses(count) => format!("{count} addresses"),
        Supply::Prefixes(count) => format!("{count} prefixes"),
    }
}

/// How an [`Op`] ended.
#[derive(Debug, Clone)]
pub enum Done {
    Enis(Result<Vec<Eni>, Ec2Error>),
    Subnets(Result<Vec<Subnet>, Ec2Error>),
    Created(Result<Eni, Ec2Error>),
    Attached(Result<AttachmentId, Ec2Error>),
    Assigned(Result<Assigned, Ec2Error>),
    /// Modify, Unassign, Detach, Delete.
    Changed(Result<(), Ec2Error>),
    Applied(Result<(), KernelError>),
    Link(Result<(), KernelError>),
    /// It says nothing, and changed nothing: a wait that was not begun, or that broke off.
    Unheard,
    Hint(Result<Vec<ImdsEni>, ImdsError>),
}

impl Done {
    pub fn ec2_error(&self) -> Option<&Ec2Error> {
        match self {
            Self::Enis(Err(error))
            | Self::Subnets(Err(error))
            | Self::Created(Err(error))
            | Self::Attached(Err(error))
            | Self::Assigned(Err(error))
            | Self::Changed(Err(error)) => Some(error),
            _ => None,
        }
    }
}

/// Selector of exactly these subnets.
pub fn by_id(ids: &[SubnetId]) -> Selector<SubnetId> {
    Selector { ids: ids.to_vec(), vpc: None, zone: None, tags: Tags::new() }
}

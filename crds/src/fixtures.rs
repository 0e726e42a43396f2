//! Objects for tests, here and in the crates that work with them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::condition::{self, ConditionType, Reason};
use crate::{
    AddressCounts, Capacity, ENIPool, ENIPoolClass, ENIPoolClassSpec, ENIPoolSpec, ENIPoolStatus, EniState, EniStatus,
    InstanceStatus,
};

/// A pool without a status, as the operator has just made it.
pub fn new_pool(node: &str) -> ENIPool {
    ENIPool::new(node, ENIPoolSpec::default())
}

/// The class that comes with the chart.
pub fn default_class() -> ENIPoolClass {
    ENIPoolClass::new(crate::DEFAULT_CLASS, ENIPoolClassSpec::default())
}

/// A pool of `enis` full ENIs of `per_eni` addresses each, `assigned` of which are in use, filled from the first ENI on.
pub fn pool_with_enis(node: &str, enis: i32, per_eni: i32, assigned: i32) -> ENIPool {
    let total = enis * per_eni;
    let status = ENIPoolStatus {
        instance: Some(InstanceStatus {
            id: "i-0123456789abcdef0".into(),
            instance_type: "m5.large".into(),
            zone: "eu-west-1a".into(),
            vpc_id: Some("vpc-0123456789abcdef0".into()),
            subnet_id: Some("subnet-0123456789abcdef0".into()),
        }),
        capacity: Some(Capacity { enis, addresses_per_eni: per_eni, addresses: total }),
        attached_enis: enis,
        addresses: Some(AddressCounts { total, assigned, cooling: 0, available: total - assigned }),
        warm: "1 ENI".into(),
        reason: Reason::AsPlanned.to_string(),
        enis: (0..enis).map(|index| eni(index, per_eni, (assigned - index * per_eni).clamp(0, per_eni))).collect(),
        observed_generation: Some(1),
        conditions: conditions(),
        ..ENIPoolStatus::default()
    };
    ENIPool { status: Some(status), ..new_pool(node) }
}

fn eni(index: i32, addresses: i32, assigned: i32) -> EniStatus {
    EniStatus {
        id: format!("eni-{index:017x}"),
        mac: format!("0a:00:00:00:00:{index:02x}"),
        device_number: Some(index),
        subnet_id: "subnet-0123456789abcdef0".into(),
        primary_ip: format!("10.0.{index}.4"),
        addresses,
        assigned,
        singles_in_use: assigned,
        state: EniState::Ready,
        ..EniStatus::default()
    }
}

fn conditions() -> Vec<Condition> {
    let mut conditions = Vec::new();
    let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
    for kind in ConditionType::ALL {
        let holds = kind != ConditionType::Throttled;
        condition::set(&mut conditions, kind, Some(holds), Reason::AsPlanned, "", Some(1), now);
    }
    conditions
}

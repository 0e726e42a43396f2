//! `ENIPool`: what one node should hold, what it holds, and why it does not hold more.
//!
//! Every field has one writer: people (`spec` but for `allocation`), the operator (`spec.allocation`), the node's agent
//! (`status`).

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct in a scope of its own")]
#![allow(clippy::duplicated_attributes, reason = "each printer column has a type and a path")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::TargetFields;

/// What the pool may do by itself. `Normal`: grow and shrink as planned. `NoRelease`: grow, but give nothing back (for a
/// day of heavy traffic). `NoCloud`: change nothing in EC2; pods go on with what the node holds. Absent: `Normal`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Operations {
    #[default]
    Normal,
    NoRelease,
    NoCloud,
}

/// What people ask of this node's pool. All optional: what is absent is decided by the node's ENIPoolClass. An edit acts
/// within seconds and restarts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "enipool.dev",
    version = "v1alpha1",
    kind = "ENIPool",
    plural = "enipools",
    singular = "enipool",
    shortname = "enip",
    status = "ENIPoolStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "The pool of network interfaces and addresses of one node, with the node's name. Edit `spec` to ask for more or less; `status` says what the node holds and why a pod waits.",
    printcolumn(name = "Type", type_ = "string", json_path = ".status.instance.type", description = "Instance type"),
    printcolumn(
        name = "ENIs",
        type_ = "integer",
        json_path = ".status.attachedENIs",
        description = "ENIs attached, the primary one included"
    ),
    printcolumn(
        name = "Max",
        type_ = "integer",
        json_path = ".status.capacity.enis",
        description = "ENIs that the instance type can hold"
    ),
    printcolumn(
        name = "IPs",
        type_ = "integer",
        json_path = ".status.addresses.total",
        description = "Addresses for pods that the node holds"
    ),
    printcolumn(
        name = "Assigned",
        type_ = "integer",
        json_path = ".status.addresses.assigned",
        description = "Addresses that pods use"
    ),
    printcolumn(
        name = "Free",
        type_ = "integer",
        json_path = ".status.addresses.available",
        description = "Addresses that a pod gets at once"
    ),
    printcolumn(name = "Warm", type_ = "string", json_path = ".status.warm", description = "Warm target in force"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the agent serves pods"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.reason",
        description = "The most pressing of what holds the pool back"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Subnet",
        type_ = "string",
        json_path = ".spec.allocation.subnetID",
        priority = 1,
        description = "Subnet of the next ENI"
    ),
    printcolumn(
        name = "Ceiling",
        type_ = "integer",
        json_path = ".spec.allocation.ceiling",
        priority = 1,
        description = "The most addresses that the node may hold"
    ),
    printcolumn(
        name = "Demand",
        type_ = "integer",
        json_path = ".spec.allocation.demand",
        priority = 1,
        description = "Pods bound to the node that have no address yet"
    ),
    printcolumn(
        name = "Throttles",
        type_ = "integer",
        json_path = ".status.throttles",
        priority = 1,
        description = "EC2 calls refused for their rate since the agent started"
    ),
    printcolumn(name = "Instance", type_ = "string", json_path = ".status.instance.id", priority = 1)
)]
#[x_kube(
    validation = Rule::new("!has(self.warmENITarget) || !(has(self.warmIPTarget) || has(self.minimumIPTarget))")
        .message("warmENITarget has no effect beside warmIPTarget or minimumIPTarget: remove the one or the others"),
    validation = Rule::new("!has(self.warmPrefixTarget) || !(has(self.warmIPTarget) || has(self.minimumIPTarget))")
        .message("warmPrefixTarget has no effect beside warmIPTarget or minimumIPTarget: remove the one or the others"),
    validation = Rule::new("!has(self.warmPrefixTarget) || !has(self.addressing) || self.addressing != 'Secondary'")
        .message("warmPrefixTarget needs addressing Prefix or Mixed: with Secondary no prefix is ever assigned"),
    validation = Rule::new("!has(self.warmENITarget) || !has(self.maxENIs) || self.warmENITarget < self.maxENIs")
        .message("warmENITarget must be less than maxENIs: a pool of maxENIs interfaces can't keep that many of them free")
)]
#[serde(rename_all = "camelCase")]
pub struct ENIPoolSpec {
    #[serde(flatten)]
    pub targets: TargetFields,

    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<Operations>,

    /// What the operator lets this node hold now. Written by the operator only; an edit by hand is overwritten. Absent: no
    /// operator has seen the node yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Allocation>,
}

/// What the operator lets a node hold now. Raising a number is the node's leave to make the EC2 calls for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// Name of the ENIPoolClass that applies to the node.
    pub class: String,

    /// ENIs that the node should hold, the primary one included.
    pub enis: i32,

    /// Addresses for pods that the node should hold, those of prefixes included.
    pub addresses: i32,

    /// /28 prefixes that the node should hold.
    #[serde(default)]
    pub prefixes: i32,

    /// Subnet in which the agent makes the next ENI. Absent: the subnet of the primary ENI.
    #[serde(rename = "subnetID", default, skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<String>,

    /// Security groups of the next ENI. Absent: those of the primary ENI.
    #[serde(rename = "securityGroupIDs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub security_group_ids: Vec<String>,

    /// The most addresses that the node may ever hold: max pods of the node, and what its instance type can carry.
    pub ceiling: i32,

    /// Pods bound to the node that need an address: not on the host network, not finished.
    #[serde(default)]
    pub pods: i32,

    /// Of these, the pods that have no address yet.
    pub demand: i32,

    /// Of the demand, the addresses that no subnet of the node has left beyond its headroom: these pods wait for the
    /// subnets, not for a turn.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub withheld: i32,

    /// The last `status.askedAt` that this allocation was made with the knowledge of: the agent sees that somebody plans for
    /// the node, even where no number could be raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Time>,

    /// The warm targets in force: of this ENIPool where it names them, of its class otherwise.
    #[serde(default)]
    pub targets: TargetFields,

    /// How these numbers came about, in one line for a person to read.
    #[schemars(length(max = 512))]
    pub decision: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &i32) -> bool {
    *value == 0
}

/// What the node's agent last saw. Counts only: never one entry for each address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ENIPoolStatus {
    /// The instance behind the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceStatus>,

    /// What the instance type can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,

    /// ENIs attached to the instance that carry pods or will, the primary one included.
    #[serde(rename = "attachedENIs", default)]
    pub attached_enis: i32,

    /// Interfaces on the default network card that are not the pool's: made by others, or tagged `no_manage`.
    #[serde(rename = "foreignENIs", default)]
    pub foreign_enis: i32,

    /// Addresses for pods, by what they are doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<AddressCounts>,

    /// The warm target in force, in words: `1 ENI`, `5 IPs, at least 20`.
    #[serde(default)]
    pub warm: String,

    /// Pods whose sandbox waits for an address at this moment.
    #[serde(default)]
    pub waiting: i32,

    /// When pods began to wait for nothing but the operator's leave, or the question was last repeated; whole seconds. The
    /// operator answers with `spec.allocation.answers`; without an answer for some ten seconds the agent plans for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Time>,

    /// The most pressing reason of all conditions; `AsPlanned` when nothing holds the pool back.
    #[serde(default)]
    pub reason: String,

    /// The ENIs of the instance that the pool manages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]), length(max = 64))]
    pub enis: Vec<EniStatus>,

    /// ENIs that are being made: each is recorded before its first EC2 call and gone when the ENI serves or is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]), length(max = 16))]
    pub intents: Vec<IntentStatus>,

    /// The EC2 call that is under way, with its interface; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_in_progress: Option<String>,

    /// EC2 calls that failed since the agent started, the throttled ones included.
    #[serde(default)]
    pub errors: i64,

    /// EC2 calls refused for their rate since the agent started.
    #[serde(default)]
    pub throttles: i64,

    /// What the agent has counted since it started. Changes at most every 10 s where nothing else does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,

    /// The last EC2 call that failed.
    #[serde(rename = "lastEC2Error", default, skip_serializing_if = "Option::is_none")]
    pub last_ec2_error: Option<LastEc2Error>,

    /// `metadata.generation` of the spec that the agent acts on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`: the agent serves pods. `AddressesAvailable`: a pod that comes now gets an address at once.
    /// `Throttled`: EC2 refuses calls for their rate. `OperatorPresent`: the operator plans for this node.
    /// Reasons: `AsPlanned`, `Starting`, `SubnetExhausted`, `NoContiguousPrefix`, `Throttled`, `InstanceLimit`,
    /// `AccountLimit`, `MaxPods`, `Ceiling`, `AwaitingTurn`, `AttachInFlight`, `AssignInFlight`, `Cooling`,
    /// `InstanceNotRunning`, `AccessDenied`, `Ec2Unavailable`, `NoSubnet`, `OperatorAway`, `ClassNotFound`, `Paused`,
    /// `DataplaneFailed`, `CallLimit`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The instance behind a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// EC2's instance id, `i-0123…`.
    pub id: String,
    /// Instance type, `m5.large`.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// Availability zone, `eu-west-1a`.
    pub zone: String,
    /// VPC of the primary ENI.
    #[serde(rename = "vpcID", default, skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,
    /// Subnet of the primary ENI: where the agent makes ENIs when the operator names no other.
    #[serde(rename = "subnetID", default, skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<String>,
}

/// What an instance can hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// ENIs on the default network card, the primary one included.
    pub enis: i32,
    /// Slots for pods of each ENI; its primary address is not among them.
    #[serde(rename = "addressesPerENI")]
    pub addresses_per_eni: i32,
    /// Addresses for pods when everything is full, with the addressing in force.
    pub addresses: i32,
}

/// Addresses for pods, by what they are doing. `total` is the sum of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressCounts {
    /// All addresses for pods that the node holds.
    pub total: i32,
    /// In use by pods.
    pub assigned: i32,
    /// Given back by a pod so recently that traffic to it may still be under way; free again after the cooldown.
    pub cooling: i32,
    /// A pod gets one of these at once.
    pub available: i32,
}

/// What an agent has counted. Each number only grows until the agent starts again and counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// When the agent began to count. Another time means that every number began again at 0.
    pub since: Time,
    /// CNI ADDs, the failed ones included.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub adds: i64,
    /// CNI DELs, the failed ones included.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub dels: i64,
    /// CNI ADDs that failed because there was no address.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub adds_without_address: i64,
    /// CNI calls and writes of this status that failed.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub failures: i64,
    /// EC2 calls that ended, the failed ones included.
    #[serde(rename = "ec2Calls", default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub ec2_calls: i64,
    /// EC2 calls that failed, the throttled ones included.
    #[serde(rename = "ec2Errors", default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub ec2_errors: i64,
    /// Milliseconds that all EC2 calls took together.
    #[serde(rename = "ec2Milliseconds", default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub ec2_milliseconds: i64,
    /// ENIs that left the instance while the pool used them.
    #[serde(rename = "lostENIs", default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub lost_enis: i64,
    /// Addresses that EC2 took away while a pod used them.
    #[serde(rename = "lostIPs", default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub lost_ips: i64,
    /// Differences between ledger, kernel and EC2 that were found and settled.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub reconciled: i64,
}

/// Where an ENI is in its life: `Created` (not attached yet), `Attached` (device or routes not set up yet), `Ready` (serves
/// pods), `Draining` (is to run empty: gets pods only when no other ENI has room), `Retiring` (never gets pods again: its
/// subnet or tags say so; goes when its last one is gone).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EniState {
    Created,
    Attached,
    Ready,
    Draining,
    Retiring,
    /// A state that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One ENI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EniStatus {
    /// EC2's id of the ENI, `eni-0123…`.
    pub id: String,
    /// Its MAC address.
    pub mac: String,
    /// Position on the instance; 0 is the primary ENI. Absent while it is not attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_number: Option<i32>,
    /// Its subnet.
    #[serde(rename = "subnetID")]
    pub subnet_id: String,
    /// Its primary address, which no pod gets.
    #[serde(rename = "primaryIP")]
    pub primary_ip: String,
    /// Addresses for pods on it, those of prefixes included.
    pub addresses: i32,
    /// /28 prefixes on it.
    #[serde(default)]
    pub prefixes: i32,
    /// Prefixes with an address that a pod uses or that is cooling.
    #[serde(default)]
    pub prefixes_in_use: i32,
    /// Addresses of it that pods use.
    pub assigned: i32,
    /// Addresses outside prefixes that pods use or that are cooling.
    #[serde(default)]
    pub singles_in_use: i32,
    #[serde(default)]
    pub state: EniState,
}

/// An ENI that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntentStatus {
    /// Id of the intent: the client token of its EC2 call and the tag `enipool.dev/intent` of its ENI.
    pub id: String,
    /// The ENI, as soon as it is known.
    #[serde(rename = "eniID", default, skip_serializing_if = "Option::is_none")]
    pub eni_id: Option<String>,
    /// The step it is at: `Create`, `Attach`, `SetUp`, `Detach`, `Delete`.
    pub step: String,
    /// Since when it has been at this step.
    pub since: Time,
}

/// An EC2 call that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastEc2Error {
    /// EC2's name of the action, `CreateNetworkInterface`.
    pub action: String,
    /// What it means for the pool: one of a fixed set, such as `throttled` or `subnet_exhausted`.
    pub kind: String,
    /// EC2's own code, message and request id.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When it failed.
    pub time: Time,
}

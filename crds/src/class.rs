//! `ENIPoolClass`: the defaults of a group of nodes, and how their subnets fare.

#![allow(unreachable_pub, reason = "KubeSchema repeats each struct in a scope of its own")]
#![allow(clippy::duplicated_attributes, reason = "each printer column has a type and a path")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::TargetFields;

/// Defaults for the nodes that `nodeSelector` matches. Of several classes that match a node, the one with the most
/// requirements wins, then the first by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "enipool.dev",
    version = "v1alpha1",
    kind = "ENIPoolClass",
    plural = "enipoolclasses",
    singular = "enipoolclass",
    shortname = "enipc",
    status = "ENIPoolClassStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Defaults of the pools of a group of nodes: warm targets, subnets, security groups, source NAT. `status` says how the subnets fare.",
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.nodes",
        description = "Nodes that this class applies to"
    ),
    printcolumn(name = "Addressing", type_ = "string", json_path = ".spec.addressing"),
    printcolumn(
        name = "Free",
        type_ = "integer",
        json_path = ".status.availableAddresses",
        description = "Free addresses in all subnets of the class"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "WarmENI", type_ = "integer", json_path = ".spec.warmENITarget", priority = 1),
    printcolumn(name = "WarmIP", type_ = "integer", json_path = ".spec.warmIPTarget", priority = 1),
    printcolumn(name = "MinimumIP", type_ = "integer", json_path = ".spec.minimumIPTarget", priority = 1),
    printcolumn(name = "Headroom", type_ = "string", json_path = ".spec.headroom", priority = 1)
)]
#[x_kube(
    validation = Rule::new("!has(self.warmENITarget) || !(has(self.warmIPTarget) || has(self.minimumIPTarget))")
        .message("warmENITarget has no effect beside warmIPTarget or minimumIPTarget: remove the one or the others"),
    validation = Rule::new("!has(self.warmPrefixTarget) || !(has(self.warmIPTarget) || has(self.minimumIPTarget))")
        .message("warmPrefixTarget has no effect beside warmIPTarget or minimumIPTarget: remove the one or the others"),
    validation = Rule::new("!has(self.warmPrefixTarget) || (has(self.addressing) && self.addressing != 'Secondary')")
        .message("warmPrefixTarget needs addressing Prefix or Mixed: with Secondary no prefix is ever assigned"),
    validation = Rule::new("!has(self.warmENITarget) || !has(self.maxENIs) || self.warmENITarget < self.maxENIs")
        .message("warmENITarget must be less than maxENIs: a pool of maxENIs interfaces can't keep that many of them free"),
    validation = Rule::new("!has(self.headroom) || (type(self.headroom) == int ? self.headroom >= 0 : string(self.headroom).matches('^([0-9]|[1-9][0-9])%$'))")
        .message("headroom must be a number of addresses, such as 100, or a percentage from 0% to 99%"),
    validation = Rule::new("!has(self.eniTags) || self.eniTags.all(key, !key.startsWith('aws:') && !key.contains('k8s.amazonaws.com') && !key.startsWith('enipool.dev/'))")
        .message("eniTags must not start with aws: or enipool.dev/ nor contain k8s.amazonaws.com: those tags say whose an ENI is"),
    validation = Rule::new("!has(self.eniTags) || self.eniTags.all(key, key.size() >= 1 && key.size() <= 128)")
        .message("keys of eniTags must have 1 to 128 characters: EC2 takes no others")
)]
#[serde(rename_all = "camelCase")]
pub struct ENIPoolClassSpec {
    /// Labels of the nodes that this class is for. Absent or empty: all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!has(self.matchExpressions) || self.matchExpressions.all(one, (has(one.values) && one.values.size() > 0) ? one.operator in ['In', 'NotIn'] : one.operator in ['Exists', 'DoesNotExist'])")
        .message("matchExpressions of nodeSelector must have values with the operators In and NotIn, none with Exists and DoesNotExist, and no other operator"))]
    pub node_selector: Option<LabelSelector>,

    #[serde(flatten)]
    pub targets: TargetFields,

    /// Seconds for which an address rests after its pod is gone, before another pod gets it. Absent: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub cooldown_seconds: Option<i32>,

    /// Subnets for new ENIs; only those in the node's own zone are used. Absent: the subnet of the node's primary ENI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("(has(self.ids) && self.ids.size() > 0) != (has(self.tags) && self.tags.size() > 0)")
        .message("a selector needs either ids or tags, and not both"))]
    #[x_kube(validation = Rule::new("!has(self.ids) || self.ids.all(id, id.matches('^subnet-[0-9A-Za-z]+$'))")
        .message("ids must be those of subnets, such as subnet-0123456789abcdef0"))]
    pub subnet_selector: Option<ResourceSelector>,

    /// Security groups of new ENIs. Absent: those of the node's primary ENI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("(has(self.ids) && self.ids.size() > 0) != (has(self.tags) && self.tags.size() > 0)")
        .message("a selector needs either ids or tags, and not both"))]
    #[x_kube(validation = Rule::new("!has(self.ids) || self.ids.all(id, id.matches('^sg-[0-9A-Za-z]+$'))")
        .message("ids must be those of security groups, such as sg-0123456789abcdef0"))]
    pub security_group_selector: Option<ResourceSelector>,

    /// Whether pods get addresses of the node's primary ENI too. `false` keeps pods on ENIs of their own subnets and
    /// security groups (custom networking). Absent: `true`.
    #[serde(rename = "usePrimaryENI", default, skip_serializing_if = "Option::is_none")]
    pub use_primary_eni: Option<bool>,

    /// Tags for the ENIs that enipool makes, beside its own. Tags that say whose an ENI is (`aws:…`, `enipool.dev/…`,
    /// `…k8s.amazonaws.com…`) cannot be set. Absent: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 40))]
    pub eni_tags: BTreeMap<String, Tag>,

    /// What the pool leaves untouched in each subnet, for load balancers and whatever else lives there: a number of
    /// addresses (`100`) or a share of the subnet (`5%`). Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headroom: Option<IntOrString>,

    /// Source NAT of traffic that leaves the VPC. Absent: `{mode: RandomFully}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat: Option<Snat>,

    /// MTU of the ENIs and of the pods' interfaces, in bytes. Absent: 9001.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 9001))]
    pub mtu: Option<i32>,
}

/// A tag's value: at most 256 characters, EC2's limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Tag(#[schemars(length(max = 256))] pub String);

/// Resources of EC2, by id or by tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSelector {
    /// EC2's ids of the resources; nothing in `tags` then. Absent: they are found by `tags`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    pub ids: Vec<String>,
    /// Tags that a resource must all have, with these values; nothing in `ids` then. Absent: they are named by `ids`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub tags: BTreeMap<String, Tag>,
}

/// Source NAT of traffic that leaves the VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snat {
    #[serde(default)]
    pub mode: SnatMode,
    /// Destinations outside the VPC that pods reach with their own address, such as a peered network: IPv4 ranges.
    /// Absent: none.
    #[serde(rename = "excludeCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 18)))]
    #[x_kube(validation = Rule::new("self.all(cidr, isCIDR(cidr) && cidr(cidr).ip().family() == 4)")
        .message("excludeCIDRs must be IPv4 ranges such as 10.8.0.0/16"))]
    pub exclude_cidrs: Vec<String>,
}

/// `RandomFully`: pods leave the VPC with the node's primary address and a fully random source port (the safest
/// against collisions). `HashRandom`: with a port from a hash. `Sequential`: with the pod's own port where it is
/// free. `External`: no source NAT on the node; a NAT gateway or a route does it. Absent: `RandomFully`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SnatMode {
    #[default]
    RandomFully,
    HashRandom,
    Sequential,
    External,
}

/// How the nodes and subnets of a class fare. Written by the operator.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ENIPoolClassStatus {
    /// Nodes that this class applies to.
    #[serde(default)]
    pub nodes: i32,
    /// Free addresses in all subnets of the class, headroom not taken off.
    #[serde(default)]
    pub available_addresses: i32,
    /// The subnets, one entry each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]), length(max = 64))]
    pub subnets: Vec<SubnetStatus>,
    /// `metadata.generation` of the spec that the operator acts on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: subnets and security groups were found. Reasons: `AsPlanned`, `SubnetNotFound`,
    /// `SecurityGroupNotFound`, `AccessDenied`, `Ec2Unavailable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How a subnet fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubnetStatus {
    /// EC2's id, `subnet-0123…`.
    pub id: String,
    /// Its availability zone.
    pub zone: String,
    /// Its range.
    pub cidr: String,
    /// Free addresses as EC2 counts them.
    pub available: i32,
    /// Addresses allocated to nodes that their agents have not taken yet.
    #[serde(default)]
    pub in_flight: i32,
    /// Addresses that the pool leaves untouched.
    #[serde(default)]
    pub headroom: i32,
    /// Addresses that each node would get if the rest were shared evenly.
    #[serde(default)]
    pub share_per_node: i32,
    /// When it runs out at the pace of the last hour; absent while it does not shrink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exhausted_at: Option<Time>,
}

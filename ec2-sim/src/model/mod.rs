//! EC2 as data: VPCs, subnets, instances, interfaces and the rules that AWS documents for them, on a virtual clock.
//!
//! Everything is synchronous and seeded: the same configuration and the same calls give the same answers, ids, addresses
//! and delays. Nothing here reads a clock, sleeps or does I/O; the server and the in-process port do.

mod addresses;
mod attach;
pub mod calls;
pub mod cloudwatch;
pub mod config;
pub mod error;
pub mod event;
pub mod fault;
pub mod filter;
pub mod filters;
mod gate;
mod ids;
mod instance;
pub mod interface;
mod lifecycle;
pub mod metadata;
mod network;
pub mod page;
pub mod replicated;
pub mod request;
pub mod resource;
mod rng;
pub mod subnet;
mod tags;
pub mod throttle;
pub mod timing;
mod token;
mod truth;
pub mod types;

use std::collections::{BTreeMap, BTreeSet};

use enipool_pool::{AttachmentId, EniId, InstanceId, SecurityGroupId, SubnetId, Timestamp, VpcId};

pub use config::{SimConfig, SubnetConfig, VpcConfig};
pub use error::ApiError;
pub use event::Event;
pub use fault::{FaultKind, FaultRule};
pub use filter::Filter;
pub use gate::Reply;
pub use request::{Request, Response};
pub use timing::{Delay, Timing};
pub use truth::{Truth, TruthAttachment, TruthEni, TruthInstance};

use calls::CallLog;
use cloudwatch::Metrics;
use fault::Faults;
use ids::Ids;
use lifecycle::Due;
use replicated::Replicated;
use resource::{InstanceRecord, Interface, SecurityGroup, SubnetRecord, Vpc};
use rng::Rng;
use throttle::Throttle;
use token::Tokens;

/// One account in one region.
#[derive(Debug, Clone)]
pub struct Model {
    config: SimConfig,
    now: Timestamp,
    ids: Ids,
    address_rng: Rng,
    timing_rng: Rng,
    vpcs: BTreeMap<VpcId, Vpc>,
    subnets: BTreeMap<SubnetId, SubnetRecord>,
    groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    instances: BTreeMap<InstanceId, InstanceRecord>,
    enis: BTreeMap<EniId, Replicated<Interface>>,
    /// Interfaces whose readers may still see the past.
    unsettled: BTreeSet<EniId>,
    attachments: BTreeMap<AttachmentId, EniId>,
    live_enis: u32,
    tokens: Tokens,
    throttle: Throttle,
    faults: Faults,
    calls: CallLog,
    metrics: Metrics,
    /// CloudWatch's own: its calls must not shift what EC2 is counted for, nor what it draws.
    cloudwatch_calls: CallLog,
    cloudwatch_ids: Ids,
    cloudwatch_rng: Rng,
    /// What will happen by itself, by time and then in the order of its making.
    due: BTreeMap<(Timestamp, u64), Due>,
    due_seq: u64,
    /// Held up by a fault, until that is removed.
    stuck: Vec<(u64, Due)>,
    events: Vec<Event>,
}

impl Model {
    /// Builds the region. Fails when the configuration is not one that AWS would accept (ranges, zones).
    pub fn new(config: SimConfig) -> Result<Self, ApiError> {
        let mut model = Self {
            now: config.start,
            ids: Ids::new(config.seed, "ids"),
            address_rng: Rng::new(config.seed, "addresses"),
            timing_rng: Rng::new(config.seed, "timing"),
            vpcs: BTreeMap::new(),
            subnets: BTreeMap::new(),
            groups: BTreeMap::new(),
            instances: BTreeMap::new(),
            enis: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            attachments: BTreeMap::new(),
            live_enis: 0,
            tokens: Tokens::default(),
            throttle: Throttle::new(config.throttle.clone()),
            faults: Faults::default(),
            calls: CallLog::new(config.keep_calls),
            metrics: Metrics::default(),
            cloudwatch_calls: CallLog::new(config.keep_calls),
            cloudwatch_ids: Ids::new(config.seed, "cloudwatch ids"),
            cloudwatch_rng: Rng::new(config.seed, "cloudwatch timing"),
            due: BTreeMap::new(),
            due_seq: 0,
            stuck: Vec::new(),
            events: Vec::new(),
            config,
        };
        model.build_network()?;
        Ok(model)
    }

    pub fn config(&self) -> &SimConfig {
        &self.config
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    pub fn set_timing(&mut self, timing: Timing) {
        self.config.timing = timing;
    }

    pub fn set_throttle(&mut self, throttle: throttle::ThrottleConfig) {
        self.config.throttle = throttle.clone();
        self.throttle.reconfigure(throttle);
    }

    pub fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Puts a fault in force; its id removes it.
    pub fn inject(&mut self, rule: FaultRule) -> u64 {
        self.faults.add(rule)
    }

    /// Ends a fault; what it held up goes on now. False if there is no such fault.
    pub fn end_fault(&mut self, id: u64) -> bool {
        let existed = self.faults.remove(id);
        self.unstick(|fault| fault == id);
        existed
    }

    pub fn end_all_faults(&mut self) {
        self.faults.clear();
        self.unstick(|_| true);
    }

    /// The ledger of EC2's calls.
    pub fn calls(&self) -> &CallLog {
        &self.calls
    }

    /// The ledger of CloudWatch's calls, with numbers of its own.
    pub fn cloudwatch_calls(&self) -> &CallLog {
        &self.cloudwatch_calls
    }

    /// Empties both ledgers.
    pub fn reset_calls(&mut self) {
        self.calls.reset();
        self.cloudwatch_calls.reset();
    }

    /// What PutMetricData has brought.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn clear_metrics(&mut self) {
        self.metrics.clear();
    }

    /// Takes the events since the last time, in the order in which they became effective.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub fn vpcs(&self) -> impl Iterator<Item = &Vpc> {
        self.vpcs.values()
    }

    pub fn subnets(&self) -> impl Iterator<Item = &SubnetRecord> {
        self.subnets.values()
    }

    pub fn security_groups(&self) -> impl Iterator<Item = &SecurityGroup> {
        self.groups.values()
    }

    pub fn instances(&self) -> impl Iterator<Item = &InstanceRecord> {
        self.instances.values()
    }

    /// All interfaces as they are, whatever describe calls show.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.enis.values().filter_map(Replicated::current)
    }

    pub fn interface(&self, id: &EniId) -> Option<&Interface> {
        self.enis.get(id).and_then(Replicated::current)
    }
}

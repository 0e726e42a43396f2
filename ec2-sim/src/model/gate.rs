//! The front door: every EC2 call passes faults, throttling and the dry run before the model acts on it, and is written
//! into the ledger with how it ended.

use std::time::Duration;

use super::Model;
use super::calls::CallRecord;
use super::error::ApiError;
use super::fault::FaultKind;
use super::request::{Request, Response};
use super::throttle::Bucket;

/// How a call ended and when its caller hears of it. The model has changed already: an answer under way cannot be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<R = Response> {
    pub result: Result<R, ApiError>,
    pub request_id: String,
    /// From the call to the answer.
    pub latency: Duration,
    /// False: the connection ends without an answer after `latency`.
    pub answered: bool,
}

impl Model {
    /// Carries out one call at the model's present time. `caller` is the access key that signed it.
    pub fn call(&mut self, caller: &str, request: &Request) -> Reply {
        self.call_with(caller, request, false)
    }

    /// The same with EC2's `DryRun` flag.
    pub fn call_with(&mut self, caller: &str, request: &Request, dry_run: bool) -> Reply {
        let action = request.action();
        let resources = request.resources();
        let befallen = self.faults.befall(caller, action, &resources);
        let mut latency = self.config.timing.answer_to(action).draw(&mut self.timing_rng) + befallen.extra_delay;
        let fault = befallen.failure;
        let (result, answered) = match fault.as_ref().map(|(_, kind)| kind) {
            Some(FaultKind::Throttle) => (Err(ApiError::throttled()), true),
            Some(FaultKind::Denied) => (Err(ApiError::unauthorized(action)), true),
            Some(FaultKind::InternalError) => (Err(ApiError::internal()), true),
            Some(FaultKind::Unavailable) => (Err(ApiError::unavailable()), true),
            Some(FaultKind::InsufficientAddresses) => (Err(full_subnet(request)), true),
            Some(FaultKind::InsufficientPrefixes) => (Err(ApiError::insufficient_prefixes()), true),
            Some(FaultKind::Error { status, code, message }) => {
                let error = ApiError { status: *status, ..ApiError::client(code.clone(), message.clone()) };
                (Err(error), true)
            }
            Some(FaultKind::RequestLost) => (Err(ApiError::unavailable()), false),
            Some(FaultKind::AnswerLost) => (self.admit(request, dry_run, None), false),
            Some(FaultKind::AppliedInternalError) => {
                (self.admit(request, dry_run, None).and_then(|_| Err(ApiError::internal())), true)
            }
            Some(FaultKind::StuckAttach | FaultKind::StuckDetach) => {
                (self.admit(request, dry_run, fault.as_ref().map(|(id, _)| *id)), true)
            }
            Some(FaultKind::Slow { .. }) | None => (self.admit(request, dry_run, None), true),
        };
        if matches!(&result, Err(error) if error.code == "RequestLimitExceeded") {
            // A throttled call is turned away at the door, long before it would have been worked on.
            latency = latency.min(Duration::from_millis(50));
        }
        // Delays of nothing take effect within the call.
        self.advance(self.now);
        self.write_down(caller, request, &result, answered, latency);
        Reply { result, request_id: self.ids.request_id(), latency, answered }
    }

    fn admit(&mut self, request: &Request, dry_run: bool, stuck: Option<u64>) -> Result<Response, ApiError> {
        let action = request.action();
        let bucket = if request.is_unfiltered() { Bucket::Unfiltered(action) } else { Bucket::Action(action) };
        if !self.throttle.draw(bucket, 1, self.now) {
            return Err(ApiError::throttled());
        }
        if let Some(bucket) = Bucket::of_instances(action)
            && !self.throttle.draw(bucket, request.instances(), self.now)
        {
            return Err(ApiError::throttled());
        }
        if dry_run {
            return Err(ApiError::dry_run());
        }
        self.carry_out(request, stuck)
    }

    /// What the action does; `stuck` is the fault that holds its effect up.
    fn carry_out(&mut self, request: &Request, stuck: Option<u64>) -> Result<Response, ApiError> {
        match request {
            Request::RunInstances(run) => self.run_instances(run),
            Request::TerminateInstances(ids) => self.terminate_instances(ids),
            Request::StopInstances(ids) => self.stop_instances(ids),
            Request::StartInstances(ids) => self.start_instances(ids),
            Request::DescribeInstances(describe) => self.describe_instances(describe),
            Request::DescribeInstanceTypes(describe) => Self::describe_instance_types(describe),
            Request::DescribeVpcs(describe) => self.describe_vpcs(describe),
            Request::DescribeSubnets(describe) => self.describe_subnets(describe),
            Request::DescribeSecurityGroups(describe) => self.describe_security_groups(describe),
            Request::DescribeNetworkInterfaces(describe) => self.describe_interfaces(describe),
            Request::CreateNetworkInterface(create) => self.create_interface(create),
            Request::AttachNetworkInterface(attach) => self.attach_interface(attach, stuck),
            Request::DetachNetworkInterface { attachment, force } => self.detach_interface(attachment, *force, stuck),
            Request::DeleteNetworkInterface(id) => self.delete_interface(id),
            Request::ModifyNetworkInterfaceAttribute(modify) => self.modify_interface(modify),
            Request::AssignPrivateIpAddresses(assign) => self.assign_addresses(assign),
            Request::UnassignPrivateIpAddresses(unassign) => self.unassign_addresses(unassign),
            Request::CreateTags { resources, tags } => self.create_tags(resources, tags),
            Request::CreateVpc { cidr, tags } => self.create_vpc(*cidr, tags),
            Request::CreateSubnet { vpc, zone, cidr, tags } => self.create_subnet(vpc, zone.as_ref(), *cidr, tags),
            Request::CreateSecurityGroup { vpc, name, description, tags } => {
                self.create_security_group(vpc, name, description, tags)
            }
        }
    }

    /// Carries out what others in the account do (a node group that launches instances, say): no fault befalls it, it
    /// uses up no limit, and the ledger does not have it.
    pub fn act(&mut self, request: &Request) -> Result<Response, ApiError> {
        let result = self.carry_out(request, None);
        self.advance(self.now);
        result
    }

    /// A call that could not even be read: counted like any other.
    pub fn refuse(&mut self, caller: &str, action: &'static str, error: ApiError) -> Reply {
        self.calls.record(CallRecord {
            seq: 0,
            at: self.now,
            action,
            caller: caller.to_owned(),
            resources: Vec::new(),
            client_token: None,
            error: Some(error.code.to_string()),
            answered: true,
            latency_ms: 0,
        });
        Reply { result: Err(error), request_id: self.ids.request_id(), latency: Duration::ZERO, answered: true }
    }

    fn write_down(
        &mut self,
        caller: &str,
        request: &Request,
        result: &Result<Response, ApiError>,
        answered: bool,
        latency: Duration,
    ) {
        let mut resources: Vec<String> = request.resources().into_iter().map(str::to_owned).collect();
        match result {
            Ok(Response::Interface(interface)) => resources.push(interface.id.to_string()),
            Ok(Response::Attached { attachment, .. }) => resources.push(attachment.to_string()),
            Ok(Response::Reservation(instances)) => resources.extend(instances.iter().map(|i| i.id.to_string())),
            _ => {}
        }
        self.calls.record(CallRecord {
            seq: 0,
            at: self.now,
            action: request.action(),
            caller: caller.to_owned(),
            resources,
            client_token: request.client_token().map(str::to_owned),
            error: result.as_ref().err().map(|error| error.code.to_string()),
            answered,
            latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
        });
    }
}

/// What this request would hear in a full subnet.
fn full_subnet(request: &Request) -> ApiError {
    match request {
        Request::CreateNetworkInterface(_) => ApiError::more_than_free(),
        Request::RunInstances(_) => {
            let subnets = request.resources();
            ApiError::no_room_for_instances(subnets.first().copied().unwrap_or("subnet-default"))
        }
        _ => ApiError::insufficient_addresses(),
    }
}

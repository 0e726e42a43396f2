//! CloudWatch's front door, as EC2's is: faults, throttling, then the action, and a line in CloudWatch's own ledger.

use std::time::Duration;

use super::request::{Request, Response};
use super::{Reply, error, rules};
use crate::model::calls::CallRecord;
use crate::model::fault::FaultKind;
use crate::model::throttle::Bucket;
use crate::model::{ApiError, Model};

impl Model {
    /// Carries out one call at the model's present time. `caller` is the access key that signed it.
    pub fn call_cloudwatch(&mut self, caller: &str, request: Request) -> Reply {
        let action = request.action();
        let resources: Vec<String> = request.resources().into_iter().map(str::to_owned).collect();
        let named: Vec<&str> = resources.iter().map(String::as_str).collect();
        let befallen = self.faults.befall(caller, action, &named);
        let answer = self.config.timing.answer_to(action).draw(&mut self.cloudwatch_rng);
        let latency = answer + befallen.extra_delay;
        let (result, answered) = match befallen.failure.map(|(_, kind)| kind) {
            Some(FaultKind::Throttle) => (Err(error::throttled()), true),
            Some(FaultKind::Denied) => (Err(error::denied(&self.user_arn(caller), action)), true),
            Some(FaultKind::InternalError) => (Err(error::internal()), true),
            Some(FaultKind::Unavailable) => (Err(error::unavailable()), true),
            Some(FaultKind::Error { status, code, message }) => {
                (Err(ApiError { status, ..ApiError::client(code, message) }), true)
            }
            Some(FaultKind::RequestLost) => (Err(error::unavailable()), false),
            Some(FaultKind::AnswerLost) => (self.admit_cloudwatch(request), false),
            Some(FaultKind::AppliedInternalError) => {
                (self.admit_cloudwatch(request).and_then(|_| Err(error::internal())), true)
            }
            // Those of subnets and attachments mean nothing here; a rule that is read cannot ask for them.
            Some(
                FaultKind::InsufficientAddresses
                | FaultKind::InsufficientPrefixes
                | FaultKind::StuckAttach
                | FaultKind::StuckDetach
                | FaultKind::Slow { .. },
            )
            | None => (self.admit_cloudwatch(request), true),
        };
        self.write_down_cloudwatch(caller, action, resources, &result, answered, latency);
        Reply { result, request_id: self.cloudwatch_ids.request_id(), latency, answered }
    }

    /// A call that could not even be read: counted like any other.
    pub fn refuse_cloudwatch(&mut self, caller: &str, action: &'static str, error: ApiError) -> Reply {
        let result = Err(error);
        self.write_down_cloudwatch(caller, action, Vec::new(), &result, true, Duration::ZERO);
        let request_id = self.cloudwatch_ids.request_id();
        Reply { result, request_id, latency: Duration::ZERO, answered: true }
    }

    fn admit_cloudwatch(&mut self, request: Request) -> Result<Response, ApiError> {
        if !self.throttle.draw(Bucket::Action(request.action()), 1, self.now) {
            return Err(error::throttled());
        }
        match request {
            Request::PutMetricData(put) => {
                for sample in rules::samples(put, self.now)? {
                    self.metrics.add(sample, self.now);
                }
                Ok(Response::Done)
            }
            Request::ListMetrics(list) => self.metrics.list(list, self.now),
            Request::GetMetricStatistics(get) => self.metrics.statistics(get),
            Request::GetMetricData(get) => self.metrics.data(get),
        }
    }

    fn write_down_cloudwatch(
        &mut self,
        caller: &str,
        action: &'static str,
        resources: Vec<String>,
        result: &Result<Response, ApiError>,
        answered: bool,
        latency: Duration,
    ) {
        self.cloudwatch_calls.record(CallRecord {
            seq: 0,
            at: self.now,
            action,
            caller: caller.to_owned(),
            resources,
            client_token: None,
            error: result.as_ref().err().map(|error| error.code.to_string()),
            answered,
            latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
        });
    }

    /// The session of the role whose credentials these are, as IAM names it.
    fn user_arn(&self, caller: &str) -> String {
        let config = &self.config;
        format!("arn:aws:sts::{}:assumed-role/{}/{caller}", config.account, config.iam_role)
    }
}

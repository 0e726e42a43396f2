//! From responses to bodies and headers of the protocol that the request came in.

use super::tree::Tree;
use super::{Call, Protocol, cbor, form, json};
use crate::model::ApiError;
use crate::model::cloudwatch::request::{Datapoint, QueryResult, Statistic};
use crate::model::cloudwatch::{MetricId, Response};

/// What is specific to the protocol in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub content_type: Option<&'static str>,
    pub body: Vec<u8>,
    pub headers: Vec<(&'static str, String)>,
}

impl Call {
    /// The answer to `action`.
    pub fn success(&self, action: &str, response: &Response, request_id: &str) -> Rendered {
        let tree = result(response);
        match self.protocol {
            // An action without a result has no body here.
            Protocol::Cbor if *response == Response::Done => self.rendered(None, Vec::new()),
            Protocol::Cbor => self.rendered(Some("application/cbor"), cbor::write(&tree)),
            Protocol::Json => self.rendered(Some("application/x-amz-json-1.0"), json::write(&tree)),
            Protocol::Query => self.rendered(Some("text/xml"), form::write(action, &tree, request_id).into_bytes()),
        }
    }

    /// The answer to a call that failed.
    pub fn failure(&self, error: &ApiError, request_id: &str) -> Rendered {
        let sender = error.status < 500;
        let shape = shape(&error.code);
        // The one structure of these that spells it so.
        let message = if shape == "InternalServiceFault" { "Message" } else { "message" };
        let tree = Tree::map([
            ("__type", Tree::text(format!("com.amazonaws.cloudwatch#{shape}"))),
            (message, Tree::text(error.message.as_str())),
        ]);
        let mut rendered = match self.protocol {
            Protocol::Cbor => self.rendered(Some("application/cbor"), cbor::write(&tree)),
            Protocol::Json => self.rendered(Some("application/x-amz-json-1.0"), json::write(&tree)),
            Protocol::Query => {
                self.rendered(Some("text/xml"), form::write_error(error, sender, request_id).into_bytes())
            }
        };
        if self.query_mode {
            let side = if sender { "Sender" } else { "Receiver" };
            rendered.headers.push(("x-amzn-query-error", format!("{};{side}", error.code)));
        }
        rendered
    }

    fn rendered(&self, content_type: Option<&'static str>, body: Vec<u8>) -> Rendered {
        let headers = match self.protocol {
            Protocol::Cbor => vec![("smithy-protocol", "rpc-v2-cbor".to_owned())],
            Protocol::Json | Protocol::Query => Vec::new(),
        };
        Rendered { content_type, body, headers }
    }
}

/// The structure's name of an error code of the Query protocol, by the SDKs' service model.
fn shape(code: &str) -> &str {
    match code {
        "InternalServiceError" => "InternalServiceFault",
        "InvalidParameterCombination" => "InvalidParameterCombinationException",
        "InvalidParameterValue" => "InvalidParameterValueException",
        "MissingParameter" => "MissingRequiredParameterException",
        "ValidationError" => "ValidationException",
        // Common errors, which the model does not have.
        "AccessDenied" => "AccessDeniedException",
        "Throttling" => "ThrottlingException",
        "InvalidAction" => "UnknownOperationException",
        "MissingAuthenticationToken" => "MissingAuthenticationTokenException",
        other => other,
    }
}

fn result(response: &Response) -> Tree {
    match response {
        Response::Done => Tree::Map(Vec::new()),
        Response::Metrics { metrics, next_token } => {
            Tree::map([("Metrics", Tree::list(metrics, metric)), ("NextToken", Tree::optional(next_token.clone()))])
        }
        Response::Statistics { label, datapoints, wanted } => Tree::map([
            ("Label", Tree::text(label.as_str())),
            ("Datapoints", Tree::list(datapoints, |datapoint| statistics(datapoint, wanted))),
        ]),
        Response::Data { results, next_token } => Tree::map([
            ("MetricDataResults", Tree::list(results, query_result)),
            ("NextToken", Tree::optional(next_token.clone())),
            ("Messages", Tree::List(Vec::new())),
        ]),
    }
}

fn metric(id: &MetricId) -> Tree {
    let dimension = |(name, value): &(String, String)| {
        Tree::map([("Name", Tree::text(name.as_str())), ("Value", Tree::text(value.as_str()))])
    };
    Tree::map([
        ("Namespace", Tree::text(id.namespace.as_str())),
        ("MetricName", Tree::text(id.name.as_str())),
        ("Dimensions", Tree::list(&id.dimensions, dimension)),
    ])
}

fn statistics(datapoint: &Datapoint, wanted: &[Statistic]) -> Tree {
    let mut members = vec![("Timestamp".to_owned(), Tree::Time(datapoint.at))];
    members.extend(
        Statistic::ALL
            .into_iter()
            .filter(|statistic| wanted.contains(statistic))
            .map(|statistic| (statistic.name().to_owned(), Tree::Number(statistic.of(&datapoint.statistics)))),
    );
    members.push(("Unit".to_owned(), Tree::text(datapoint.unit.as_str())));
    Tree::Map(members)
}

fn query_result(result: &QueryResult) -> Tree {
    Tree::map([
        ("Id", Tree::text(result.id.as_str())),
        ("Label", Tree::text(result.label.as_str())),
        ("Timestamps", Tree::list(&result.points, |(at, _)| Tree::Time(*at))),
        ("Values", Tree::list(&result.points, |(_, value)| Tree::Number(*value))),
        ("StatusCode", Tree::text(if result.complete { "Complete" } else { "PartialData" })),
    ])
}

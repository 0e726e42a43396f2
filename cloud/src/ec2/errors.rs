//! EC2's error codes as the pool's closed set. EC2 models no errors: codes and messages are text, and this is the one
//! place that reads them.
//!
//! Codes: [EC2 API: Error codes](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html).

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::error::display::DisplayErrorContext;
use enipool_pool::ec2::{Action, Ec2Error, Ec2ErrorKind, Supply};

/// Longest text of an error that is passed on: it ends up in a status and in logs.
const MESSAGE_MAX: usize = 600;

/// A failed call as the pool sees it.
pub(super) fn failed<E>(action: Action, error: &SdkError<E, HttpResponse>) -> Ec2Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    SdkError<E, HttpResponse>: RequestId,
{
    let request_id = error.request_id().map(str::to_owned);
    let (kind, text) = match error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or_default();
            let message = answer.err().message().unwrap_or_default();
            let kind = kind_of(code, message, answer.raw().status().as_u16());
            (kind, format!("{code}: {message}"))
        }
        SdkError::ResponseError(answer) if answer.raw().status().is_server_error() => {
            (Ec2ErrorKind::Internal, format!("HTTP {}", answer.raw().status().as_u16()))
        }
        SdkError::TimeoutError(_) => (Ec2ErrorKind::NoAnswer, "no answer in time".into()),
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
            let text = DisplayErrorContext(error).to_string();
            (undispatched(&text), text)
        }
        // An answer that cannot be read among them.
        _ => (Ec2ErrorKind::Unexpected, DisplayErrorContext(error).to_string()),
    };
    let text = match request_id {
        Some(id) => format!("{}, request {id}", shortened(&text)),
        None => shortened(&text).to_owned(),
    };
    Ec2Error { action, kind, message: Some(text) }
}

/// An answer that lacks what EC2 documents for it.
pub(super) fn unreadable(action: Action, what: impl Into<String>) -> Ec2Error {
    Ec2Error { action, kind: Ec2ErrorKind::Unexpected, message: Some(what.into()) }
}

/// EC2 says "aren't sufficient free Ipv4 addresses or prefixes", without a code of its own and whatever was asked for
/// ([cilium#31016](https://github.com/cilium/cilium/issues/31016)): what was asked for decides what is missing.
pub(super) fn for_supply(mut error: Ec2Error, supply: Supply) -> Ec2Error {
    let vague = error.message.as_deref().is_some_and(|message| message.starts_with("InvalidParameterValue"));
    if vague && matches!(error.kind, Ec2ErrorKind::SubnetExhausted | Ec2ErrorKind::NoContiguousPrefix) {
        error.kind = match supply {
            Supply::Addresses(_) => Ec2ErrorKind::SubnetExhausted,
            Supply::Prefixes(_) => Ec2ErrorKind::NoContiguousPrefix,
        };
    }
    error
}

/// The request did not get an answer, and perhaps never left: without credentials it certainly did not.
fn undispatched(text: &str) -> Ec2ErrorKind {
    if text.to_ascii_lowercase().contains("credentials") { Ec2ErrorKind::Credentials } else { Ec2ErrorKind::NoAnswer }
}

/// The table.
fn kind_of(code: &str, message: &str, status: u16) -> Ec2ErrorKind {
    match code {
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "EC2ThrottledException"
        | "TooManyRequestsException" => Ec2ErrorKind::Throttled,
        "InsufficientFreeAddressesInSubnet" => Ec2ErrorKind::SubnetExhausted,
        "InsufficientCidrBlocks" => Ec2ErrorKind::NoContiguousPrefix,
        "AttachmentLimitExceeded" => Ec2ErrorKind::AttachmentLimit,
        "PrivateIpAddressLimitExceeded" => Ec2ErrorKind::AddressLimit,
        "NetworkInterfaceLimitExceeded" => Ec2ErrorKind::AccountLimit,
        "IncorrectState" | "IncorrectInstanceState" => Ec2ErrorKind::InstanceNotRunning,
        "InvalidNetworkInterfaceID.NotFound" | "InvalidNetworkInterfaceId.NotFound" => Ec2ErrorKind::EniNotFound,
        "InvalidInstanceID.NotFound" => Ec2ErrorKind::InstanceNotFound,
        "InvalidAttachmentID.NotFound" => Ec2ErrorKind::AttachmentNotFound,
        "InvalidNetworkInterface.InUse" => Ec2ErrorKind::EniInUse,
        "IdempotentParameterMismatch" => Ec2ErrorKind::TokenMismatch,
        "InvalidParameterValue" | "InvalidParameterCombination" => by_message(message),
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" | "OptInRequired" | "Blocked" => {
            Ec2ErrorKind::AccessDenied
        }
        "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken" => Ec2ErrorKind::Credentials,
        _ if status >= 500 => Ec2ErrorKind::Internal,
        _ => Ec2ErrorKind::Unexpected,
    }
}

/// The forms of `InvalidParameterValue` that EC2 uses where it has a code of its own, or should have one.
fn by_message(message: &str) -> Ec2ErrorKind {
    let message = message.to_ascii_lowercase();
    let says = |part: &str| message.contains(part);
    if says("device index") {
        Ec2ErrorKind::DeviceIndexInUse
    } else if says("currently in use") || says("already attached") {
        Ec2ErrorKind::EniInUse
    } else if says("not assigned to interface") || says("not assigned to network interface") {
        Ec2ErrorKind::AddressNotAssigned
    } else if says("sufficient free") || (says("free") && (says("not enough") || says("not have enough"))) {
        if says("prefix") || says("cidr") { Ec2ErrorKind::NoContiguousPrefix } else { Ec2ErrorKind::SubnetExhausted }
    } else {
        Ec2ErrorKind::Unexpected
    }
}

fn shortened(text: &str) -> &str {
    text.char_indices().nth(MESSAGE_MAX).map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_without_addresses_is_recognised_in_every_form() {
        for (code, message) in [
            (
                "InsufficientFreeAddressesInSubnet",
                "The specified subnet does not have enough free addresses to satisfy the request.",
            ),
            (
                "InvalidParameterValue",
                "There are insufficient free addresses in subnet subnet-1 to satisfy the request",
            ),
            ("InvalidParameterValue", "The subnet does not have enough free addresses"),
        ] {
            assert_eq!(kind_of(code, message, 400), Ec2ErrorKind::SubnetExhausted, "{message}");
        }
        for (code, message) in [
            (
                "InsufficientCidrBlocks",
                "The specified subnet does not have enough free cidr blocks to satisfy the request.",
            ),
            ("InvalidParameterValue", "There are insufficient free prefixes in subnet subnet-1"),
        ] {
            assert_eq!(kind_of(code, message, 400), Ec2ErrorKind::NoContiguousPrefix, "{message}");
        }
    }

    #[test]
    fn a_vague_answer_is_about_what_was_asked_for() {
        let message = "There aren't sufficient free Ipv4 addresses or prefixes";
        let kind = kind_of("InvalidParameterValue", message, 400);
        let error = |supply| {
            let text = Some(format!("InvalidParameterValue: {message}"));
            for_supply(Ec2Error { action: Action::CreateNetworkInterface, kind: kind.clone(), message: text }, supply)
                .kind
        };
        assert_eq!(error(Supply::Addresses(3)), Ec2ErrorKind::SubnetExhausted);
        assert_eq!(error(Supply::Prefixes(1)), Ec2ErrorKind::NoContiguousPrefix);
    }

    #[test]
    fn an_invalid_value_is_told_apart_by_its_words() {
        let kind = |message| kind_of("InvalidParameterValue", message, 400);
        assert_eq!(
            kind("Instance 'i-1' already has an interface attached at device index '1'."),
            Ec2ErrorKind::DeviceIndexInUse
        );
        assert_eq!(kind("Network interface 'eni-1' is currently in use."), Ec2ErrorKind::EniInUse);
        assert_eq!(
            kind("Some of the specified addresses are not assigned to interface eni-1"),
            Ec2ErrorKind::AddressNotAssigned
        );
        assert_eq!(kind("Value (9) for parameter foo is invalid"), Ec2ErrorKind::Unexpected);
    }

    #[test]
    fn a_code_that_nobody_knows_is_an_internal_error_only_if_the_server_says_so() {
        assert_eq!(kind_of("SomethingNew", "", 400), Ec2ErrorKind::Unexpected);
        assert_eq!(kind_of("SomethingNew", "", 503), Ec2ErrorKind::Internal);
        assert_eq!(kind_of("RequestLimitExceeded", "", 503), Ec2ErrorKind::Throttled, "not a failure of EC2");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        assert_eq!(shortened(&"é".repeat(MESSAGE_MAX + 10)).chars().count(), MESSAGE_MAX);
        assert_eq!(shortened("short"), "short");
    }
}

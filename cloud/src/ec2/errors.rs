//! EC2's error codes as the pool's closed set. EC2 models no errors: codes and messages are text, and this is the one
//! place that reads them.
//!
//! Codes: [EC2 API: Error codes](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html).

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use enipool_pool::ec2::{Action, Ec2Error, Ec2ErrorKind, Supply};

use crate::failure::{Failure, How, is_about_credentials, is_denial, is_throttling};

/// A failed call as the pool sees it.
pub(super) fn failed<E>(action: Action, error: &SdkError<E, HttpResponse>) -> Ec2Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    SdkError<E, HttpResponse>: RequestId,
{
    let Failure { how, text } = Failure::of(error);
    let kind = match how {
        How::Answered { code, message, status } => kind_of(&code, &message, status),
        How::ServerError => Ec2ErrorKind::Internal,
        How::NoAnswer => Ec2ErrorKind::NoAnswer,
        How::NoCredentials => Ec2ErrorKind::Credentials,
        How::Unreadable => Ec2ErrorKind::Unexpected,
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

/// The table.
fn kind_of(code: &str, message: &str, status: u16) -> Ec2ErrorKind {
    match code {
        _ if is_throttling(code) => Ec2ErrorKind::Throttled,
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
        _ if is_denial(code) => Ec2ErrorKind::AccessDenied,
        _ if is_about_credentials(code) => Ec2ErrorKind::Credentials,
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
}

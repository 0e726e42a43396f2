//! Failed calls in EC2's own codes and words.
//!
//! Codes: [EC2 API: Error codes](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html). Messages
//! are those that clients in the wild match on, where such are known.

use std::borrow::Cow;

use serde::Serialize;

/// An error answer: HTTP status, EC2's code and message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    pub status: u16,
    pub code: Cow<'static, str>,
    pub message: String,
}

impl ApiError {
    /// A client error (400).
    pub fn client(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { status: 400, code: code.into(), message: message.into() }
    }

    pub fn invalid_value(message: impl Into<String>) -> Self {
        Self::client("InvalidParameterValue", message)
    }

    pub fn invalid_combination(message: impl Into<String>) -> Self {
        Self::client("InvalidParameterCombination", message)
    }

    pub fn missing(parameter: &str) -> Self {
        Self::client("MissingParameter", format!("The request must contain the parameter {parameter}"))
    }

    /// An id of the wrong form.
    pub fn malformed_id(kind: &str, id: &str) -> Self {
        Self::client(format!("Invalid{kind}.Malformed"), format!("Invalid id: \"{id}\""))
    }

    pub fn eni_not_found(id: &str) -> Self {
        Self::enis_not_found(&[id])
    }

    pub fn enis_not_found(ids: &[&str]) -> Self {
        Self::client("InvalidNetworkInterfaceID.NotFound", do_not_exist("networkInterface", ids))
    }

    pub fn instance_not_found(id: &str) -> Self {
        Self::instances_not_found(&[id])
    }

    pub fn instances_not_found(ids: &[&str]) -> Self {
        Self::client("InvalidInstanceID.NotFound", do_not_exist("instance", ids))
    }

    pub fn attachment_not_found(id: &str) -> Self {
        Self::client("InvalidAttachmentID.NotFound", format!("The attachment ID '{id}' does not exist"))
    }

    pub fn subnet_not_found(id: &str) -> Self {
        Self::client("InvalidSubnetID.NotFound", format!("The subnet ID '{id}' does not exist"))
    }

    pub fn group_not_found(id: &str) -> Self {
        Self::client("InvalidGroup.NotFound", format!("The security group '{id}' does not exist"))
    }

    pub fn vpc_not_found(id: &str) -> Self {
        Self::client("InvalidVpcID.NotFound", format!("The vpc ID '{id}' does not exist"))
    }

    pub fn insufficient_addresses() -> Self {
        Self::client(
            "InsufficientFreeAddressesInSubnet",
            "The specified subnet does not have enough free addresses to satisfy the request.",
        )
    }

    /// What EC2 says instead when a new interface, or prefixes, ask for more than is free in the whole subnet
    /// ([cilium#31016](https://github.com/cilium/cilium/pull/31016) quotes AWS on when which of the codes comes).
    pub fn more_than_free() -> Self {
        Self::invalid_value("There aren't sufficient free Ipv4 addresses or prefixes")
    }

    /// What RunInstances says when the subnet does not hold the interfaces of the launch
    /// ([osbuild-composer#1575](https://github.com/osbuild/osbuild-composer/issues/1575) quotes it).
    pub fn no_room_for_instances(subnet: &str) -> Self {
        Self::client(
            "InsufficientFreeAddressesInSubnet",
            format!(
                "There are not enough free addresses in subnet '{subnet}' to satisfy the requested number of instances."
            ),
        )
    }

    /// Addresses may be left, but no whole /28.
    pub fn insufficient_prefixes() -> Self {
        Self::client(
            "InsufficientCidrBlocks",
            "The specified subnet does not have enough free cidr blocks to satisfy the request.",
        )
    }

    pub fn throttled() -> Self {
        Self { status: 503, ..Self::client("RequestLimitExceeded", "Request limit exceeded.") }
    }

    pub fn unauthorized(action: &str) -> Self {
        let message = format!(
            "You are not authorized to perform this operation. User is not authorized to perform: ec2:{action} \
             because no identity-based policy allows the ec2:{action} action."
        );
        Self { status: 403, ..Self::client("UnauthorizedOperation", message) }
    }

    pub fn internal() -> Self {
        Self { status: 500, ..Self::client("InternalError", "An internal error has occurred") }
    }

    pub fn unavailable() -> Self {
        Self { status: 503, ..Self::client("Unavailable", "The service is unavailable. Please try again shortly.") }
    }

    pub fn dry_run() -> Self {
        let message = "Request would have succeeded, but DryRun flag is set.";
        Self { status: 412, ..Self::client("DryRunOperation", message) }
    }

    pub fn token_mismatch(token: &str) -> Self {
        Self::client(
            "IdempotentParameterMismatch",
            format!("The client token '{token}' was used before with different request parameters."),
        )
    }

    pub fn bad_page_token() -> Self {
        Self::client("InvalidPaginationToken", "The specified pagination token is not valid or is expired.")
    }
}

fn do_not_exist(kind: &str, ids: &[&str]) -> String {
    match ids {
        [one] => format!("The {kind} ID '{one}' does not exist"),
        several => format!("The {kind} IDs '{}' do not exist", several.join(", ")),
    }
}

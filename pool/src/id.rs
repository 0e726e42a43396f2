//! Identifiers of AWS resources as types, parsed once at the edge. They say nothing about what the resources do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An identifier that does not have the form that AWS gives it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {what}: expected {expected}")]
pub struct IdError {
    pub value: String,
    pub what: &'static str,
    pub expected: &'static str,
}

macro_rules! prefixed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(value: &str) -> Result<Self, IdError> {
                match value.strip_prefix($prefix) {
                    Some(rest) if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                        Ok(Self(value.into()))
                    }
                    _ => Err(IdError { value: value.into(), what: $what, expected: concat!($prefix, "… (letters and digits)") }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(value: String) -> Result<Self, IdError> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

prefixed_id!(/// An elastic network interface: `eni-0123…`.
    EniId, "eni-", "a network interface id");
prefixed_id!(/// The attachment of an interface to an instance: `eni-attach-0123…`. A new one for every attach.
    AttachmentId, "eni-attach-", "a network interface attachment id");
prefixed_id!(/// An EC2 instance: `i-0123…`.
    InstanceId, "i-", "an instance id");
prefixed_id!(/// A VPC subnet: `subnet-0123…`.
    SubnetId, "subnet-", "a subnet id");
prefixed_id!(/// A VPC: `vpc-0123…`.
    VpcId, "vpc-", "a VPC id");
prefixed_id!(/// A security group: `sg-0123…`.
    SecurityGroupId, "sg-", "a security group id");

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            pub fn new(value: impl Into<Box<str>>) -> Self {
                Self(value.into())
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(/// An instance type, `m5.large`. Any text: new types appear every month.
    InstanceType);
name!(/// An availability zone, `eu-west-1a`.
    Zone);
name!(/// EC2's idempotency key of one creation: the same token never creates twice.
    ///
    /// At most 64 ASCII characters ([EC2 API: Ensuring idempotency](https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html)).
    ClientToken);

/// A link-layer address, in the kernel's and EC2's form `0a:1b:2c:3d:4e:5f`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl FromStr for MacAddress {
    type Err = IdError;
    fn from_str(value: &str) -> Result<Self, IdError> {
        let error = || IdError {
            value: value.into(),
            what: "a MAC address",
            expected: "six hexadecimal bytes, 0a:1b:2c:3d:4e:5f",
        };
        let mut bytes = [0; 6];
        let mut parts = value.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = IdError;
    fn try_from(value: String) -> Result<Self, IdError> {
        value.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_another_kind_is_refused() {
        assert!("eni-0a1b2c".parse::<EniId>().is_ok());
        assert!("subnet-0a1b2c".parse::<EniId>().is_err());
        assert!("eni-".parse::<EniId>().is_err());
        assert!("eni-attach-0a1b".parse::<EniId>().is_err(), "an attachment is not an interface");
    }

    #[test]
    fn a_mac_address_survives_a_round_trip() {
        let mac: MacAddress = "0a:1b:2c:3d:4e:5f".parse().unwrap();
        assert_eq!(mac.to_string(), "0a:1b:2c:3d:4e:5f");
        for wrong in ["", "0a:1b:2c:3d:4e", "0a:1b:2c:3d:4e:5f:60", "0a:1b:2c:3d:4e:zz", "a:1b:2c:3d:4e:5f"] {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong}");
        }
    }
}

//! Ids and MAC addresses in the form that EC2 gives them, drawn with the model's seed, never twice.

use std::collections::BTreeSet;
use std::str::FromStr;

use enipool_pool::MacAddress;
use enipool_pool::id::IdError;

use super::error::ApiError;
use super::rng::Rng;

#[derive(Debug, Clone)]
pub(super) struct Ids {
    rng: Rng,
    used: BTreeSet<u64>,
}

impl Ids {
    /// A stream of its own for each `purpose`.
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        Self { rng: Rng::new(seed, purpose), used: BTreeSet::new() }
    }

    fn fresh(&mut self) -> u64 {
        loop {
            let number = self.rng.next_u64();
            if self.used.insert(number) {
                return number;
            }
        }
    }

    /// `PREFIX-0` and sixteen hexadecimal digits.
    pub(super) fn text(&mut self, prefix: &str) -> String {
        format!("{prefix}-0{:016x}", self.fresh())
    }

    /// The same as a typed id. The form is right by construction; an error would be a bug of this file.
    pub(super) fn id<T: FromStr<Err = IdError>>(&mut self, prefix: &str) -> Result<T, ApiError> {
        self.text(prefix).parse().map_err(|_| ApiError::internal())
    }

    /// A locally administered unicast address, as EC2's are.
    pub(super) fn mac(&mut self) -> MacAddress {
        let mut bytes = [0x06; 6];
        bytes[1..].copy_from_slice(&self.fresh().to_be_bytes()[..5]);
        MacAddress(bytes)
    }

    pub(super) fn request_id(&mut self) -> String {
        let (high, low) = (self.rng.next_u64(), self.rng.next_u64());
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            low >> 52,
            low & 0xffff_ffff_ffff
        )
    }
}

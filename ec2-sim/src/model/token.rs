//! ClientToken: the same token with the same parameters gives the first answer again, with others an error.
//!
//! [Ensuring idempotency](https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html). Tokens live for a day here;
//! AWS says "at least" that for most actions.

use std::collections::BTreeMap;
use std::time::Duration;

use enipool_pool::Timestamp;

use super::error::ApiError;

const LIFETIME: Duration = Duration::from_hours(24);
/// A token has at most so many ASCII characters.
const MAX_LENGTH: usize = 64;

#[derive(Debug, Clone)]
struct Used {
    /// The request without its token.
    parameters: String,
    /// Ids of what the first call made.
    made: Vec<String>,
    at: Timestamp,
}

/// Tokens used so far, per action.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens {
    used: BTreeMap<(&'static str, String), Used>,
}

impl Tokens {
    /// Ids made by an earlier call with this token and these parameters; `None` if the token is new.
    pub(super) fn look_up(
        &mut self,
        action: &'static str,
        token: &str,
        parameters: &str,
        now: Timestamp,
    ) -> Result<Option<Vec<String>>, ApiError> {
        if token.len() > MAX_LENGTH || !token.is_ascii() {
            return Err(ApiError::invalid_value(format!(
                "Value ({token}) for parameter clientToken is invalid. Tokens have at most {MAX_LENGTH} ASCII characters."
            )));
        }
        let key = (action, token.to_owned());
        match self.used.get(&key) {
            Some(used) if now.since(used.at) > LIFETIME => {
                self.used.remove(&key);
                Ok(None)
            }
            Some(used) if used.parameters == parameters => Ok(Some(used.made.clone())),
            Some(_) => Err(ApiError::token_mismatch(token)),
            None => Ok(None),
        }
    }

    /// Remembers what a call with this token made. Failed calls use no token up.
    pub(super) fn remember(
        &mut self,
        action: &'static str,
        token: &str,
        parameters: String,
        made: Vec<String>,
        now: Timestamp,
    ) {
        self.used.insert((action, token.to_owned()), Used { parameters, made, at: now });
    }
}

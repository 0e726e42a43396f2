//! ClientToken: the same token with the same parameters gives the first answer again, with others an error.
//!
//! [Ensuring idempotency](https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html). Tokens live for a day here;
//! AWS says "at least" that for most actions.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use enipool_pool::Timestamp;

use super::error::ApiError;

const LIFETIME: Duration = Duration::from_hours(24);
/// A token has at most so many ASCII characters.
const MAX_LENGTH: usize = 64;

/// The action and the token.
type Key = (&'static str, String);

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
    used: BTreeMap<Key, Used>,
    /// In the order of their use, so that a long run does not collect them.
    by_age: VecDeque<(Timestamp, Key)>,
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
        self.forget_old(now);
        match self.used.get(&(action, token.to_owned())) {
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
        let key = (action, token.to_owned());
        self.by_age.push_back((now, key.clone()));
        self.used.insert(key, Used { parameters, made, at: now });
    }

    fn forget_old(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.by_age.pop_front_if(|(at, _)| now.since(*at) > LIFETIME) {
            // A token that was used anew since is young again.
            if self.used.get(&key).is_some_and(|used| used.at == at) {
                self.used.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_forgotten_after_a_day_whether_or_not_anybody_asks_for_them() {
        let mut tokens = Tokens::default();
        let hour = |n: u64| Timestamp(n * 3_600_000);
        for n in 0..48 {
            let token = format!("t{n}");
            assert_eq!(tokens.look_up("RunInstances", &token, "p", hour(n)), Ok(None));
            tokens.remember("RunInstances", &token, "p".to_owned(), vec![format!("i-{n}")], hour(n));
        }
        assert_eq!((tokens.used.len(), tokens.by_age.len()), (25, 25));
        assert_eq!(tokens.look_up("RunInstances", "t22", "p", hour(47)), Ok(None));
        assert_eq!(tokens.look_up("RunInstances", "t23", "p", hour(47)), Ok(Some(vec!["i-23".to_owned()])));
    }
}

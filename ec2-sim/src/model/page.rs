//! Pagination: MaxResults and NextToken. A token names the last resource shown, so that pages stay right while resources
//! come and go in between.

use std::ops::RangeInclusive;

use super::error::ApiError;

/// What a call asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    pub max_results: Option<u32>,
    pub next_token: Option<String>,
}

/// One page of resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_token: Option<String>,
}

/// Smallest and largest MaxResults of most describe calls.
const MAX_RESULTS: RangeInclusive<u32> = 5..=1000;
/// Those of DescribeInstanceTypes
/// ([its MaxResults](https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypes.html)).
pub(super) const MAX_TYPES: RangeInclusive<u32> = 5..=100;

impl PageRequest {
    pub fn is_paged(&self) -> bool {
        self.max_results.is_some() || self.next_token.is_some()
    }

    /// `named`: whether the call names its resources, which excludes MaxResults. `parameter` is the name of that list.
    pub fn check(&self, named: bool, parameter: &str) -> Result<(), ApiError> {
        self.check_within(&MAX_RESULTS, named, parameter)
    }

    /// The same for an action with limits of its own.
    pub(super) fn check_within(
        &self,
        limits: &RangeInclusive<u32>,
        named: bool,
        parameter: &str,
    ) -> Result<(), ApiError> {
        if let Some(max) = self.max_results {
            if named {
                return Err(ApiError::invalid_combination(format!(
                    "The parameter {parameter} cannot be used with the parameter maxResults"
                )));
            }
            if !limits.contains(&max) {
                let bound = if max < *limits.start() {
                    format!("greater than or equal to {}", limits.start())
                } else {
                    format!("less than or equal to {}", limits.end())
                };
                return Err(ApiError::invalid_value(format!(
                    "Value ( {max} ) for parameter maxResults is invalid. Expecting a value {bound}."
                )));
            }
        }
        Ok(())
    }

    /// The page of `items` (in the order of their ids) that this request asks for.
    pub fn cut<T>(&self, items: impl IntoIterator<Item = T>, id: impl Fn(&T) -> &str) -> Result<Page<T>, ApiError> {
        let after = self.next_token.as_deref().map(decode).transpose()?;
        let limit = self.max_results.map_or(usize::MAX, |max| max as usize);
        let mut page = Page { items: Vec::new(), next_token: None };
        for item in items {
            if after.as_deref().is_some_and(|after| id(&item) <= after) {
                continue;
            }
            if page.items.len() == limit {
                page.next_token = page.items.last().map(|last| encode(id(last)));
                break;
            }
            page.items.push(item);
        }
        Ok(page)
    }
}

fn encode(id: &str) -> String {
    use std::fmt::Write as _;
    id.bytes().fold(String::from("p1"), |mut token, byte| {
        // Writing to a String cannot fail.
        let _ = write!(token, "{byte:02x}");
        token
    })
}

fn decode(token: &str) -> Result<String, ApiError> {
    let hex = token.strip_prefix("p1").filter(|hex| hex.is_ascii() && hex.len() % 2 == 0);
    let bytes = hex.and_then(|hex| {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect::<Option<Vec<u8>>>()
    });
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(ApiError::bad_page_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pages_together_are_the_whole_list() {
        let all: Vec<String> = (0..23).map(|n| format!("eni-{n:02}")).collect();
        let mut request = PageRequest { max_results: Some(5), next_token: None };
        let mut seen = Vec::new();
        loop {
            let page = request.cut(all.iter(), |id| id).unwrap();
            seen.extend(page.items.into_iter().cloned());
            request.next_token = page.next_token;
            if request.next_token.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn the_last_full_page_has_no_token() {
        let request = PageRequest { max_results: Some(5), next_token: None };
        assert_eq!(request.cut(["a", "b", "c", "d", "e"], |id| id).unwrap().next_token, None);
    }

    #[test]
    fn limits_ids_and_tokens_are_checked_in_ec2_s_words() {
        let request = |max| PageRequest { max_results: Some(max), next_token: None };
        assert!(request(5).check(false, "x").is_ok() && request(1000).check(false, "x").is_ok());
        assert_eq!(request(4).check(false, "x").unwrap_err().code, "InvalidParameterValue");
        assert_eq!(request(1001).check(false, "x").unwrap_err().code, "InvalidParameterValue");
        let types = |max| request(max).check_within(&MAX_TYPES, false, "x");
        assert!(types(5).is_ok() && types(100).is_ok());
        assert_eq!(types(4).unwrap_err().code, "InvalidParameterValue");
        assert_eq!(
            types(101).unwrap_err().message,
            "Value ( 101 ) for parameter maxResults is invalid. Expecting a value less than or equal to 100."
        );
        assert_eq!(request(5).check(true, "x").unwrap_err().code, "InvalidParameterCombination");
        let forged = PageRequest { max_results: None, next_token: Some("p1zz".into()) };
        assert_eq!(forged.cut([""], |id| id).unwrap_err().code, "InvalidPaginationToken");
    }
}

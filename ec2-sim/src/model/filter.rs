//! EC2's filters: named, each with values of which one must match, all filters together.

use super::error::ApiError;

/// One `Filter.N` of a describe call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub name: String,
    pub values: Vec<String>,
}

impl Filter {
    pub fn new(name: impl Into<String>, values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { name: name.into(), values: values.into_iter().map(Into::into).collect() }
    }
}

/// EC2 takes at most so many filter values in one call.
const MAX_VALUES: usize = 200;

/// Characters of one filter value
/// ([ansible/workshops#530](https://github.com/ansible/workshops/pull/530) quotes EC2's refusal of more).
const MAX_VALUE: usize = 255;

/// Refuses filters that EC2 does not know for this kind of resource. `known` are plain names; what has `tag-key` has
/// `tag:KEY` too.
pub fn check(filters: &[Filter], known: &[&str]) -> Result<(), ApiError> {
    let limit = |message: String| Err(ApiError::client("FilterLimitExceeded", message));
    for filter in filters {
        let tag = filter.name.starts_with("tag:") && known.contains(&"tag-key");
        if !tag && !known.contains(&filter.name.as_str()) {
            return Err(ApiError::invalid_value(format!("The filter '{}' is invalid", filter.name)));
        }
        if filter.values.is_empty() {
            return Err(ApiError::invalid_value(format!("The filter '{}' has no values", filter.name)));
        }
        if filter.values.iter().any(|value| value.chars().count() > MAX_VALUE) {
            return limit(format!("The maximum length for a filter value is {MAX_VALUE} characters"));
        }
    }
    if filters.iter().map(|filter| filter.values.len()).sum::<usize>() > MAX_VALUES {
        return limit(format!("The maximum number of filter values specified on a single call is {MAX_VALUES}"));
    }
    Ok(())
}

/// Whether a resource passes all filters. `values_of` gives the resource's values of a filter name.
pub fn passes(filters: &[Filter], mut values_of: impl FnMut(&str) -> Vec<String>) -> bool {
    filters.iter().all(|filter| {
        let values = values_of(&filter.name);
        filter.values.iter().any(|pattern| values.iter().any(|value| like(pattern, value)))
    })
}

/// The values that a filter asks for exactly, if it can be answered from an index.
pub fn exact<'a>(filters: &'a [Filter], name: &str) -> Option<&'a [String]> {
    let filter = filters.iter().find(|filter| filter.name == name)?;
    let plain = filter.values.iter().all(|value| !value.contains(['*', '?', '\\']));
    plain.then_some(filter.values.as_slice())
}

/// Values of a tag filter (`tag:KEY`, `tag-key`), if `name` is one.
pub fn tag_values(name: &str, tags: &enipool_pool::ec2::Tags) -> Option<Vec<String>> {
    match name.strip_prefix("tag:") {
        Some(key) => Some(tags.get(key).cloned().into_iter().collect()),
        None if name == "tag-key" => Some(tags.keys().cloned().collect()),
        None => None,
    }
}

/// EC2's wildcards: `*` for any text, `?` for any character, `\` before one that is meant literally.
fn like(pattern: &str, value: &str) -> bool {
    fn go(pattern: &[char], value: &[char]) -> bool {
        match (pattern.split_first(), value.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => (0..=value.len()).any(|skip| go(rest, &value[skip..])),
            (Some(('?', rest)), Some((_, tail))) => go(rest, tail),
            (Some(('\\', rest)), Some((head, tail))) if rest.first() == Some(head) => go(&rest[1..], tail),
            (Some((wanted, rest)), Some((head, tail))) if wanted == head => go(rest, tail),
            _ => false,
        }
    }
    if !pattern.contains(['*', '?', '\\']) {
        return pattern == value;
    }
    go(&pattern.chars().collect::<Vec<_>>(), &value.chars().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_in_ec2() {
        for (pattern, value, expected) in [
            ("kube-node", "kube-node", true),
            ("kube-node", "kube-node-2", false),
            ("kube-*", "kube-node", true),
            ("*", "", true),
            ("k?be*2", "kube-node-2", true),
            ("k?be", "kbe", false),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
        ] {
            assert_eq!(like(pattern, value), expected, "{pattern} ~ {value}");
        }
    }

    #[test]
    fn values_of_one_filter_are_alternatives_and_filters_must_all_pass() {
        let filters = [Filter::new("status", ["available", "in-use"]), Filter::new("vpc-id", ["vpc-1"])];
        let resource = |vpc: &'static str| {
            move |name: &str| vec![if name == "status" { "in-use".to_owned() } else { vpc.to_owned() }]
        };
        assert!(passes(&filters, resource("vpc-1")));
        assert!(!passes(&filters, resource("vpc-2")));
    }

    #[test]
    fn an_unknown_filter_is_refused_by_name() {
        let error = check(&[Filter::new("colour", ["red"])], &["status"]).unwrap_err();
        assert_eq!(error.code, "InvalidParameterValue");
        assert_eq!(error.message, "The filter 'colour' is invalid");
        assert!(check(&[Filter::new("tag:colour", ["red"])], &["tag-key"]).is_ok());
        assert!(check(&[Filter::new("tag:colour", ["red"])], &["status"]).is_err(), "things without tags");
        assert!(check(&[Filter::new("status", [] as [&str; 0])], &["status"]).is_err());
    }

    #[test]
    fn one_call_has_at_most_200_filter_values_of_255_characters() {
        let filters =
            |count: usize| [Filter::new("status", vec!["x"; 100]), Filter::new("vpc-id", vec!["x"; count - 100])];
        assert!(check(&filters(200), &["status", "vpc-id"]).is_ok());
        let error = check(&filters(201), &["status", "vpc-id"]).unwrap_err();
        assert_eq!(error.code, "FilterLimitExceeded");
        assert_eq!(error.message, "The maximum number of filter values specified on a single call is 200");
        let long = |length: usize| [Filter::new("status", ["x".repeat(length)])];
        assert!(check(&long(255), &["status"]).is_ok());
        assert_eq!(check(&long(256), &["status"]).unwrap_err().code, "FilterLimitExceeded");
    }
}

//! Tags: CreateTags, and what tags may look like.
//!
//! Limits: [Tag your Amazon EC2 resources](https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions).
//! The API reference allows 127 characters in a key where that page says 128; EC2 itself goes by the page
//! ([skypilot#1992](https://github.com/skypilot-org/skypilot/pull/1992) quotes its refusal of 129).

use enipool_pool::ec2::Tags;

use super::Model;
use super::error::ApiError;
use super::request::Response;

/// Tags that one resource can have.
const MAX_TAGS: usize = 50;
/// Characters of a key.
const MAX_KEY: usize = 128;
/// Characters of a value.
const MAX_VALUE: usize = 256;

impl Model {
    pub(super) fn create_tags(&mut self, resources: &[String], tags: &Tags) -> Result<Response, ApiError> {
        if resources.is_empty() {
            return Err(ApiError::missing("resourceIdSet"));
        }
        if tags.is_empty() {
            return Err(ApiError::missing("tagSet"));
        }
        check_tags(tags)?;
        // All or none: EC2 tags nothing when one of the resources does not exist.
        for resource in resources {
            let count = self.tags_of(resource)?.keys().filter(|key| !tags.contains_key(*key)).count() + tags.len();
            if count > MAX_TAGS {
                return Err(too_many());
            }
        }
        for resource in resources {
            self.tag(resource, tags);
        }
        Ok(Response::Done)
    }

    fn tags_of(&self, resource: &str) -> Result<&Tags, ApiError> {
        let unknown = || ApiError::client("InvalidID", format!("The ID '{resource}' is not valid"));
        if resource.starts_with("eni-") {
            let id = resource.parse().map_err(|_| unknown())?;
            Ok(&self.found_interface(&id)?.tags)
        } else if resource.starts_with("i-") {
            let id = resource.parse().map_err(|_| unknown())?;
            let instance = self.instances.get(&id).ok_or_else(|| ApiError::instance_not_found(resource))?;
            Ok(&instance.tags)
        } else if resource.starts_with("subnet-") {
            let id = resource.parse().map_err(|_| unknown())?;
            let subnet = self.subnets.get(&id).ok_or_else(|| ApiError::subnet_not_found(resource))?;
            Ok(&subnet.info.tags)
        } else if resource.starts_with("sg-") {
            let id = resource.parse().map_err(|_| unknown())?;
            Ok(&self.groups.get(&id).ok_or_else(|| ApiError::group_not_found(resource))?.tags)
        } else if resource.starts_with("vpc-") {
            let id = resource.parse().map_err(|_| unknown())?;
            Ok(&self.vpcs.get(&id).ok_or_else(|| ApiError::vpc_not_found(resource))?.tags)
        } else {
            Err(unknown())
        }
    }

    fn tag(&mut self, resource: &str, tags: &Tags) {
        let new = || tags.iter().map(|(key, value)| (key.clone(), value.clone()));
        if let Ok(id) = resource.parse() {
            self.change_interface(&id, |interface| interface.tags.extend(new()));
        }
        if let Some(instance) = resource.parse().ok().and_then(|id| self.instances.get_mut(&id)) {
            instance.tags.extend(new());
        }
        if let Some(subnet) = resource.parse().ok().and_then(|id| self.subnets.get_mut(&id)) {
            subnet.info.tags.extend(new());
        }
        if let Some(group) = resource.parse().ok().and_then(|id| self.groups.get_mut(&id)) {
            group.tags.extend(new());
        }
        if let Some(vpc) = resource.parse().ok().and_then(|id| self.vpcs.get_mut(&id)) {
            vpc.tags.extend(new());
        }
    }
}

/// Keys and values have the lengths that EC2 allows and do not begin with AWS's own prefix.
pub(super) fn check_tags(tags: &Tags) -> Result<(), ApiError> {
    if tags.len() > MAX_TAGS {
        return Err(too_many());
    }
    for (key, value) in tags {
        if key.is_empty() {
            return Err(ApiError::invalid_value("Tag keys must not be empty"));
        }
        if key.chars().count() > MAX_KEY {
            return Err(ApiError::invalid_value(format!("Tag key exceeds the maximum length of {MAX_KEY} characters")));
        }
        if value.chars().count() > MAX_VALUE {
            let message = format!("Tag value exceeds the maximum length of {MAX_VALUE} characters");
            return Err(ApiError::invalid_value(message));
        }
        if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            return Err(ApiError::invalid_value("Tag keys starting with 'aws:' are reserved for internal use"));
        }
    }
    Ok(())
}

fn too_many() -> ApiError {
    let message = format!("The maximum number of Tags for this resource has been reached: {MAX_TAGS}");
    ApiError::client("TagLimitExceeded", message)
}

//! The instance metadata service, version 2: session tokens, and the paths that a node's software reads.
//!
//! [Instance metadata categories](https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html). Version 1
//! (no token) is refused, as with `HttpTokens=required`. The hop limit is for whoever carries the packets.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use enipool_pool::{InstanceId, Timestamp};
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::json;

use crate::model::metadata::Metadata;
use crate::shared::SharedModel;

const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
pub(crate) const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// Six hours.
const MAX_TTL_SECONDS: u64 = 21_600;
const CREDENTIALS_LAST: Duration = Duration::from_hours(6);

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub body: String,
    /// Seconds that a token given or used still lives.
    pub ttl: Option<u64>,
}

impl Answer {
    fn ok(body: String) -> Self {
        Self { status: StatusCode::OK, body, ttl: None }
    }

    fn error(status: StatusCode) -> Self {
        let text = format!("{} - {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
        Self {
            status,
            body: format!("<html><head><title>{text}</title></head><body><h1>{text}</h1></body></html>\n"),
            ttl: None,
        }
    }
}

/// Answers one request to the metadata service of `instance`.
pub fn answer(shared: &SharedModel, instance: &InstanceId, method: &Method, path: &str, headers: &HeaderMap) -> Answer {
    let (metadata, seed) = shared.with(|model| (model.metadata(instance), model.config().seed));
    let Some(metadata) = metadata else {
        // A stopped instance asks nothing; whoever does gets what a broken service would answer.
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE);
    };
    let tokens = Tokens { secret: (seed, instance.as_str()) };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if path == "/latest/api/token" {
        if method != Method::PUT {
            return Answer::error(StatusCode::METHOD_NOT_ALLOWED);
        }
        if headers.contains_key("x-forwarded-for") {
            // A request that a proxy passed on: not from this instance.
            return Answer::error(StatusCode::FORBIDDEN);
        }
        let ttl = header(TTL_HEADER).and_then(|ttl| ttl.parse().ok()).filter(|ttl| (1..=MAX_TTL_SECONDS).contains(ttl));
        return match ttl {
            Some(ttl) => {
                let expires = metadata.now.plus(Duration::from_secs(ttl));
                Answer { ttl: Some(ttl), ..Answer::ok(tokens.issue(expires)) }
            }
            None => Answer::error(StatusCode::BAD_REQUEST),
        };
    }
    if method != Method::GET && method != Method::HEAD {
        return Answer::error(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Some(expires) = header(TOKEN_HEADER).and_then(|token| tokens.expiry(token)).filter(|at| *at > metadata.now)
    else {
        return Answer::error(StatusCode::UNAUTHORIZED);
    };
    let found = match path.trim_start_matches('/').split_once('/') {
        Some((version, rest)) if is_version(version) => look_up(&tree(&metadata), rest),
        _ => None,
    };
    match found {
        Some(body) => Answer { ttl: Some(expires.since(metadata.now).as_secs()), ..Answer::ok(body) },
        None => Answer::error(StatusCode::NOT_FOUND),
    }
}

/// `latest`, or a date such as `2021-07-15`.
fn is_version(text: &str) -> bool {
    text == "latest"
        || (text.len() == 10
            && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
            && text.starts_with("20"))
}

/// Session tokens that carry their own expiry, so that nothing has to be kept.
struct Tokens<'a> {
    secret: (u64, &'a str),
}

impl Tokens<'_> {
    fn issue(&self, expires: Timestamp) -> String {
        format!("AQAEA{:016x}{:016x}==", expires.0, self.seal(expires))
    }

    fn expiry(&self, token: &str) -> Option<Timestamp> {
        let digits = token.strip_prefix("AQAEA")?.strip_suffix("==").filter(|digits| digits.len() == 32)?;
        let expires = Timestamp(u64::from_str_radix(digits.get(..16)?, 16).ok()?);
        let seal = u64::from_str_radix(digits.get(16..)?, 16).ok()?;
        (seal == self.seal(expires)).then_some(expires)
    }

    /// Keeps tests honest about other instances' tokens; it protects nothing.
    fn seal(&self, expires: Timestamp) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.secret, expires.0).hash(&mut hasher);
        hasher.finish()
    }
}

/// A leaf's value, or the names below a folder, folders with a slash.
fn look_up(tree: &BTreeMap<String, String>, path: &str) -> Option<String> {
    let path = path.trim_end_matches('/');
    if let Some(value) = tree.get(path) {
        return Some(value.clone());
    }
    let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
    let names: BTreeSet<String> = tree
        .range(folder.clone()..)
        .take_while(|(key, _)| key.starts_with(&folder))
        .map(|(key, _)| match key[folder.len()..].split_once('/') {
            Some((name, _)) => format!("{name}/"),
            None => key[folder.len()..].to_owned(),
        })
        .collect();
    (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join("\n"))
}

fn lines(values: impl IntoIterator<Item = impl ToString>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join("\n")
}

/// All paths that this instance's service has now, without the version, with their values.
fn tree(metadata: &Metadata) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    let mut put = |path: &str, value: String| {
        tree.insert(path.to_owned(), value);
    };
    put("meta-data/ami-id", metadata.image.clone());
    put("meta-data/instance-id", metadata.instance.to_string());
    put("meta-data/instance-type", metadata.instance_type.to_string());
    put("meta-data/instance-life-cycle", "on-demand".to_owned());
    put("meta-data/placement/availability-zone", metadata.zone.to_string());
    put("meta-data/placement/region", metadata.region.clone());
    put("meta-data/services/domain", "amazonaws.com".to_owned());
    put("meta-data/services/partition", "aws".to_owned());
    put("dynamic/instance-identity/document", identity_document(metadata));
    let role = &metadata.iam_role;
    put(&format!("meta-data/iam/security-credentials/{role}"), credentials(metadata));
    let profile = json!({
        "Code": "Success",
        "LastUpdated": time(metadata.launch_time),
        "InstanceProfileArn": format!("arn:aws:iam::{}:instance-profile/{role}", metadata.account),
        "InstanceProfileId": "AIPAENIPOOLSIMULATED0",
    });
    put("meta-data/iam/info", profile.to_string());
    if let Some(primary) = metadata.primary() {
        put("meta-data/mac", primary.mac.to_string());
        put("meta-data/local-ipv4", lines(primary.addresses.first()));
        put("meta-data/local-hostname", host_name(metadata, primary.addresses.first()));
        put("meta-data/hostname", host_name(metadata, primary.addresses.first()));
        put("meta-data/security-groups", primary.security_group_names.join("\n"));
    }
    for eni in &metadata.interfaces {
        let mut put = |name: &str, value: String| {
            tree.insert(format!("meta-data/network/interfaces/macs/{}/{name}", eni.mac), value);
        };
        put("device-number", eni.device_index.to_string());
        put("network-card", eni.network_card.to_string());
        put("interface-id", eni.id.to_string());
        put("mac", eni.mac.to_string());
        put("owner-id", metadata.account.clone());
        put("local-hostname", host_name(metadata, eni.addresses.first()));
        put("local-ipv4s", lines(&eni.addresses));
        if !eni.prefixes.is_empty() {
            put("ipv4-prefix", lines(&eni.prefixes));
        }
        put("subnet-id", eni.subnet.to_string());
        put("subnet-ipv4-cidr-block", eni.subnet_cidr.0.to_string());
        put("vpc-id", eni.vpc.to_string());
        put("vpc-ipv4-cidr-block", lines(eni.vpc_cidrs.first()));
        put("vpc-ipv4-cidr-blocks", lines(&eni.vpc_cidrs));
        put("security-group-ids", lines(&eni.security_groups));
        put("security-groups", eni.security_group_names.join("\n"));
    }
    tree
}

fn host_name(metadata: &Metadata, address: Option<&std::net::Ipv4Addr>) -> String {
    address.map_or_else(String::new, |address| {
        let [a, b, c, d] = address.octets();
        format!("ip-{a}-{b}-{c}-{d}.{}.compute.internal", metadata.region)
    })
}

fn time(at: Timestamp) -> String {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    // A clock moved beyond the year 9999 has no date.
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "9999-12-31T23:59:59Z".to_owned(), |time| time.to_string())
}

fn identity_document(metadata: &Metadata) -> String {
    let document = json!({
        "accountId": metadata.account,
        "architecture": "x86_64",
        "availabilityZone": metadata.zone,
        "billingProducts": null,
        "imageId": metadata.image,
        "instanceId": metadata.instance,
        "instanceType": metadata.instance_type,
        "kernelId": null,
        "pendingTime": time(metadata.launch_time),
        "privateIp": metadata.primary().and_then(|eni| eni.addresses.first()),
        "ramdiskId": null,
        "region": metadata.region,
        "version": "2017-09-30",
    });
    format!("{document:#}")
}

fn credentials(metadata: &Metadata) -> String {
    let document = json!({
        "Code": "Success",
        "LastUpdated": time(metadata.now),
        "Type": "AWS-HMAC",
        "AccessKeyId": metadata.access_key,
        "SecretAccessKey": "simulated-secret-access-key",
        "Token": format!("simulated-session-token-of-{}", metadata.instance),
        "Expiration": time(metadata.now.plus(CREDENTIALS_LAST)),
    });
    format!("{document:#}")
}

#[cfg(test)]
mod tests {
    use enipool_pool::InstanceType;

    use super::*;
    use crate::model::request::RunInstances;
    use crate::model::{Model, Request, Response, SimConfig};

    fn node() -> (SharedModel, InstanceId) {
        let shared = SharedModel::manual(Model::new(SimConfig::instant()).unwrap());
        let id = shared.with(|model| {
            let subnet = model.subnets().next().unwrap().info.id.clone();
            let run = RunInstances::one(InstanceType::new("m5.large"), subnet);
            match model.call("test", &Request::RunInstances(run)).result.unwrap() {
                Response::Reservation(instances) => instances[0].id.clone(),
                other => panic!("{other:?}"),
            }
        });
        (shared, id)
    }

    fn get(shared: &SharedModel, id: &InstanceId, path: &str, token: &str) -> Answer {
        let headers = HeaderMap::from_iter([(TOKEN_HEADER.parse().unwrap(), token.parse().unwrap())]);
        answer(shared, id, &Method::GET, path, &headers)
    }

    fn token(shared: &SharedModel, id: &InstanceId, ttl: &str) -> Answer {
        let headers = HeaderMap::from_iter([(TTL_HEADER.parse().unwrap(), ttl.parse().unwrap())]);
        answer(shared, id, &Method::PUT, "/latest/api/token", &headers)
    }

    #[test]
    fn nothing_is_told_without_a_valid_token() {
        let (shared, id) = node();
        let path = "/latest/meta-data/instance-id";
        let bare = answer(&shared, &id, &Method::GET, path, &HeaderMap::new());
        assert_eq!(bare.status, StatusCode::UNAUTHORIZED);
        assert_eq!(get(&shared, &id, path, "AQAEAforged==").status, StatusCode::UNAUTHORIZED);
        let token = token(&shared, &id, "60").body;
        assert_eq!(get(&shared, &id, path, &token).body, id.to_string());
        shared.advance(Duration::from_mins(1));
        assert_eq!(get(&shared, &id, path, &token).status, StatusCode::UNAUTHORIZED, "the token has expired");
    }

    #[test]
    fn a_token_lives_at_most_six_hours() {
        let (shared, id) = node();
        assert_eq!(token(&shared, &id, "21600").ttl, Some(21_600));
        for wrong in ["0", "21601", "soon"] {
            assert_eq!(token(&shared, &id, wrong).status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }

    #[test]
    fn folders_list_their_names_and_unknown_paths_are_not_found() {
        let (shared, id) = node();
        let token = token(&shared, &id, "60").body;
        let ask = |path: &str| get(&shared, &id, path, &token);
        let mac = ask("/latest/meta-data/mac").body;
        assert_eq!(ask("/latest/meta-data/network/interfaces/macs/").body, format!("{mac}/"));
        let of_eni = ask(&format!("/2021-07-15/meta-data/network/interfaces/macs/{mac}")).body;
        assert!(of_eni.lines().any(|name| name == "subnet-ipv4-cidr-block"), "{of_eni}");
        assert!(!of_eni.contains("ipv4-prefix"), "an interface without prefixes has no such path");
        assert_eq!(ask("/latest/meta-data/iam/security-credentials/").body, "enipool-node");
        assert_eq!(ask("/latest/meta-data/public-ipv4").status, StatusCode::NOT_FOUND);
        assert_eq!(ask("/newest/meta-data/mac").status, StatusCode::NOT_FOUND);
    }
}

//! Specs that must be accepted: between them they hold each bound's last good value and each word of each enumeration.

use serde_json::{Value, json};

use super::refused::{ids, tags, text};

pub(crate) fn all() -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    for kind in ["ENIPool", "ENIPoolClass"] {
        all.extend(targets().into_iter().map(|spec| (kind, spec)));
    }
    all.extend(pools().into_iter().map(|spec| ("ENIPool", spec)));
    all.extend(classes().into_iter().map(|spec| ("ENIPoolClass", spec)));
    all
}

fn targets() -> Vec<Value> {
    vec![
        json!({}),
        json!({"warmENITarget": 0, "maxENIs": 1, "addressing": "Secondary"}),
        json!({"warmENITarget": 127, "maxENIs": 128}),
        json!({"warmENITarget": 128}),
        json!({"warmIPTarget": 0, "minimumIPTarget": 16384, "maxENIs": 1}),
        json!({"warmIPTarget": 16384, "minimumIPTarget": 0, "addressing": "Prefix"}),
        json!({"warmPrefixTarget": 0, "addressing": "Prefix", "warmENITarget": 1}),
        json!({"warmPrefixTarget": 1024, "addressing": "Mixed"}),
    ]
}

fn pools() -> Vec<Value> {
    let allocation = |targets: Value| {
        json!({"allocation": {
            "class": "default", "enis": 2, "addresses": 20, "prefixes": 0, "ceiling": 29, "pods": 12, "demand": 1,
            "withheld": 1, "answers": "2026-01-01T00:00:00Z", "subnetID": "subnet-0", "securityGroupIDs": ids("sg", 16),
            "targets": targets, "decision": text(512),
        }})
    };
    let mut pools = vec![
        // Its class may say Prefix.
        json!({"warmPrefixTarget": 1}),
        json!({"operations": "Normal"}),
        json!({"operations": "NoRelease"}),
        json!({"operations": "NoCloud"}),
    ];
    pools.extend(targets().into_iter().map(allocation));
    pools
}

fn classes() -> Vec<Value> {
    let id = |prefix: &str| {
        let mut ids = ids(prefix, 64);
        ids[0] = format!("{prefix}-{}", text(63 - prefix.len()));
        ids
    };
    let mut classes = vec![
        json!({"cooldownSeconds": 0, "mtu": 576, "usePrimaryENI": false}),
        json!({"cooldownSeconds": 3600, "mtu": 9001, "usePrimaryENI": true}),
        json!({"subnetSelector": {"ids": id("subnet")}, "securityGroupSelector": {"tags": tags(16)}}),
        json!({"subnetSelector": {"tags": tags(16)}, "securityGroupSelector": {"ids": id("sg")}}),
        json!({"subnetSelector": {"ids": ["subnet-0123456789abcdef0"], "tags": {}}}),
        json!({"eniTags": tags(40)}),
        json!({"eniTags": {"aws": "a", "my-enipool.dev/team": "b", "Name": "", text(128): "c"}}),
        json!({"snat": {"mode": "RandomFully", "excludeCIDRs": []}}),
        json!({"snat": {"mode": "HashRandom", "excludeCIDRs": ["100.100.100.128/25"]}}),
        json!({"snat": {"mode": "Sequential", "excludeCIDRs": vec!["203.100.100.128/25"; 64]}}),
        json!({"snat": {"mode": "External", "excludeCIDRs": ["0.0.0.0/0"]}}),
        json!({"nodeSelector": {"matchLabels": {"team": "a"}}}),
        json!({"nodeSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}}),
        json!({"nodeSelector": {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}}),
        json!({"nodeSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}),
        json!({"nodeSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist", "values": []}]}}),
    ];
    let headrooms = [json!(0), json!(100), json!("0%"), json!("9%"), json!("10%"), json!("99%")];
    classes.extend(headrooms.map(|headroom| json!({"headroom": headroom})));
    classes
}

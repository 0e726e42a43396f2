//! Every way to break a rule, and the sentence that then says what to do.

use serde_json::{Value, json};

/// A value that its field must not have.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) kind: &'static str,
    pub(crate) field: String,
    pub(crate) value: Value,
    pub(crate) sentence: &'static str,
}

type Row = (&'static str, Value, &'static str);

pub(crate) fn all() -> Vec<Refused> {
    let mut all = Vec::new();
    let mut add = |kind, below: &str, rows: Vec<Row>| {
        all.extend(rows.into_iter().map(|(field, value, sentence)| {
            let field = [below, field].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
            Refused { kind, field, value, sentence }
        }));
    };
    for kind in ["ENIPool", "ENIPoolClass"] {
        add(kind, "", combinations());
        add(kind, "spec", targets());
    }
    add("ENIPool", "", pool());
    add("ENIPool", "spec.allocation.targets", targets());
    add("ENIPoolClass", "", class());
    all
}

/// Targets that do not go together, of a pool or of a class.
fn combinations() -> Vec<Row> {
    let enis = "warmENITarget has no effect beside warmIPTarget or minimumIPTarget: remove the one or the others";
    let prefixes =
        "warmPrefixTarget has no effect beside warmIPTarget or minimumIPTarget: remove the one or the others";
    let secondary = "warmPrefixTarget needs addressing Prefix or Mixed: with Secondary no prefix is ever assigned";
    let too_warm =
        "warmENITarget must be less than maxENIs: a pool of maxENIs interfaces can't keep that many of them free";
    vec![
        ("spec", json!({"warmENITarget": 2, "warmIPTarget": 3}), enis),
        ("spec", json!({"warmENITarget": 0, "minimumIPTarget": 0}), enis),
        ("spec", json!({"warmPrefixTarget": 1, "addressing": "Prefix", "warmIPTarget": 3}), prefixes),
        ("spec", json!({"warmPrefixTarget": 0, "addressing": "Mixed", "minimumIPTarget": 0}), prefixes),
        ("spec", json!({"warmPrefixTarget": 1, "addressing": "Secondary"}), secondary),
        ("spec", json!({"warmENITarget": 4, "maxENIs": 4}), too_warm),
        ("spec", json!({"warmENITarget": 1, "maxENIs": 1}), too_warm),
    ]
}

/// Each target alone, wherever targets are written.
fn targets() -> Vec<Row> {
    vec![
        ("warmENITarget", json!(-1), "should be greater than or equal to 0"),
        ("warmENITarget", json!(129), "should be less than or equal to 128"),
        ("warmENITarget", json!("two"), "must be of type integer"),
        ("warmIPTarget", json!(-1), "should be greater than or equal to 0"),
        ("warmIPTarget", json!(16385), "should be less than or equal to 16384"),
        ("warmIPTarget", json!(0.5), "must be of type integer"),
        ("minimumIPTarget", json!(-1), "should be greater than or equal to 0"),
        ("minimumIPTarget", json!(16385), "should be less than or equal to 16384"),
        ("warmPrefixTarget", json!(-1), "should be greater than or equal to 0"),
        ("warmPrefixTarget", json!(1025), "should be less than or equal to 1024"),
        ("maxENIs", json!(0), "should be greater than or equal to 1"),
        ("maxENIs", json!(129), "should be less than or equal to 128"),
        ("addressing", json!("Both"), r#"supported values: "Secondary", "Prefix", "Mixed""#),
    ]
}

fn pool() -> Vec<Row> {
    vec![
        ("spec.operations", json!("Paused"), r#"supported values: "Normal", "NoRelease", "NoCloud""#),
        ("spec.allocation.securityGroupIDs", json!(ids("sg", 17)), "must have at most 16 items"),
        ("spec.allocation.decision", json!(text(513)), "may not be more than 512 bytes"),
    ]
}

fn class() -> Vec<Row> {
    let mut rows = vec![
        (
            "spec",
            json!({"warmPrefixTarget": 1}),
            "warmPrefixTarget needs addressing Prefix or Mixed: with Secondary no prefix is ever assigned",
        ),
        ("spec.cooldownSeconds", json!(-1), "should be greater than or equal to 0"),
        ("spec.cooldownSeconds", json!(3601), "should be less than or equal to 3600"),
        ("spec.mtu", json!(575), "should be greater than or equal to 576"),
        ("spec.mtu", json!(9002), "should be less than or equal to 9001"),
        ("spec.usePrimaryENI", json!("no"), "must be of type boolean"),
        ("spec.eniTags", tags(41), "must have at most 40 items"),
        ("spec.eniTags.team", json!(text(257)), "may not be more than 256 bytes"),
        (
            "spec.snat.mode",
            json!("Random"),
            r#"supported values: "RandomFully", "HashRandom", "Sequential", "External""#,
        ),
        ("spec.snat.excludeCIDRs", json!(vec!["10.8.0.0/16"; 65]), "must have at most 64 items"),
        ("spec.snat.excludeCIDRs[0]", json!("100.100.100.100/032"), "may not be more than 18 bytes"),
    ];
    rows.extend(class_rules());
    rows.extend(selector_bounds());
    rows
}

/// What the rules of a class's own fields are about.
fn class_rules() -> Vec<Row> {
    let headroom = "headroom must be a number of addresses, such as 100, or a percentage from 0% to 99%";
    let tags = "eniTags must not start with aws: or enipool.dev/ nor contain k8s.amazonaws.com: those tags say whose an ENI is";
    let ranges = "excludeCIDRs must be IPv4 ranges such as 10.8.0.0/16";
    let either = "a selector needs either ids or tags, and not both";
    let subnets = "ids must be those of subnets, such as subnet-0123456789abcdef0";
    let groups = "ids must be those of security groups, such as sg-0123456789abcdef0";
    let keys = "keys of eniTags must have 1 to 128 characters: EC2 takes no others";
    let nodes = "matchExpressions of nodeSelector must have values with the operators In and NotIn, none with Exists and DoesNotExist, and no other operator";
    let selects = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "team", "operator": operator, "values": values}]});
    vec![
        ("spec.nodeSelector", selects("Near", json!(["a"])), nodes),
        ("spec.nodeSelector", selects("In", json!([])), nodes),
        ("spec.nodeSelector", selects("Exists", json!(["a"])), nodes),
        ("spec.nodeSelector", json!({"matchExpressions": [{"key": "team", "operator": "NotIn"}]}), nodes),
        ("spec", json!({"headroom": -1}), headroom),
        ("spec", json!({"headroom": "100%"}), headroom),
        ("spec", json!({"headroom": "-1%"}), headroom),
        ("spec", json!({"headroom": "05%"}), headroom),
        ("spec", json!({"headroom": "5"}), headroom),
        ("spec", json!({"headroom": "some"}), headroom),
        ("spec", json!({"eniTags": {"aws:team": "a"}}), tags),
        ("spec", json!({"eniTags": {"team": "a", "enipool.dev/intent": "b"}}), tags),
        ("spec", json!({"eniTags": {"": "a"}}), keys),
        ("spec", json!({"eniTags": {text(129): "a"}}), keys),
        ("spec", json!({"eniTags": {"node.k8s.amazonaws.com/instance_id": "i-0"}}), tags),
        ("spec.snat.excludeCIDRs", json!(["10.8.0.0/33"]), ranges),
        ("spec.snat.excludeCIDRs", json!(["10.8.0.1"]), ranges),
        ("spec.snat.excludeCIDRs", json!(["10.8.0.0/16", "fd00::/8"]), ranges),
        ("spec.subnetSelector", json!({}), either),
        ("spec.subnetSelector", json!({"ids": [], "tags": {}}), either),
        ("spec.subnetSelector", json!({"ids": ["subnet-0"], "tags": {"team": "a"}}), either),
        ("spec.subnetSelector", json!({"ids": ["subnet-0", "vpc-0"]}), subnets),
        ("spec.subnetSelector", json!({"ids": ["subnet-"]}), subnets),
        ("spec.securityGroupSelector", json!({}), either),
        ("spec.securityGroupSelector", json!({"ids": ["sg-0"], "tags": {"team": "a"}}), either),
        ("spec.securityGroupSelector", json!({"ids": ["subnet-0"]}), groups),
        ("spec.securityGroupSelector", json!({"ids": ["sg-0 "]}), groups),
    ]
}

fn selector_bounds() -> Vec<Row> {
    vec![
        ("spec.subnetSelector.ids", json!(ids("subnet", 65)), "must have at most 64 items"),
        ("spec.subnetSelector.ids[0]", json!(format!("subnet-{}", text(58))), "may not be more than 64 bytes"),
        ("spec.subnetSelector.tags", tags(17), "must have at most 16 items"),
        ("spec.subnetSelector.tags.team", json!(text(257)), "may not be more than 256 bytes"),
        ("spec.securityGroupSelector.ids", json!(ids("sg", 65)), "must have at most 64 items"),
        ("spec.securityGroupSelector.ids[0]", json!(format!("sg-{}", text(62))), "may not be more than 64 bytes"),
        ("spec.securityGroupSelector.tags", tags(17), "must have at most 16 items"),
        ("spec.securityGroupSelector.tags.team", json!(text(257)), "may not be more than 256 bytes"),
    ]
}

/// So many ids.
pub(crate) fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

/// So many tags, one of them `team`.
pub(crate) fn tags(count: usize) -> Value {
    let others = (1..count).map(|number| (format!("tag-{number}"), json!("value")));
    others.chain([("team".to_owned(), json!(text(256)))]).collect::<serde_json::Map<_, _>>().into()
}

/// So many characters.
pub(crate) fn text(length: usize) -> String {
    "a".repeat(length)
}

use enipool_crds::fixtures::{default_class, new_pool, pool_with_enis};
use enipool_crds::{Allocation, ENIPoolClassStatus, SubnetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const NOW: i64 = 100_000;

fn fleet() -> Vec<ENIPool> {
    let roomy = pool_with_enis("node-a", 2, 9, 4);
    let mut full = pool_with_enis("node-b", 3, 9, 27);
    full.metadata.creation_timestamp = Some(Time(at(NOW - 300)));
    full.spec.allocation =
        Some(Allocation { ceiling: 27, demand: 4, subnet_id: Some("subnet-1".into()), ..Allocation::default() });
    let status = full.status.as_mut().unwrap();
    status.waiting = 4;
    status.throttles = 12;
    status.reason = "InstanceLimit".into();
    vec![roomy, full, new_pool("node-c")]
}

fn class(name: &str, free: i32, headroom: i32) -> ENIPoolClass {
    let subnet = |id: &str, zone: &str, free, runs_out: Option<i64>| SubnetStatus {
        id: id.into(),
        zone: zone.into(),
        cidr: "10.0.0.0/20".into(),
        available: free,
        in_flight: 5,
        headroom,
        share_per_node: 40,
        exhausted_at: runs_out.map(|second| Time(at(second))),
    };
    let subnets =
        vec![subnet("subnet-2", "eu-west-1b", 4000, None), subnet("subnet-1", "eu-west-1a", free, Some(NOW + 12_000))];
    let mut class = default_class();
    class.metadata.name = Some(name.into());
    class.status = Some(ENIPoolClassStatus { subnets, ..ENIPoolClassStatus::default() });
    class
}

fn names(pools: &[ENIPool], sort: Sort) -> Vec<String> {
    report(pools, Ok(Vec::new()), sort, false, at(NOW)).nodes.into_iter().map(|row| row.node).collect()
}

#[test]
fn the_fleet_is_a_table_with_a_total_and_the_subnets_below() {
    let report = report(&fleet(), Ok(vec![class("default", 120, 20)]), Sort::Free, false, at(NOW));
    assert_eq!(
        render::text(&report, false),
        "\
NODE      TYPE       ENIS   MAX   IPS   ASSIGNED   COOLING   FREE   WAITING   WARM    READY   REASON          AGE
node-c    -          -      -     -     -          -         -      -         -       -       -               -
node-b    m5.large   3      3     27    27         0         0      4         1 ENI   True    InstanceLimit   5m
node-a    m5.large   2      2     18    4          0         14     0         1 ENI   True    AsPlanned       -
TOTAL 3   -          5      5     45    31         0         14     4         -       2/3     -               -

SUBNET     ZONE         CIDR          FREE   IN-FLIGHT   HEADROOM   USABLE   SHARE/NODE   RUNS-OUT   CLASSES
subnet-1   eu-west-1a   10.0.0.0/20   120    5           20         95       40           in 3h20m   default
subnet-2   eu-west-1b   10.0.0.0/20   4000   5           20         3975     40           -          default

1 node has not reported yet: is the enipool-agent running there?

4 pods wait for an address. Why one of them does: kubectl enipool why POD -n NAMESPACE
"
    );
}

#[test]
fn a_node_asked_for_by_name_comes_with_its_enis_and_the_subnets_of_its_zone() {
    let report = report(&fleet()[..1], Ok(vec![class("default", 120, 20)]), Sort::Free, true, at(NOW));
    assert_eq!(
        render::text(&report, true),
        "\
NODE      TYPE       ENIS   MAX   IPS   ASSIGNED   COOLING   FREE   WAITING   WARM    READY   REASON      AGE   \
SUBNET   CEILING   DEMAND   THROTTLES   INSTANCE
node-a    m5.large   2      2     18    4          0         14     0         1 ENI   True    AsPlanned   -     \
-        -         -        0           i-0123456789abcdef0
TOTAL 1   -          2      2     18    4          0         14     0         -       1/1     -           -     \
-        -         0        0           -

ENIs of node-a:
ENI                     DEVICE   STATE   IPS   ASSIGNED   PREFIXES   SUBNET                     PRIMARY-IP
eni-00000000000000000   0        Ready   9     4          0          subnet-0123456789abcdef0   10.0.0.4
eni-00000000000000001   1        Ready   9     0          0          subnet-0123456789abcdef0   10.0.1.4

SUBNET     ZONE         CIDR          FREE   IN-FLIGHT   HEADROOM   USABLE   SHARE/NODE   RUNS-OUT   CLASSES
subnet-1   eu-west-1a   10.0.0.0/20   120    5           20         95       40           in 3h20m   default
"
    );
}

#[test]
fn without_a_class_that_reports_the_reader_is_sent_to_the_classes() {
    let report = report(&fleet()[..1], Ok(vec![default_class()]), Sort::Free, false, at(NOW));
    assert!(render::text(&report, false).contains("kubectl get enipoolclasses"));
}

#[test]
fn each_order_puts_first_what_it_is_about() {
    let pools = fleet();
    let table = [
        (Sort::Free, ["node-c", "node-b", "node-a"]),
        (Sort::Waiting, ["node-b", "node-a", "node-c"]),
        (Sort::Assigned, ["node-b", "node-a", "node-c"]),
        (Sort::Ips, ["node-b", "node-a", "node-c"]),
        (Sort::Throttles, ["node-b", "node-a", "node-c"]),
        (Sort::Name, ["node-a", "node-b", "node-c"]),
    ];
    for (sort, order) in table {
        assert_eq!(names(&pools, sort), order, "{sort:?}");
    }
}

#[test]
fn nodes_that_are_alike_come_by_name_and_with_waiting_pods_first() {
    let mut pools: Vec<ENIPool> = ["b", "a", "c"].map(|node| pool_with_enis(node, 1, 9, 9)).into();
    pools[2].status.as_mut().unwrap().waiting = 1;
    assert_eq!(names(&pools, Sort::Free), ["c", "a", "b"]);
}

#[test]
fn a_subnet_of_two_classes_is_one_row_with_the_more_careful_figures() {
    let report = report(&[], Ok(vec![class("a", 120, 20), class("b", 118, 50)]), Sort::Free, false, at(NOW));
    let row = &report.subnets[0];
    assert_eq!((row.id.as_str(), row.free, row.headroom, row.usable), ("subnet-1", 118, 50, 63));
    assert_eq!(row.classes, ["a", "b"]);
    assert_eq!(report.subnets.len(), 2);
}

#[test]
fn json_has_the_words_of_the_api() {
    let report = report(&fleet()[1..2], Ok(vec![class("default", 120, 20)]), Sort::Free, true, at(NOW));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["nodes"][0]["instanceID"], "i-0123456789abcdef0");
    assert_eq!(json["nodes"][0]["attachedENIs"], 3);
    assert_eq!(json["nodes"][0]["enis"][0]["subnetID"], "subnet-0123456789abcdef0");
    assert_eq!(json["totals"]["waiting"], 4);
    assert_eq!(json["subnets"][0]["exhaustedInSeconds"], 12_000);
}

#[test]
fn who_may_not_read_the_classes_still_sees_the_nodes() {
    let refused = Failure::Forbidden { question: "list enipoolclasses".into(), message: "no".into() };
    let text = render::text(&report(&fleet(), Err(refused), Sort::Free, false, at(NOW)), false);
    assert!(text.contains("node-b") && text.contains("Not read: enipoolclasses: not allowed"), "{text}");
}

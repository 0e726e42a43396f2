//! Whole pages, as people see them.

use enipool_crds::{IntentStatus, LastEc2Error, Operations};

use super::*;

#[test]
fn a_pod_of_a_node_whose_subnet_is_exhausted() {
    let mut facts = facts(
        pod(),
        short_of(Reason::SubnetExhausted, "0 free, 2 waiting: the subnet has no free address.", |status| {
            status.throttles = 12;
            status.action_in_progress = Some("CreateNetworkInterface in subnet-1".into());
            status.intents = vec![IntentStatus {
                id: "i".into(),
                eni_id: Some("eni-9".into()),
                step: "Attach".into(),
                since: Time(ago(7)),
            }];
            status.last_ec2_error = Some(LastEc2Error {
                action: "AssignPrivateIpAddresses".into(),
                kind: "subnet_exhausted".into(),
                message: "InsufficientFreeAddressesInSubnet: The subnet has\nno free addresses".into(),
                time: Time(ago(40)),
            });
        }),
    );
    facts.events = Answer::Found(vec![
        event(90, "FailedCreatePodSandBox", "older"),
        event(20, "FailedCreatePodSandBox", "plugin enipool failed: no address for the pod:\n SubnetExhausted"),
    ]);
    assert_eq!(
        render::text(&facts),
        r#"Pod shop/web waits for an address: node node-a has none free (SubnetExhausted: the subnet has no free address).

Pod            Pending, no address, bound 2m10s ago
Conditions     not PodReadyToStartContainers, PodScheduled, not Ready (ContainersNotReady)
Containers     web: ContainerCreating
Node           node-a (m5.large, eu-west-1a, i-0123456789abcdef0), ready
Agent          serves pods (pod enipool/enipool-agent-x1)
Addresses      18 on 2 of 2 ENIs: 18 in use, 0 cooling, 0 free (warm target 1 ENI)
Waiting        2 pods of this node wait for an address at this moment
Reason         SubnetExhausted: 0 free, 2 waiting: the subnet has no free address.
Allowed        18 addresses on 2 ENIs, at most 27; 2 pods without one; class default
Decision       18 = 18 used; 2 demand and 9 warm withheld: subnet-1 has 0 left
Subnet         subnet-1 (eu-west-1a, 10.0.0.0/24): 10 free, 10 of them headroom, 1 in flight, runs out in 60m at this pace
Under way      CreateNetworkInterface in subnet-1
Being made     eni-9: Attach for 7s
Last failure   AssignPrivateIpAddresses 40s ago, subnet_exhausted: InsufficientFreeAddressesInSubnet: The subnet has no free addresses
Throttled      12 EC2 calls refused for their rate since the agent started; not at this moment

Events:
  AGE   COUNT   TYPE      REASON                   MESSAGE
  20s   3       Warning   FailedCreatePodSandBox   plugin enipool failed: no address for the pod: SubnetExhausted
  90s   3       Warning   FailedCreatePodSandBox   older

What to do:
- See who holds free addresses that others could use: kubectl enipool top --sort ips
- Let all nodes of the class keep fewer in reserve: kubectl patch enipoolclass default --type merge -p '{"spec":{"warmENITarget":null,"warmPrefixTarget":null,"warmIPTarget":2}}'
- Or give the class one more subnet in this zone: spec.subnetSelector of enipoolclass default.
- 10 addresses of subnet-1 are headroom that the pool leaves to others; spec.headroom of the class sets that.
"#
    );
}

#[test]
fn a_pod_of_a_node_that_somebody_paused_while_the_operator_is_away() {
    let mut pool = short_of(Reason::Paused, "", |status| {
        let conditions = &mut status.conditions;
        let away = "Nobody answers this node's demand.";
        condition::set(
            conditions,
            ConditionType::OperatorPresent,
            Some(false),
            Reason::OperatorAway,
            away,
            None,
            ago(60),
        );
        status.instance = None;
    });
    pool.metadata.generation = Some(4);
    pool.spec.operations = Some(Operations::NoCloud);
    pool.spec.allocation = None;
    let mut facts = facts(pod(), pool);
    facts.node = Answer::Missing;
    facts.agent = Answer::Missing;
    facts.class = Answer::NotAsked;
    facts.events = Answer::Unread("not allowed to list events in namespace shop: no".into());
    assert_eq!(
        render::text(&facts),
        r#"Pod shop/web waits for an address: node node-a has none free (Paused: spec.operations keeps the pool from calling EC2).

Pod          Pending, no address, bound 2m10s ago
Conditions   not PodReadyToStartContainers, PodScheduled, not Ready (ContainersNotReady)
Containers   web: ContainerCreating
Node         node-a, gone
Agent        its pod is gone from the node; its last report: serves pods
Addresses    18 on 2 of 2 ENIs: 18 in use, 0 cooling, 0 free (warm target 1 ENI)
Waiting      2 pods of this node wait for an address at this moment
Reason       Paused: spec.operations keeps the pool from calling EC2
Operator     away: Nobody answers this node's demand.
Allowed      the operator has not planned for this node yet
Operations   NoCloud: the pool changes nothing in EC2
Spec         the agent acts on generation 1, the newest is 4

Events: not read: not allowed to list events in namespace shop: no

What to do:
- Somebody set operations to NoCloud for this node. Let the pool call EC2 again: kubectl patch enipool node-a --type merge -p '{"spec":{"operations":"Normal"}}'
"#
    );
}

#[test]
fn a_pod_that_has_its_address_and_waits_for_its_image() {
    let mut pod = pod();
    pod["status"]["podIP"] = json!("10.0.0.77");
    pod["status"]["conditions"] = json!([]);
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] = json!("ImagePullBackOff");
    let mut facts = facts(pod, pool(9));
    facts.class = Answer::Missing;
    assert_eq!(
        render::text(&facts),
        r"Pod shop/web has its address: 10.0.0.77 on node node-a. What it still waits for is not the network (web: ImagePullBackOff).

Pod          Pending, 10.0.0.77, bound 2m11s ago
Containers   web: ImagePullBackOff
Node         node-a (m5.large, eu-west-1a, i-0123456789abcdef0), ready
Agent        serves pods (pod enipool/enipool-agent-x1)
Addresses    18 on 2 of 2 ENIs: 9 in use, 0 cooling, 9 free (warm target 1 ENI)
Waiting      0 pods of this node wait for an address at this moment
Allowed      18 addresses on 2 ENIs, at most 27; 2 pods without one; class default
Decision     18 = 18 used; 2 demand and 9 warm withheld: subnet-1 has 0 left
Subnet       subnet-1

Events: none (Kubernetes forgets them after an hour)

What to do:
- Look at its containers: kubectl describe pod web -n shop
"
    );
}

#[test]
fn the_page_keeps_to_the_newest_events_and_counts_the_rest() {
    let mut facts = facts(pod(), pool(9));
    facts.events = Answer::Found((0..11).map(|n| event(100 - n, "FailedMount", &format!("try {n}"))).collect());
    let page = render::text(&facts);
    assert!(page.contains("try 10") && page.contains("try 3"), "{page}");
    assert!(!page.contains("try 2\n") && page.contains("  and 3 older\n"), "{page}");
}

#[test]
fn json_names_the_verdict_and_keeps_the_api_s_own_words() {
    let mut facts = facts(pod(), short_of(Reason::SubnetExhausted, "none", |_| {}));
    facts.events = Answer::Found(vec![event(20, "FailedCreatePodSandBox", "no")]);
    let json = render::json(&facts);
    assert_eq!(json["verdict"], "NoFreeAddress");
    assert_eq!(json["reason"], "SubnetExhausted");
    assert_eq!(json["pod"]["boundSecondsAgo"], 130);
    assert_eq!(json["pod"]["address"], Value::Null);
    assert_eq!(json["enipool"]["status"]["addresses"]["available"], 0);
    assert_eq!(json["enipool"]["allocation"]["ceiling"], 27);
    assert_eq!(json["subnet"]["headroom"], 10);
    assert_eq!(json["events"][0]["count"], 3);
    assert_eq!(json["notRead"], json!([]));
}

use enipool_crds::fixtures;

use super::*;

fn with(change: impl FnOnce(&mut Value)) -> Facts {
    let mut pod = pod();
    change(&mut pod);
    facts(pod, pool(9))
}

fn judge(facts: &Facts) -> &'static str {
    Verdict::judge(facts).name()
}

#[test]
fn a_pod_that_needs_no_address_is_not_told_to_wait_for_one() {
    assert_eq!(judge(&with(|pod| pod["status"]["phase"] = json!("Succeeded"))), "Finished");
    assert_eq!(judge(&with(|pod| pod["metadata"]["deletionTimestamp"] = json!(ago(5).to_string()))), "Leaving");
    let host = with(|pod| {
        pod["spec"]["hostNetwork"] = json!(true);
        pod["status"]["podIP"] = json!("10.0.0.1");
    });
    assert_eq!(judge(&host), "HostNetwork");
    assert!(render::text(&host).contains("10.0.0.1, its node's"));
}

#[test]
fn a_pod_without_a_node_is_the_scheduler_s() {
    let unscheduled = with(|pod| {
        pod["spec"]["nodeName"] = json!("");
        pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/2 nodes are available: 2 Too many pods."}]);
    });
    assert_eq!(judge(&unscheduled), "Unscheduled");
    let summary = Verdict::judge(&unscheduled).summary(&unscheduled);
    assert!(summary.ends_with("2 Too many pods."), "{summary}");
    let gated = with(|pod| pod["spec"] = json!({"containers": [], "schedulingGates": [{"name": "quota"}]}));
    assert_eq!(judge(&gated), "SchedulingGated");
}

#[test]
fn without_an_enipool_the_story_says_whose_it_is() {
    let mut facts = with(|_| {});
    for (pool, verdict) in [
        (Answer::Missing, "NoPool"),
        (Answer::UnknownKind, "NotInstalled"),
        (Answer::Unread("not allowed to get enipool node-a".into()), "PoolUnread"),
    ] {
        facts.pool = pool;
        assert_eq!(judge(&facts), verdict);
        assert!(!render::text(&facts).contains("Agent"), "{verdict}: nothing is known of the agent");
    }
}

#[test]
fn an_agent_that_has_not_reported_or_does_not_serve_comes_before_the_node() {
    let mut facts = with(|_| {});
    facts.node = Answer::Found(node("False"));
    assert_eq!(judge(&facts), "NodeNotReady");
    let Answer::Found(pool) = &mut facts.pool else { panic!() };
    let conditions = &mut pool.status.as_mut().unwrap().conditions;
    condition::set(conditions, ConditionType::Ready, Some(false), Reason::Starting, "lists ENIs", Some(1), ago(3));
    assert_eq!(judge(&facts), "AgentNotReady");
    facts.pool = Answer::Found(fixtures::new_pool("node-a"));
    assert_eq!(judge(&facts), "AgentNotReady");
    assert!(render::text(&facts).contains("has not reported yet"));
}

#[test]
fn free_addresses_and_waiting_pods_decide_whether_the_pool_is_to_blame() {
    let mut facts = with(|_| {});
    assert_eq!(judge(&facts), "NotTheAddress");
    facts.events = Answer::Found(vec![event(40, "FailedCreatePodSandBox", "x"), event(50, "FailedMount", "y")]);
    assert_eq!(judge(&facts), "SandboxFails");
    assert!(Verdict::SandboxFails.summary(&facts).contains("failed 40s ago"));
    let Answer::Found(pool) = &mut facts.pool else { panic!() };
    pool.status.as_mut().unwrap().waiting = 1;
    assert_eq!(judge(&facts), "NoFreeAddress");
}

#[test]
fn every_reason_has_a_meaning_and_a_step_and_every_verdict_a_step() {
    for reason in Reason::ALL {
        let facts = facts(pod(), short_of(reason, "", |_| {}));
        let page = render::text(&facts);
        assert!(page.contains(&format!("({reason}: {})", advice::meaning(reason))), "{page}");
        assert!(page.contains("What to do:\n- "), "{page}");
        assert_eq!(facts.reason(), Some(reason));
    }
}

#[test]
fn a_reason_of_a_newer_version_is_shown_as_it_is() {
    let mut facts = facts(pod(), short_of(Reason::Throttled, "", |_| {}));
    let Answer::Found(pool) = &mut facts.pool else { panic!() };
    for condition in &mut pool.status.as_mut().unwrap().conditions {
        condition.reason = "SolarFlare".into();
    }
    assert_eq!(facts.reason(), None);
    let page = render::text(&facts);
    assert!(page.contains("(SolarFlare)") && page.contains("kubectl get enipool node-a -o yaml"), "{page}");
}

#[test]
fn an_agent_whose_pod_is_down_is_not_believed_what_it_last_reported() {
    let mut facts = with(|_| {});
    let mut down = agent("False");
    let waiting = json!([{"name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
    down.status.as_mut().unwrap().container_statuses = serde_json::from_value(waiting).unwrap();
    facts.agent = Answer::Found(down);
    assert_eq!(judge(&facts), "AgentNotReady");
    let page = render::text(&facts);
    for part in [
        "its pod enipool/enipool-agent-x1 is not ready.",
        "pod enipool/enipool-agent-x1 is not ready (agent: CrashLoopBackOff); its last report: serves pods",
        "kubectl logs enipool-agent-x1 -n enipool",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[test]
fn a_class_that_counts_addresses_is_asked_to_count_fewer() {
    let mut facts = facts(pod(), short_of(Reason::SubnetExhausted, "", |_| {}));
    let Answer::Found(class) = &mut facts.class else { panic!() };
    class.spec.targets.warm_ip_target = Some(5);
    let page = render::text(&facts);
    assert!(page.contains("Lower warmIPTarget and minimumIPTarget of enipoolclass default (now 5 IPs)."), "{page}");
}

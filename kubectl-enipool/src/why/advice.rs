//! What each verdict and each reason means for the person who waits, and what to do. Every reason of the API has an entry:
//! the compiler asks for one when a reason is added.

use enipool_crds::{Operations, Reason};
use kube::ResourceExt;

use super::facts::Facts;
use super::verdict::Verdict;

/// What a reason means, as a clause.
pub fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::AsPlanned => "nothing holds the pool back",
        Reason::Starting => "the agent is still finding out what the node holds",
        Reason::SubnetExhausted => "the subnet has no free address",
        Reason::NoContiguousPrefix => "the subnet has free addresses, but no free /28 prefix",
        Reason::Throttled => "EC2 refuses calls of this account for their rate",
        Reason::CallLimit => "the node's agent has made as many EC2 calls as a node ever needs, and pauses by itself",
        Reason::InstanceLimit => "the instance holds as many addresses as its type or maxENIs allows",
        Reason::AccountLimit => "the account's quota of network interfaces is used up",
        Reason::AttachInFlight => "a network interface is on its way",
        Reason::InstanceNotRunning => "the instance is not running",
        Reason::AccessDenied => "the node's IAM role may not make an EC2 call that the pool needs",
        Reason::Ec2Unavailable => "EC2 fails or does not answer",
        Reason::OperatorAway => "no operator plans for this node; its agent does, at a cautious pace",
        Reason::ClassNotFound => "no ENIPoolClass matches the node",
        Reason::Paused => "spec.operations keeps the pool from calling EC2",
        Reason::MaxPods => "the node holds an address for each pod that its kubelet admits",
        Reason::Ceiling => "the ceiling that the operator set for the node is reached",
        Reason::AwaitingTurn => "it is not yet this node's turn at the EC2 API",
        Reason::AssignInFlight => "addresses are on their way from EC2",
        Reason::Cooling => "all addresses that are not in use rest after their last pod",
        Reason::NoSubnet => "no subnet is known in which a network interface could be made",
        Reason::DataplaneFailed => "routes or rules of the node could not be set up",
    }
}

/// What to do, the most useful step first. Never empty.
pub fn advice(verdict: Verdict, facts: &Facts) -> Vec<String> {
    let node = facts.node();
    let (name, namespace) = (
        facts.pod.metadata.name.as_deref().unwrap_or_default(),
        facts.pod.metadata.namespace.as_deref().unwrap_or_default(),
    );
    let describe = format!("kubectl describe pod {name} -n {namespace}");
    match verdict {
        Verdict::Finished => vec!["Nothing: its address went back to the pool when its sandbox ended.".into()],
        Verdict::Leaving => {
            vec![format!("Nothing, if it goes soon. If not, see what holds it (finalizers, its node): {describe}")]
        }
        Verdict::HostNetwork => vec![format!("Nothing in the pool can hold it up; if it does not start: {describe}")],
        Verdict::HasAddress if facts.idle_containers().is_empty() => vec![
            "Nothing.".into(),
            format!(
                "Which ENI carries the address, the node's agent knows; on {node}: curl -s http://127.0.0.1:61678/v1/enis"
            ),
        ],
        Verdict::HasAddress => vec![format!("Look at its containers: {describe}")],
        Verdict::Gated => vec!["Whatever set the gates has to take them from spec.schedulingGates.".into()],
        Verdict::Unscheduled => unscheduled(&describe),
        Verdict::NotInstalled => vec![
            format!("Ask the CNI plugin that serves this cluster; what it said is among the events: {describe}"),
            "Is this the cluster that you meant? kubectl config current-context".into(),
        ],
        Verdict::NoPool => vec![
            "See whether the operator runs, it makes one ENIPool for each node: kubectl get pods -A | grep enipool-operator"
                .into(),
            agent_log(facts),
        ],
        Verdict::PoolUnread => vec!["Ask for a role that may get enipools of the group enipool.dev, then ask again.".into()],
        Verdict::AgentNotReady => vec![
            "If the agent has just started: wait some seconds, the runtime tries again by itself.".into(),
            agent_log(facts),
        ],
        Verdict::NodeNotReady => vec![format!("See what ails the node: kubectl describe node {node}")],
        Verdict::NoFreeAddress => for_reason(facts),
        Verdict::SandboxFails => vec![
            "The newest FailedCreatePodSandBox event says why. If it speaks of a missing address, addresses have come since: \
             the runtime's next try, within a minute or so, gets one."
                .into(),
            agent_log(facts),
        ],
        Verdict::NotTheAddress => vec![format!(
            "Look for what the kubelet does before it asks for an address (volumes, secrets, admission): {describe}"
        )],
    }
}

fn unscheduled(describe: &str) -> Vec<String> {
    vec![
        format!("Read why no node takes it: {describe}"),
        "If it says \"Too many pods\": nodes are full by the kubelet's --max-pods; add nodes or raise it. The scheduler does \
         not count addresses."
            .into(),
    ]
}

fn agent_log(facts: &Facts) -> String {
    if let Some(agent) = facts.agent.found() {
        let (name, namespace) = (agent.name_any(), agent.namespace().unwrap_or_default());
        return format!("Read what the node's agent says: kubectl logs {name} -n {namespace} --tail 50");
    }
    format!(
        "See how the node's agent fares, and its log: kubectl get pods -A --field-selector spec.nodeName={} | grep \
         enipool-agent",
        facts.node()
    )
}

/// Replaces whatever form of target the pool had: forms do not go together.
const MORE_WARM: &str = r#"{"warmENITarget":2,"warmIPTarget":null,"minimumIPTarget":null}"#;

const WAIT: &str = "Wait: this passes by itself within seconds, and the runtime tries again.";
const OTHER_NODE: &str = "Delete the pod, if a controller makes a new one: the scheduler may find it another node.";

fn for_reason(facts: &Facts) -> Vec<String> {
    let node = facts.node();
    let class = facts.allocation().map_or("default", |allocation| allocation.class.as_str());
    let Some(reason) = facts.reason() else {
        return vec![format!("See what the pool says: kubectl get enipool {node} -o yaml"), agent_log(facts)];
    };
    match reason {
        Reason::AsPlanned | Reason::AttachInFlight | Reason::AssignInFlight | Reason::Starting => {
            vec![WAIT.into(), format!("If it lasts longer than a minute: {}", uncapital(&agent_log(facts)))]
        }
        Reason::Cooling => vec![
            "Wait: the addresses are free again when their cooldown is over.".into(),
            format!("If pods come and go here all the time, keep more in reserve: {}", patch_pool(node, MORE_WARM)),
        ],
        Reason::AwaitingTurn => vec![
            WAIT.into(),
            "If it lasts, EC2's rate limits hold back the whole fleet: kubectl enipool top --sort waiting -o wide".into(),
        ],
        Reason::SubnetExhausted => subnet_exhausted(facts, class),
        Reason::NoContiguousPrefix => vec![
            format!("Let the node take single addresses too: {}", patch_pool(node, r#"{"addressing":"Mixed"}"#)),
            "For good: reserve a range of the subnet for prefixes (EC2: create-subnet-cidr-reservation --reservation-type \
             prefix)."
                .into(),
        ],
        Reason::Throttled => vec![
            "Wait: the agent slows down and tries again by itself.".into(),
            "If it lasts, find who else calls EC2 in this account and region, or ask AWS for a higher request rate.".into(),
        ],
        Reason::CallLimit => vec![
            "Wait: the agent goes on by itself, at the time named above.".into(),
            format!("Something makes it try in vain; the last failed call says what: {}", uncapital(&agent_log(facts))),
        ],
        Reason::InstanceLimit => vec![
            OTHER_NODE.into(),
            "Or wait until another pod of this node ends.".into(),
            "For good: raise maxENIs if it is set, use addressing Prefix, a larger instance type, or a lower --max-pods."
                .into(),
        ],
        Reason::AccountLimit => vec![
            "Ask AWS for a higher quota of network interfaces per region (L-DF5E4CA3), or delete interfaces that nobody \
             uses (state `available` in EC2)."
                .into(),
        ],
        Reason::InstanceNotRunning => vec![OTHER_NODE.into(), format!("See the node: kubectl describe node {node}")],
        Reason::AccessDenied => vec![
            "Attach the IAM policy that enipool ships to the node's role; the last failed call is named above.".into(),
            "The agent tries again by itself; no restart is needed.".into(),
        ],
        Reason::Ec2Unavailable => vec![
            "Check the node's way to the EC2 endpoint (NAT, VPC endpoint, DNS) and AWS's health page for the region.".into(),
            agent_log(facts),
        ],
        Reason::OperatorAway => vec![
            "Wait: the agent gets addresses by itself.".into(),
            "See whether the operator runs: kubectl get pods -A | grep enipool-operator".into(),
        ],
        Reason::ClassNotFound => vec![
            "Create a class whose nodeSelector matches the node, or the class `default`: kubectl get enipoolclasses".into(),
        ],
        Reason::Paused => paused(facts, node),
        Reason::MaxPods => vec![
            OTHER_NODE.into(),
            "Or raise the kubelet's --max-pods. A pod beyond it is usually one that was bound by hand or by a DaemonSet."
                .into(),
        ],
        Reason::Ceiling => vec![
            format!("See in the decision above what the ceiling comes from: kubectl get enipool {node} -o yaml"),
            OTHER_NODE.into(),
        ],
        Reason::NoSubnet => {
            vec![format!("Check spec.subnetSelector of the class: it has to find a subnet in the node's zone: kubectl get enipoolclass {class} -o yaml")]
        }
        Reason::DataplaneFailed => vec![
            agent_log(facts),
            "In that pod, `/enipool-agent doctor` compares EC2, ledger and kernel.".into(),
        ],
    }
}

fn subnet_exhausted(facts: &Facts, class: &str) -> Vec<String> {
    let targets = facts.class.found().map(|class| &class.spec.targets);
    let by_address = targets.filter(|targets| targets.warm_ip_target.is_some() || targets.minimum_ip_target.is_some());
    let fewer = if let Some(targets) = by_address {
        format!("Lower warmIPTarget and minimumIPTarget of enipoolclass {class} (now {}).", targets.summary())
    } else {
        let fewer = r#"{"warmENITarget":null,"warmPrefixTarget":null,"warmIPTarget":2}"#;
        format!("Let all nodes of the class keep fewer in reserve: {}", patch("enipoolclass", class, fewer))
    };
    let mut steps = vec![
        "See who holds free addresses that others could use: kubectl enipool top --sort ips".to_owned(),
        fewer,
        format!("Or give the class one more subnet in this zone: spec.subnetSelector of enipoolclass {class}."),
    ];
    if let Some(subnet) = facts.subnet().filter(|subnet| subnet.headroom > 0 && subnet.available > 0) {
        steps.push(format!(
            "{} addresses of {} are headroom that the pool leaves to others; spec.headroom of the class sets that.",
            subnet.headroom, subnet.id
        ));
    }
    steps
}

fn paused(facts: &Facts, node: &str) -> Vec<String> {
    let why = match facts.pool.found().and_then(|pool| pool.spec.operations) {
        Some(Operations::NoCloud) => "Somebody set operations to NoCloud for this node. ",
        Some(Operations::NoRelease | Operations::Normal) | None => "",
    };
    vec![format!("{why}Let the pool call EC2 again: {}", patch_pool(node, r#"{"operations":"Normal"}"#))]
}

fn patch_pool(node: &str, spec: &str) -> String {
    patch("enipool", node, spec)
}

fn patch(kind: &str, name: &str, spec: &str) -> String {
    format!("kubectl patch {kind} {name} --type merge -p '{{\"spec\":{spec}}}'")
}

fn uncapital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

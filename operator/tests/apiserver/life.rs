//! The whole operator against a real API server and the simulated EC2: the life of a node, and a change of leader.

use std::fmt::Debug;
use std::time::Duration;

use clap::Parser;
use ec2_sim::{Model, SharedModel, SimConfig, SimEc2};
use enipool_crds::{ENIPool, ENIPoolClass, ENIPoolStatus, InstanceStatus};
use enipool_daemon::Shutdown;
use enipool_operator::{Args, Aws};
use enipool_pool::cloudwatch::{CloudWatch, CloudWatchError, Datum};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{client, install_crds};

/// Watches one object until it is as wanted; `None` stands for an object that does not exist.
async fn until<K>(api: &Api<K>, name: &str, what: &str, wanted: impl Fn(Option<&K>) -> bool) -> Option<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    let mut last = None;
    let watching = async {
        let mut events = std::pin::pin!(watcher::watch_object(api.clone(), name));
        while let Some(event) = events.next().await {
            // An error is the watch's pause; it goes on by itself.
            last = event.unwrap_or_else(|_| last.take());
            if wanted(last.as_ref()) {
                return;
            }
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), watching).await;
    assert!(in_time.is_ok(), "{name} never was so that {what}: {last:#?}");
    last
}

/// CloudWatch is off: no request is made.
struct NoCloudWatch;

impl CloudWatch for NoCloudWatch {
    async fn put_metric_data(&self, _namespace: &str, data: &[Datum]) -> Result<(), CloudWatchError> {
        panic!("{} values were sent although CloudWatch is off", data.len());
    }
}

fn operator(
    client: &Client,
    identity: &str,
    class_file: &str,
) -> (Shutdown, tokio::task::JoinHandle<anyhow::Result<()>>) {
    let args = Args::parse_from([
        "enipool-operator",
        "--namespace=default",
        "--lease=operator-test",
        "--admin-address=127.0.0.1:0",
        "--cluster-name=test",
        &format!("--identity={identity}"),
        &format!("--default-class-file={class_file}"),
    ]);
    let model = SharedModel::running(Model::new(SimConfig::instant()).unwrap());
    let shutdown = Shutdown::new();
    let aws = Aws { ec2: SimEc2::new(model, "operator"), cloudwatch: NoCloudWatch };
    let running = enipool_operator::run(args, client.clone(), aws, shutdown.clone());
    (shutdown, tokio::spawn(running))
}

async fn merge<K>(api: &Api<K>, name: &str, patch: Value) -> K
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an API server: make test-api-server"]
async fn the_life_of_a_node_and_a_change_of_leader() {
    let client = client().await;
    install_crds(&client).await;
    let nodes: Api<Node> = Api::all(client.clone());
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pools: Api<ENIPool> = Api::all(client.clone());
    let classes: Api<ENIPoolClass> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), "default");
    let gone = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    // Names of its own: what a run that was broken off left behind is in nobody's way.
    let node_name = format!("operator-test-{}", std::process::id());
    let node_name = node_name.as_str();
    let _ = classes.delete("default", &gone).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    accounts.patch("default", &PatchParams::apply("operator-test"), &Patch::Apply(&account)).await.unwrap();

    let folder = std::env::temp_dir().join(node_name);
    std::fs::create_dir_all(&folder).unwrap();
    let class_file = folder.join("class.yaml");
    std::fs::write(&class_file, "warmENITarget: 1\n").unwrap();
    let class_file = class_file.to_str().unwrap().to_owned();

    let (first, first_ended) = operator(&client, "first", &class_file);
    until(&classes, "default", "the chart's class is there", |class| {
        class.is_some_and(|class| class.spec.targets.warm_eni_target == Some(1))
    })
    .await;
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": node_name, "labels": {"node.kubernetes.io/instance-type": "m5.large"}},
        "spec": {"providerID": "aws:///eu-west-1a/i-0123456789abcdef0"},
    }))
    .unwrap();
    let node = nodes.create(&PostParams::default(), &node).await.unwrap();
    let addresses = |pool: &ENIPool| pool.spec.allocation.as_ref().map(|allocation| allocation.addresses);
    let pool =
        until(&pools, node_name, "it has an allocation", |pool| pool.and_then(addresses) == Some(9)).await.unwrap();
    assert_eq!(Some(pool.owner_references()[0].uid.clone()), node.uid());
    let decision = pool.spec.allocation.unwrap().decision;
    assert!(decision.contains("1 warm ENI"), "{decision}");

    merge(&pools, node_name, json!({"spec": {"warmENITarget": 2}})).await;
    let pool = until(&pools, node_name, "the edit acts", |pool| pool.and_then(addresses) == Some(18)).await.unwrap();
    assert_eq!(pool.spec.targets.warm_eni_target, Some(2), "what a person wrote stays");
    let refused =
        pools.patch(node_name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"warmIPTarget": 3}}))).await;
    assert!(refused.unwrap_err().to_string().contains("warmENITarget has no effect beside warmIPTarget"));

    let status = ENIPoolStatus {
        instance: Some(InstanceStatus {
            id: "i-0123456789abcdef0".into(),
            instance_type: "m5.large".into(),
            zone: "eu-west-1a".into(),
            ..InstanceStatus::default()
        }),
        ..ENIPoolStatus::default()
    };
    let patch = json!({"apiVersion": "enipool.dev/v1alpha1", "kind": "ENIPool", "status": status});
    let agent = PatchParams::apply(enipool_crds::AGENT_FIELD_MANAGER).force();
    pools.patch_status(node_name, &agent, &Patch::Apply(&patch)).await.unwrap();

    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": node_name},
        "spec": {"nodeName": node_name, "containers": [{"name": "a", "image": "a"}]},
    }))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    until(&pools, node_name, "the pod counts", |pool| {
        pool.and_then(|pool| pool.spec.allocation.as_ref()).is_some_and(|allocation| allocation.demand == 1)
    })
    .await;
    until(&classes, "default", "it counts its nodes", |class| {
        class.and_then(|class| class.status.as_ref()).is_some_and(|status| status.nodes >= 1)
    })
    .await;

    let (second, second_ended) = operator(&client, "second", &class_file);
    let holder = |lease: Option<&Lease>| lease?.spec.as_ref()?.holder_identity.clone();
    until(&leases, "operator-test", "the first one leads", |lease| holder(lease).as_deref() == Some("first")).await;
    let asked = tokio::time::Instant::now();
    first.request();
    first_ended.await.unwrap().unwrap();
    until(&leases, "operator-test", "the second one leads", |lease| holder(lease).as_deref() == Some("second")).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "the Lease was handed over, not left to expire");

    pods.delete(node_name, &gone).await.unwrap();
    nodes.delete(node_name, &gone).await.unwrap();
    until(&pools, node_name, "it is gone", |pool: Option<&ENIPool>| pool.is_none()).await;
    second.request();
    second_ended.await.unwrap().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

//! The collector of leaks: ENIs of ours that nobody owns any more, whatever became of their node.
//!
//! An ENI is deleted only when all of this holds: it carries our tags and this cluster's name, it is `available`, it is
//! older than five minutes, it was seen so in two rounds, no agent has an intent for it, and its node's pool does not
//! name it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use enipool_crds::ENIPool;
use enipool_pool::EniId;
use enipool_pool::ec2::{Action, Ec2, Ec2ErrorKind, Eni, EniFilter, EniStatus};
use k8s_openapi::jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::farewell::INSTANCE_TAG;
use crate::metrics::{LEAKED, Metrics};
use crate::world::World;

/// The tag with the name of the cluster.
pub const CLUSTER_TAG: &str = "cluster.k8s.amazonaws.com/name";
/// The tag with the intent that made the ENI: only enipool writes it.
pub const INTENT_TAG: &str = "enipool.dev/intent";
/// The tag with the time of creation, RFC 3339.
pub const CREATED_TAG: &str = "node.k8s.amazonaws.com/createdAt";

/// One describe call each.
const ROUND_EVERY: Duration = Duration::from_secs(120);
/// An agent attaches an ENI within seconds of making it; five minutes leave room for a throttled account.
const AGE_MIN: Duration = Duration::from_secs(300);

/// What pools still lay claim to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    pub enis: BTreeSet<String>,
    pub intents: BTreeSet<String>,
}

impl Claims {
    pub fn of<'a>(pools: impl Iterator<Item = &'a Arc<ENIPool>>) -> Self {
        let mut claims = Self::default();
        for status in pools.filter_map(|pool| pool.status.as_ref()) {
            claims.enis.extend(status.enis.iter().map(|eni| eni.id.clone()));
            claims.enis.extend(status.intents.iter().filter_map(|intent| intent.eni_id.clone()));
            claims.intents.extend(status.intents.iter().map(|intent| intent.id.clone()));
        }
        claims
    }
}

/// ENIs that nobody owns now. Those that were among them in the last round too may go.
pub fn unowned(enis: &[Eni], claims: &Claims, now: Timestamp) -> BTreeSet<EniId> {
    let loose = |eni: &&Eni| {
        let intent = eni.tags.get(INTENT_TAG);
        let claimed =
            claims.enis.contains(eni.id.as_str()) || intent.is_some_and(|intent| claims.intents.contains(intent));
        eni.status == EniStatus::Available && intent.is_some() && !claimed && is_old(eni, now)
    };
    enis.iter().filter(loose).map(|eni| eni.id.clone()).collect()
}

/// Without a readable time of creation nothing is known of its age: a person has to look at it.
fn is_old(eni: &Eni, now: Timestamp) -> bool {
    let created = eni.tags.get(CREATED_TAG).and_then(|text| text.parse::<Timestamp>().ok());
    let age = created.and_then(|created| Duration::try_from(now.duration_since(created)).ok());
    age.is_some_and(|age| age > AGE_MIN)
}

/// Collects until the token is cancelled.
pub async fn collect<E: Ec2>(ec2: Arc<E>, cluster: String, world: World, metrics: Metrics, stop: CancellationToken) {
    if cluster.is_empty() {
        tracing::warn!(
            "no cluster name is set: leaked ENIs are not collected, because they could be another cluster's"
        );
        return;
    }
    let mut before = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ROUND_EVERY) => {}
        }
        before = round(ec2.as_ref(), &cluster, &world, &metrics, before).await;
    }
}

/// One round; answers what to remember for the next.
async fn round<E: Ec2>(
    ec2: &E,
    cluster: &str,
    world: &World,
    metrics: &Metrics,
    before: BTreeSet<EniId>,
) -> BTreeSet<EniId> {
    let filter = EniFilter {
        status: Some(EniStatus::Available),
        tags: [(CLUSTER_TAG.to_owned(), cluster.to_owned())].into(),
        tag_keys: vec![INSTANCE_TAG.into()],
        ..EniFilter::default()
    };
    let answer = ec2.describe_network_interfaces(&filter).await;
    metrics.called(Action::DescribeNetworkInterfaces, &answer);
    let enis = match answer {
        Ok(enis) => enis,
        Err(error) => {
            tracing::warn!(%error, "leaked ENIs cannot be looked for");
            return before;
        }
    };
    let claims = Claims::of(world.state().pools.values());
    let unowned = unowned(&enis, &claims, Timestamp::now());
    metrics.leaks(unowned.len());
    let mut remembered = BTreeSet::new();
    for eni in unowned {
        if !before.contains(&eni) {
            remembered.insert(eni);
            continue;
        }
        let answer = ec2.delete_network_interface(&eni).await;
        metrics.called(Action::DeleteNetworkInterface, &answer);
        match answer {
            Ok(()) => {
                metrics.deleted(LEAKED);
                tracing::info!(%eni, "deleted a leaked ENI");
            }
            Err(error) if error.kind == Ec2ErrorKind::EniNotFound => {}
            Err(error) => {
                tracing::warn!(%eni, %error, "leaked ENI cannot be deleted");
                remembered.insert(eni);
            }
        }
    }
    remembered
}

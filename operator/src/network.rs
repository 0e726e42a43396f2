//! Subnets and security groups as EC2 describes them, and what each class uses of them. Refreshed in the background: a
//! plan never waits for EC2.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use enipool_crds::{ENIPoolClass, Reason, ResourceSelector};
use enipool_pool::ec2::{Action, Ec2, Ec2Error, Ec2ErrorKind, SecurityGroup, Selector, Subnet};
use enipool_pool::fleet::SubnetStock;
use enipool_pool::id::IdError;
use enipool_pool::{SecurityGroupId, SubnetId, VpcId, Zone};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::world::World;

/// How often EC2 is asked for the subnets' free addresses: two describe calls a minute and class.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// Least time between two refreshes, however often classes change.
const REFRESH_PAUSE: Duration = Duration::from_secs(2);

/// What one class uses.
#[derive(Debug, Clone, Default)]
pub struct ClassNetwork {
    /// `None`: the subnet of each node's primary ENI.
    pub subnets: Option<Vec<SubnetId>>,
    /// Empty: the security groups of each node's primary ENI.
    pub security_groups: Vec<SecurityGroupId>,
    /// Why the class cannot serve its nodes in full.
    pub problem: Option<(Reason, String)>,
}

/// All that is known. Survives failed calls: the last answer stays.
#[derive(Debug, Clone, Default)]
pub struct Network {
    pub subnets: BTreeMap<SubnetId, Subnet>,
    pub classes: BTreeMap<String, ClassNetwork>,
    headroom: BTreeMap<SubnetId, u32>,
}

impl Network {
    pub fn stocks(&self) -> Vec<SubnetStock> {
        let stock = |subnet: &Subnet| SubnetStock {
            id: subnet.id.clone(),
            available: subnet.available_ips,
            headroom: self.headroom(&subnet.id),
        };
        self.subnets.values().map(stock).collect()
    }

    /// One subnet of 10.0.0.0/16.
    #[cfg(test)]
    pub(crate) fn for_tests(id: &SubnetId, available_ips: u32, headroom: u32) -> Self {
        let subnet = Subnet {
            id: id.clone(),
            vpc: "vpc-1".parse().unwrap(),
            zone: Zone::new("eu-west-1a"),
            cidr: enipool_pool::SubnetCidr("10.0.0.0/16".parse().unwrap()),
            available_ips,
            tags: BTreeMap::new(),
        };
        Self { subnets: [(id.clone(), subnet)].into(), headroom: [(id.clone(), headroom)].into(), ..Self::default() }
    }

    pub fn headroom(&self, subnet: &SubnetId) -> u32 {
        self.headroom.get(subnet).copied().unwrap_or(0)
    }

    /// Where a node of this class and zone may get its next ENI.
    pub fn subnets_of(&self, class: &str, zone: Option<&Zone>, primary: Option<SubnetId>) -> Vec<SubnetId> {
        match self.classes.get(class).and_then(|class| class.subnets.as_ref()) {
            Some(chosen) => {
                let in_zone = |id: &&SubnetId| {
                    zone.is_none() || self.subnets.get(*id).is_some_and(|subnet| Some(&subnet.zone) == zone)
                };
                chosen.iter().filter(in_zone).cloned().collect()
            }
            None => primary.into_iter().collect(),
        }
    }

    pub fn security_groups_of(&self, class: &str) -> &[SecurityGroupId] {
        self.classes.get(class).map_or(&[], |class| &class.security_groups)
    }
}

/// What to ask EC2 for.
#[derive(Debug, Default)]
struct Questions {
    classes: Vec<Arc<ENIPoolClass>>,
    /// Subnets of nodes' ENIs.
    in_use: BTreeSet<SubnetId>,
    vpc: Option<VpcId>,
}

fn questions(world: &World) -> Questions {
    let state = world.state();
    let instances = || state.pools.values().filter_map(|pool| pool.status.as_ref()?.instance.as_ref());
    let enis = state.pools.values().filter_map(|pool| pool.status.as_ref()).flat_map(|status| &status.enis);
    let named = instances().filter_map(|instance| instance.subnet_id.as_deref());
    let in_use = named.chain(enis.map(|eni| eni.subnet_id.as_str())).filter_map(|id| id.parse().ok()).collect();
    Questions {
        classes: state.classes.values().cloned().collect(),
        in_use,
        vpc: instances().find_map(|instance| instance.vpc_id.as_ref()?.parse().ok()),
    }
}

/// The view that is shared with the planner. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SharedNetwork(Arc<Mutex<Arc<Network>>>);

impl SharedNetwork {
    pub fn get(&self) -> Arc<Network> {
        self.lock().clone()
    }

    pub fn set(&self, network: Network) {
        *self.lock() = Arc::new(network);
    }

    // The value is replaced as a whole, so a panic elsewhere cannot have left half of it.
    fn lock(&self) -> MutexGuard<'_, Arc<Network>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refreshes until the token is cancelled.
pub async fn refresh<E: Ec2>(
    ec2: Arc<E>,
    world: World,
    shared: SharedNetwork,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut asked = Vec::new();
    let mut changes = world.changes();
    let mut due = tokio::time::Instant::now();
    loop {
        let fingerprint = fingerprint(&questions(&world));
        if fingerprint != asked || tokio::time::Instant::now() >= due {
            let questions = questions(&world);
            asked = fingerprint;
            due = tokio::time::Instant::now() + REFRESH_EVERY;
            let network = ask(ec2.as_ref(), &questions, &shared.get(), &metrics).await;
            shared.set(network);
            // The planner sees the new stocks at once.
            world.change(|_| ());
            changes.mark_unchanged();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(due) => {}
            news = changes.changed() => {
                if news.is_err() {
                    return;
                }
            }
        }
        // Changes come in crowds, and most of them are none of ours.
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REFRESH_PAUSE) => {}
        }
    }
}

/// What a refresh depends on: selectors and the subnets in use.
fn fingerprint(questions: &Questions) -> Vec<String> {
    let classes = questions
        .classes
        .iter()
        .map(|class| format!("{} {:?} {:?}", class.name_any(), class.uid(), class.metadata.generation));
    classes.chain(questions.in_use.iter().map(SubnetId::to_string)).collect()
}

async fn ask<E: Ec2>(ec2: &E, questions: &Questions, last: &Network, metrics: &Metrics) -> Network {
    let mut network = Network::default();
    for class in &questions.classes {
        let name = class.name_any();
        let before = last.classes.get(&name).cloned().unwrap_or_default();
        let found = ask_for_class(ec2, class, questions.vpc.as_ref(), metrics).await;
        let (found, subnets) = match found {
            Ok(found) => found,
            Err(problem) => {
                tracing::warn!(class = %name, error = %problem.1, "class cannot be looked up in EC2");
                let subnets = before.subnets.iter().flatten().filter_map(|id| last.subnets.get(id)).cloned().collect();
                (ClassNetwork { problem: Some(problem), ..before }, subnets)
            }
        };
        network.subnets.extend(subnets.into_iter().map(|subnet| (subnet.id.clone(), subnet)));
        network.classes.insert(name, found);
    }
    let rest: Vec<SubnetId> =
        questions.in_use.iter().filter(|id| !network.subnets.contains_key(*id)).cloned().collect();
    if !rest.is_empty() {
        match describe_subnets(
            ec2,
            Selector { ids: rest.clone(), vpc: None, zone: None, tags: BTreeMap::new() },
            metrics,
        )
        .await
        {
            Ok(subnets) => network.subnets.extend(subnets.into_iter().map(|subnet| (subnet.id.clone(), subnet))),
            Err(error) => {
                tracing::warn!(%error, "subnets of the nodes cannot be looked up; planning with the last figures");
                let known = rest.iter().filter_map(|id| last.subnets.get(id));
                network.subnets.extend(known.map(|subnet| (subnet.id.clone(), subnet.clone())));
            }
        }
    }
    set_headroom(&mut network, &questions.classes);
    network
}

/// A subnet that several classes use keeps the largest headroom that one of them asks for. Subnets of nodes' primary
/// ENIs, which no class selects, get that of the classes without a selector.
fn set_headroom(network: &mut Network, classes: &[Arc<ENIPoolClass>]) {
    for class in classes {
        let Ok(headroom) = class.spec.parsed_headroom() else { continue };
        let chosen = network.classes.get(&class.name_any()).and_then(|class| class.subnets.clone());
        let ids = chosen.unwrap_or_else(|| network.subnets.keys().cloned().collect());
        for id in ids {
            let Some(subnet) = network.subnets.get(&id) else { continue };
            let size = u32::try_from(subnet.cidr.0.hosts().count()).unwrap_or(u32::MAX);
            let kept = network.headroom.entry(id).or_default();
            *kept = headroom.of(size).max(*kept);
        }
    }
}

type Problem = (Reason, String);

async fn ask_for_class<E: Ec2>(
    ec2: &E,
    class: &ENIPoolClass,
    vpc: Option<&VpcId>,
    metrics: &Metrics,
) -> Result<(ClassNetwork, Vec<Subnet>), Problem> {
    let mut found = ClassNetwork::default();
    let mut subnets = Vec::new();
    if let Some(selector) = &class.spec.subnet_selector {
        subnets = describe_subnets(ec2, selection(selector, vpc)?, metrics).await.map_err(|error| problem(&error))?;
        if subnets.is_empty() {
            found.problem = Some((Reason::NoSubnet, "the subnetSelector finds no subnet".into()));
        }
        found.subnets = Some(subnets.iter().map(|subnet| subnet.id.clone()).collect());
    }
    if let Some(selector) = &class.spec.security_group_selector {
        let groups = ec2.describe_security_groups(&selection(selector, vpc)?).await;
        metrics.called(Action::DescribeSecurityGroups, &groups);
        let groups: Vec<SecurityGroup> = groups.map_err(|error| problem(&error))?;
        if groups.is_empty() {
            found.problem = Some((Reason::NoSubnet, "the securityGroupSelector finds no security group".into()));
        }
        found.security_groups = groups.into_iter().map(|group| group.id).collect();
    }
    Ok((found, subnets))
}

async fn describe_subnets<E: Ec2>(
    ec2: &E,
    selector: Selector<SubnetId>,
    metrics: &Metrics,
) -> Result<Vec<Subnet>, Ec2Error> {
    let answer = ec2.describe_subnets(&selector).await;
    metrics.called(Action::DescribeSubnets, &answer);
    answer
}

/// Ids are exact; tags are looked up in the cluster's VPC, as soon as an agent has said which that is.
fn selection<Id: std::str::FromStr<Err = IdError>>(
    selector: &ResourceSelector,
    vpc: Option<&VpcId>,
) -> Result<Selector<Id>, Problem> {
    let ids: Result<Vec<Id>, IdError> = selector.ids.iter().map(|id| id.parse()).collect();
    let ids = ids.map_err(|error| (Reason::NoSubnet, error.to_string()))?;
    let vpc = if ids.is_empty() { vpc.cloned() } else { None };
    let tags = selector.tags.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect();
    Ok(Selector { ids, vpc, zone: None, tags })
}

fn problem(error: &Ec2Error) -> Problem {
    let reason = match error.kind {
        Ec2ErrorKind::AccessDenied | Ec2ErrorKind::Credentials => Reason::AccessDenied,
        Ec2ErrorKind::Throttled => Reason::Throttled,
        _ => Reason::Ec2Unavailable,
    };
    (reason, error.to_string())
}

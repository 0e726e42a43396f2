//! The engine's start: who am I, what does EC2 say I have, what does the journal say, what does the kernel show.
//!
//! On the way to the first ADD: IMDS (local), one DescribeNetworkInterfaces, the journal, one look at the kernel (and
//! DescribeInstanceTypes, for a type that is newer than the bundled table). What fails is tried again for as long as it
//! takes, and said.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use enipool_pool::capacity::Capacity;
use enipool_pool::ec2::{Action, Ec2, EniFilter};
use enipool_pool::imds::{Imds, ImdsEni, InstanceIdentity};
use enipool_pool::ledger::record::{Moment, Recovered};
use tokio_util::sync::CancellationToken;

use super::adopted;
use super::clock::Clock;
use super::config::EffectiveConfig;
use super::instance_type::{self, Source, Table, TypeFile};
use super::journal::Journal;
use super::machine::{Described, Machine, Me, Start};
use super::pool::Pool;
use super::port::Kernel;
use super::run::{Hands, all_of_imds, drive};

/// First and longest pause between two tries of a step of the start.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// How long EC2 may keep a node with a journal from serving its pods.
const EC2_PATIENCE: Duration = Duration::from_secs(15);

/// What the engine is started with.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    pub node: String,
    /// Name of the cluster, for the tags of interfaces; may be empty.
    pub cluster: String,
    /// File of the journal, on tmpfs. Its directory must exist.
    pub journal: PathBuf,
    /// What to aim for until somebody says otherwise.
    pub config: EffectiveConfig,
    /// What is known of instance types without asking EC2: [`capacity::bundled`](enipool_pool::capacity::bundled) in
    /// production.
    pub table: Table,
    /// Spreads pauses and makes tokens unique. Random in production.
    pub seed: u64,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("stopped while {0}")]
    Stopped(&'static str),
    #[error("cannot write the ledger's journal {path}")]
    Journal { path: PathBuf, source: std::io::Error },
}

/// A started engine.
#[derive(Debug)]
pub struct Engine {
    pub pool: Pool,
    /// Who the node is; the host's set-up needs it.
    pub me: Me,
    /// Ends after `shutdown`, when mutations under way have ended.
    pub task: tokio::task::JoinHandle<()>,
}

/// Starts the engine. Returns when what the node holds is known; leases are given once the host is set up.
pub async fn start<E: Ec2, I: Imds, K: Kernel>(
    engine: EngineConfig,
    hands: Hands<E, I, K>,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<Engine, StartError> {
    let config = engine.config.clone();
    start_with(engine, hands, clock, shutdown, |_| config).await
}

/// The same, aiming for what `aims` says once it is known which instance this is. [`EngineConfig::config`] does not count.
pub async fn start_with<E: Ec2, I: Imds, K: Kernel>(
    engine: EngineConfig,
    hands: Hands<E, I, K>,
    clock: Clock,
    shutdown: CancellationToken,
    aims: impl FnOnce(&Me) -> EffectiveConfig,
) -> Result<Engine, StartError> {
    let type_file = TypeFile::beside(&engine.journal);
    let (me, asked_type) = learn(&engine, &type_file, &hands, &shutdown).await?;
    tracing::info!(instance = %me.instance, instance_type = %me.instance_type, zone = %me.zone, "this is me");
    let asked_at = clock.now();
    let filter = EniFilter { instance: Some(me.instance.clone()), ..EniFilter::default() };
    let mut recovered = recover(&engine.journal);
    if let Some(uptime) = clock.uptime() {
        let ahead = recovered.follow_clock(Moment { at: clock.now(), uptime });
        if ahead != 0 {
            tracing::warn!(ahead_ms = ahead, "the clock was set since the journal was begun; its times follow");
        }
    }
    let known = recovered.instance.as_ref() == Some(&me.instance) && !recovered.holdings.is_empty();
    let described = async {
        let asking = persist("describing the instance's interfaces", &shutdown, || {
            hands.ec2.describe_network_interfaces(&filter)
        });
        if !known {
            // Nothing is known but what EC2 says.
            return asking.await.map(Described::By);
        }
        match tokio::time::timeout(EC2_PATIENCE, asking).await {
            Ok(described) => described.map(Described::By),
            Err(_) => {
                persist("reading IMDS", &shutdown, || all_of_imds(hands.imds.as_ref())).await.map(Described::NotYet)
            }
        }
    };
    let observed = persist("looking at the kernel", &shutdown, || hands.kernel.observe());
    let (described, host) = tokio::join!(described, observed);
    let (described, host) = (described?, host?);
    let config = aims(&me);
    let start = Start { me: me.clone(), config, recovered, described, asked_at, host, seed: engine.seed };
    let now = clock.now();
    let mut machine = Machine::begin(start, now);
    let journal = Journal::create(&engine.journal, &machine.journal(now, clock.uptime()))
        .map_err(|source| StartError::Journal { path: engine.journal.clone(), source })?;
    machine.count_call(Action::DescribeNetworkInterfaces);
    if asked_type == Asked::Now {
        machine.count_call(Action::DescribeInstanceTypes);
    }
    let (pool, shared) = Pool::new(machine, journal, clock);
    let instance_type = me.instance_type.clone();
    let task = tokio::spawn(async move {
        let confirmed = async {
            if asked_type == Asked::Never {
                let (shared, hands, shutdown) = (Arc::clone(&shared), hands.clone(), shutdown.clone());
                instance_type::confirm(instance_type, type_file, engine.seed, shared, hands, shutdown).await;
            }
        };
        let adopted = adopted::watch(Arc::clone(&shared), Arc::clone(&hands.kernel), shutdown.clone());
        tokio::join!(drive(Arc::clone(&shared), hands.clone(), shutdown.clone()), confirmed, adopted);
    });
    Ok(Engine { pool, me, task })
}

/// Reads the journal. One that cannot be read is as none: kernel and EC2 then say what there is.
fn recover(path: &Path) -> Recovered {
    match Journal::read(path) {
        Ok(reading) => {
            if let Some(version) = reading.other_version {
                tracing::error!(version, "the journal is of another version; going by kernel and EC2");
            }
            if reading.damaged > 0 {
                tracing::error!(damaged = reading.damaged, "lines of the journal cannot be read");
            }
            tracing::info!(records = reading.records.len(), torn = reading.torn, "journal read");
            Recovered::from_records(reading.records)
        }
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "cannot read the journal; going by kernel and EC2");
            Recovered::default()
        }
    }
}

/// Whether EC2 has been asked what the instance's type holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Never,
    Earlier,
    Now,
}

async fn learn<E: Ec2, I: Imds, K: Kernel>(
    engine: &EngineConfig,
    type_file: &TypeFile,
    hands: &Hands<E, I, K>,
    shutdown: &CancellationToken,
) -> Result<(Me, Asked), StartError> {
    let InstanceIdentity { instance, instance_type, zone, region, primary_mac, primary_ip } =
        persist("reading the instance's identity from IMDS", shutdown, || hands.imds.identity()).await?;
    let ImdsEni { subnet, subnet_cidr, vpc_cidrs, security_groups, .. } =
        persist("reading the primary interface from IMDS", shutdown, || hands.imds.eni(primary_mac)).await?;
    let (limits, asked) = match instance_type::known(type_file, engine.table, &instance_type) {
        Some((limits, Source::Ec2)) => (limits, Asked::Earlier),
        Some((limits, Source::Table)) => (limits, Asked::Never),
        None => {
            let describe = || hands.ec2.describe_instance_type(&instance_type);
            let limits = persist("describing the instance type", shutdown, describe).await?;
            type_file.write(&limits);
            (limits, Asked::Now)
        }
    };
    let me = Me {
        node: engine.node.clone(),
        cluster: engine.cluster.clone(),
        instance,
        instance_type,
        zone,
        region,
        primary_ip,
        primary_mac,
        vpc_cidrs,
        subnet,
        subnet_cidr,
        security_groups,
        capacity: Capacity::new(&limits),
    };
    Ok((me, asked))
}

/// Tries until it works or `shutdown`.
async fn persist<T, F, X>(
    what: &'static str,
    shutdown: &CancellationToken,
    mut call: impl FnMut() -> F,
) -> Result<T, StartError>
where
    F: Future<Output = Result<T, X>>,
    X: std::fmt::Display,
{
    let mut pause = RETRY.0;
    loop {
        let tried = tokio::select! {
            tried = call() => tried,
            () = shutdown.cancelled() => return Err(StartError::Stopped(what)),
        };
        match tried {
            Ok(value) => return Ok(value),
            Err(error) => tracing::warn!(%error, "still {what}"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return Err(StartError::Stopped(what)),
        }
        pause = pause.saturating_mul(2).min(RETRY.1);
    }
}

/// The engine's hands, made of what implements the ports.
pub fn hands<E: Ec2, I: Imds, K: Kernel>(ec2: E, imds: I, kernel: K) -> Hands<E, I, K> {
    Hands { ec2: Arc::new(ec2), imds: Arc::new(imds), kernel: Arc::new(kernel), observer: None }
}

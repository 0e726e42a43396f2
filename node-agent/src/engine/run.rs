//! The task that drives the machine: starts its operations against EC2, IMDS and the kernel, and feeds back what they
//! brought.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use enipool_pool::ec2::{Ec2, Ec2Error, Ec2ErrorKind};
use enipool_pool::imds::{Imds, ImdsEni, ImdsError};
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::machine::{Done, Op, OpId, by_id};
use super::pool::Shared;
use super::port::{Kernel, KernelError};

/// Changes that need no haste are settled together after so long.
const SETTLE: Duration = Duration::from_millis(50);
/// Longest sleep without a reason to wake.
const IDLE: Duration = Duration::from_secs(600);
/// Bound for everything that the kernel is asked to do, the wait for a link excepted.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(20);
/// Bound for one round through IMDS.
const IMDS_TIMEOUT: Duration = Duration::from_secs(10);

/// Told about every EC2 call that ended.
pub type Ec2Observer = Arc<dyn Fn(enipool_pool::ec2::Action, Option<&Ec2ErrorKind>, Duration) + Send + Sync>;

/// What the machine's operations are carried out with.
pub struct Hands<E, I, K> {
    pub ec2: Arc<E>,
    pub imds: Arc<I>,
    pub kernel: Arc<K>,
    pub observer: Option<Ec2Observer>,
}

impl<E, I, K> Clone for Hands<E, I, K> {
    fn clone(&self) -> Self {
        Self {
            ec2: Arc::clone(&self.ec2),
            imds: Arc::clone(&self.imds),
            kernel: Arc::clone(&self.kernel),
            observer: self.observer.clone(),
        }
    }
}

impl<E, I, K> std::fmt::Debug for Hands<E, I, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hands").finish_non_exhaustive()
    }
}

/// Drives the pool until `shutdown`. Operations under way are then waited for, as long as the caller lets this run.
pub(super) async fn drive<E: Ec2, I: Imds, K: Kernel>(
    shared: Arc<Shared>,
    hands: Hands<E, I, K>,
    shutdown: CancellationToken,
) {
    let mut running: JoinSet<(OpId, Done)> = JoinSet::new();
    loop {
        let wake = settle(&shared, &hands, &mut running);
        shared.publish();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = shared.urgent.notified() => {}
            Some(ended) = running.join_next() => ended_op(&shared, ended),
            () = tokio::time::sleep_until(wake) => {}
            () = shared.casual.notified() => {
                // Let a burst of pods come together; whoever must not wait comes over `urgent`.
                tokio::select! {
                    () = tokio::time::sleep(SETTLE) => {}
                    () = shared.urgent.notified() => {}
                }
            }
        }
        while let Some(ended) = running.try_join_next() {
            ended_op(&shared, ended);
        }
    }
    shared.lock().stop();
    shared.publish();
    // Waits and looks can be dropped; mutations are seen through, so that the next start finds less to clear up.
    while let Some(ended) = running.join_next().await {
        ended_op(&shared, ended);
        let mut state = shared.lock();
        if let Err(error) = state.write_pending(shared.clock.now()) {
            tracing::error!(%error, "cannot write the ledger's journal");
        }
        if !state.machine.is_mutating() {
            break;
        }
    }
}

fn settle<E: Ec2, I: Imds, K: Kernel>(
    shared: &Arc<Shared>,
    hands: &Hands<E, I, K>,
    running: &mut JoinSet<(OpId, Done)>,
) -> Instant {
    let now = shared.clock.now();
    let effects = match shared.lock().step(now) {
        Ok(effects) => effects,
        Err(error) => {
            tracing::error!(%error, "cannot write the ledger's journal: nothing is started");
            return Instant::now() + Duration::from_secs(1);
        }
    };
    for (id, op) in effects.starts {
        tracing::debug!(op = op.text(), "start");
        let hands = hands.clone();
        running.spawn(async move {
            let carried_out = AssertUnwindSafe(carry_out(op.clone(), &hands)).catch_unwind().await;
            let done = carried_out.unwrap_or_else(|_| {
                tracing::error!(op = op.text(), "the operation's task panicked");
                // Wherever it broke off: the call may have been made.
                op.unheard(Ec2ErrorKind::NoAnswer, "its task panicked")
            });
            (id, done)
        });
    }
    effects.wake_at.map_or_else(|| Instant::now() + IDLE, |at| shared.clock.instant(at))
}

fn ended_op(shared: &Arc<Shared>, ended: Result<(OpId, Done), tokio::task::JoinError>) {
    match ended {
        Ok((id, done)) => {
            let now = shared.clock.now();
            shared.lock().machine.done(id, done, now);
        }
        // A panic is caught inside; only the runtime's own end cancels a task.
        Err(error) => tracing::error!(%error, "an operation's task failed"),
    }
}

async fn carry_out<E: Ec2, I: Imds, K: Kernel>(op: Op, hands: &Hands<E, I, K>) -> Done {
    let (ec2, kernel) = (&hands.ec2, &hands.kernel);
    let (action, text) = (op.action(), op.text());
    let begun = Instant::now();
    let done = match op {
        Op::Look(look) => Done::Enis(ec2.describe_network_interfaces(&look.filter()).await),
        Op::DescribeSubnets(ids) => Done::Subnets(ec2.describe_subnets(&by_id(&ids)).await),
        Op::Create(request) => Done::Created(ec2.create_network_interface(&request).await),
        Op::Attach { eni, instance, device_index } => {
            Done::Attached(ec2.attach_network_interface(&eni, &instance, device_index).await)
        }
        Op::SetDeleteOnTermination { eni, attachment } => {
            Done::Changed(ec2.set_delete_on_termination(&eni, &attachment, true).await)
        }
        Op::SetSecurityGroups { eni, groups } => Done::Changed(ec2.set_security_groups(&eni, &groups).await),
        Op::Assign { eni, supply } => Done::Assigned(ec2.assign(&eni, supply).await),
        Op::Unassign { eni, addresses, prefixes } => {
            tracing::debug!(%eni, ?addresses, ?prefixes, "taking back");
            Done::Changed(ec2.unassign(&eni, &addresses, &prefixes).await)
        }
        Op::Detach { attachment, force, .. } => Done::Changed(ec2.detach_network_interface(&attachment, force).await),
        Op::Delete { eni } => Done::Changed(ec2.delete_network_interface(&eni).await),
        Op::Apply(picture) => Done::Applied(bounded(kernel.apply(&picture)).await),
        Op::AwaitLink { mac, timeout, .. } => Done::Link(kernel.wait_link(mac, timeout).await),
        Op::Hint | Op::Surroundings => Done::Hint(all_of_imds(hands.imds.as_ref()).await),
    };
    if let Some(action) = action {
        // What an engineer looks for first: each call to EC2, once, with how it ended.
        let outcome = done.ec2_error().map_or("ok", |error| error.kind.label());
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(action = action.name(), outcome, ms, "{text}");
    }
    if let (Some(action), Some(observer)) = (action, &hands.observer) {
        observer(action, done.ec2_error().map(|error: &Ec2Error| &error.kind), begun.elapsed());
    }
    done
}

async fn bounded<T>(call: impl Future<Output = Result<T, KernelError>>) -> Result<T, KernelError> {
    tokio::time::timeout(KERNEL_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(KernelError(format!("no answer within {KERNEL_TIMEOUT:?}"))))
}

/// Everything that IMDS says about the instance's interfaces.
pub(super) async fn all_of_imds<I: Imds>(imds: &I) -> Result<Vec<ImdsEni>, ImdsError> {
    let read = async {
        let mut enis = Vec::new();
        for mac in imds.macs().await? {
            enis.push(imds.eni(mac).await?);
        }
        Ok(enis)
    };
    tokio::time::timeout(IMDS_TIMEOUT, read)
        .await
        .unwrap_or_else(|_| Err(ImdsError::Unavailable(format!("no answer within {IMDS_TIMEOUT:?}"))))
}

//! The end of leases that were adopted from the kernel. No plugin knows their keys: their DEL may have come before we did,
//! or come in a form that names no address. So the kernel is asked whether the pod is still there.
//!
//! Only these leases are ever ended so. Every other one ends with its DEL.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::pool::Shared;
use super::port::Kernel;

/// Between two looks. The first sees a pod gone, the second ends its lease: one alone may fall into the moment in which
/// somebody puts a route back.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Bound for a look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

/// Looks until no adopted lease is left (none comes after the start), or until `shutdown`.
pub(super) async fn watch<K: Kernel>(shared: Arc<Shared>, kernel: Arc<K>, shutdown: CancellationToken) {
    loop {
        let adopted = shared.lock().machine.adopted();
        if adopted.is_empty() {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        match timeout(LOOK_TIMEOUT, kernel.gone(&adopted)).await {
            Ok(Ok(gone)) => {
                let now = shared.clock.now();
                let mut state = shared.lock();
                if state.machine.kernel_lacks(&gone, now) == 0 {
                    continue;
                }
                if let Err(error) = state.write_pending(now) {
                    tracing::error!(%error, "cannot write the ledger's journal");
                }
                drop(state);
                shared.casual.notify_one();
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot see whether adopted pods are still there"),
            Err(_) => tracing::warn!("the kernel does not say in time whether adopted pods are still there"),
        }
    }
}

//! One run's namespaces from claim to cleanup: what stands before EC2 does, and what is taken away however the run ends.

use enipool_pool::SubnetCidr;
use ipnet::Ipv4Net;
use tracing::{info, warn};

use super::error::FabricError;
use super::internet::Internet;
use super::names::{RunId, Slot};
use super::registry;
use super::topology::{self, Base};

/// The namespaces of a run and the services in them. Dropped without [`Underlay::remove`], it cleans up on the spot.
#[derive(Debug)]
pub(super) struct Underlay {
    pub(super) run: RunId,
    pub(super) slot: Slot,
    pub(super) base: Base,
    internet: Option<Internet>,
    guard: Guard,
}

/// Takes the run away when dropped: also when a later step of the start fails.
#[derive(Debug)]
struct Guard(Option<RunId>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(run) = self.0.take()
            && let Err(error) = registry::cleanup_blocking(&run)
        {
            warn!(%run, %error, "cannot clean up: `vpc-fabric cleanup --run {run}` does it later");
        }
    }
}

impl Underlay {
    pub(super) async fn start(run: RunId, vpc: &[Ipv4Net], subnets: &[SubnetCidr]) -> Result<Self, FabricError> {
        preconditions()?;
        for stale in registry::sweep_stale().await? {
            info!(run = %stale, "removed what a run left whose process is gone");
        }
        let slot = registry::blocking({
            let run = run.clone();
            move || registry::claim(&run)
        })
        .await?;
        let guard = Guard(Some(run.clone()));
        let base = topology::build(&run, slot, vpc, subnets).await?;
        let internet = Some(Internet::start(&base.internet).await?);
        Ok(Self { run, slot, base, internet, guard })
    }

    /// Takes everything away. A second call does nothing.
    pub(super) async fn remove(&mut self) -> Result<(), FabricError> {
        self.internet = None;
        let Some(run) = self.guard.0.take() else { return Ok(()) };
        let result = registry::cleanup(&run).await;
        if result.is_err() {
            self.guard.0 = Some(run);
        }
        result
    }
}

/// Says what is missing before anything is half made.
fn preconditions() -> Result<(), FabricError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(FabricError::NotRoot);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    ["ip", "nft", "nsenter"]
        .into_iter()
        .find(|tool| !found(tool))
        .map_or(Ok(()), |tool| Err(FabricError::MissingTool(tool)))
}

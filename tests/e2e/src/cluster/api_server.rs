//! A real API server by itself, with its etcd: for tests of what speaks to one and needs no node. It runs on the machine's
//! loopback and needs no root.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{
    control_plane::{ControlPlane, ControlSite},
    pki::Pki,
    process::death,
    programs::Programs,
    run::{self, Run},
};

/// A running API server. Call [`ApiServer::stop`]; what is merely dropped is killed, and swept by the next run.
#[derive(Debug)]
pub struct ApiServer {
    run: Run,
    control: ControlPlane,
}

impl ApiServer {
    /// Starts etcd and the API server, and returns when it is ready.
    pub async fn start(purpose: &str) -> Result<Self> {
        let programs = Programs::find_api_server()?;
        let run = Run::begin(purpose).await?;
        match Self::start_in(&run, &programs).await {
            Ok(control) => Ok(Self { run, control }),
            Err(error) => {
                run::clear(run.id(), run.dir()).await;
                Err(error.context(format!("the API server did not come up; all logs: {}", run.logs().display())))
            }
        }
    }

    async fn start_in(run: &Run, programs: &Programs) -> Result<ControlPlane> {
        let pki = Pki::create(&run.dir().join("pki"))?;
        let site = ControlSite::on_loopback(run)?;
        let (control, kubectl) = ControlPlane::start_api_server(run, programs, &pki, &site).await?;
        std::fs::copy(kubectl.kubeconfig(), run.kubeconfig()).context("writing the kubeconfig")?;
        Ok(control)
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.run.kubeconfig()
    }

    /// Returns when etcd or the API server has died, with the end of its log.
    pub async fn death(&mut self) -> anyhow::Error {
        death(|| self.control.ensure_running()).await
    }

    /// Ends both and removes them; the logs stay.
    pub async fn stop(self) {
        let Self { run, control } = self;
        control.stop().await;
        run::clear(run.id(), run.dir()).await;
    }
}

//! A real API server by itself, with its etcd: for tests of what speaks to one and needs no node. It runs on the machine's
//! loopback and needs no root; or where the control plane of a VPC has its place, so that nodes reach it.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{
    control_plane::{ControlPlane, ControlSite},
    kubectl::Kubectl,
    pki::Pki,
    process::death,
    programs::Programs,
    run::{self, Run},
};
use crate::fabric::Control;

/// A running API server. Call [`ApiServer::stop`]; what is merely dropped is killed, and swept by the next run.
#[derive(Debug)]
pub struct ApiServer {
    run: Run,
    control: ControlPlane,
    kubectl: Kubectl,
}

impl ApiServer {
    /// Starts etcd and the API server, and returns when it is ready.
    pub async fn start(purpose: &str) -> Result<Self> {
        Self::start_at(purpose, ControlSite::on_loopback).await
    }

    /// The same where nodes reach it.
    pub async fn start_on(purpose: &str, place: &Control) -> Result<Self> {
        let site = ControlSite::in_namespace(place.netns.path().to_owned(), place.address);
        Self::start_at(purpose, |_| Ok(site)).await
    }

    async fn start_at(purpose: &str, site: impl FnOnce(&Run) -> Result<ControlSite>) -> Result<Self> {
        let programs = Programs::find_api_server()?;
        let run = Run::begin(purpose).await?;
        let started = async { Self::start_in(&run, &programs, &site(&run)?).await };
        match started.await {
            Ok((control, kubectl)) => Ok(Self { run, control, kubectl }),
            Err(error) => {
                run::clear(run.id(), run.dir()).await;
                Err(error.context(format!("the API server did not come up; all logs: {}", run.logs().display())))
            }
        }
    }

    async fn start_in(run: &Run, programs: &Programs, site: &ControlSite) -> Result<(ControlPlane, Kubectl)> {
        let pki = Pki::create(&run.dir().join("pki"))?;
        let (control, kubectl) = ControlPlane::start_api_server(run, programs, &pki, site).await?;
        std::fs::copy(kubectl.kubeconfig(), run.kubeconfig()).context("writing the kubeconfig")?;
        Ok((control, kubectl))
    }

    /// As its admin.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
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
        let Self { run, control, kubectl: _ } = self;
        control.stop().await;
        run::clear(run.id(), run.dir()).await;
    }
}

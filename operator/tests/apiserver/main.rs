//! What only a real API server does: server-side apply, CEL, finalizers, watches and the Lease (`life`), and what it says to
//! objects that break a rule (`rules`).
//!
//! Needs an API server whose objects may be changed, which `make test-api-server` starts for it; for one of your own:
//! `ENIPOOL_TEST_KUBECONFIG=… cargo test -- --ignored`. No other operator may run there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod accepted;
mod demands;
mod life;
mod refused;
mod rules;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};

async fn client() -> Client {
    let file = std::env::var("ENIPOOL_TEST_KUBECONFIG").unwrap();
    let kubeconfig = Kubeconfig::read_from(file).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Returns when the API server serves them.
async fn install_crds(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (_, text) in enipool_crds::manifest::all().unwrap() {
        let crd: CustomResourceDefinition = serde_saphyr::from_str(&text).unwrap();
        let params = PatchParams::apply("operator-test").force();
        crds.patch(&crd.name_any(), &params, &Patch::Apply(&crd)).await.unwrap();
        await_condition(crds.clone(), &crd.name_any(), conditions::is_crd_established()).await.unwrap();
    }
}

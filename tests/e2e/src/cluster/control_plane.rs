//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler, in the network namespace given to them. Ports are
//! fixed: the namespace is the run's own.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use futures::future::join_all;

use super::{
    kubectl::Kubectl,
    pki::Pki,
    process::{Process, tail, until},
    programs::Programs,
    run::Run,
};

/// Where Services get their addresses.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The API server's own Service.
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The API server's port.
pub const API_PORT: u16 = 6443;

/// Where the control plane runs.
#[derive(Debug, Clone)]
pub(super) struct ControlSite {
    /// Its network namespace.
    pub(super) netns: PathBuf,
    /// The address that nodes, pods and the machine's own kubectl reach it on.
    pub(super) address: Ipv4Addr,
}

/// The running control plane.
#[derive(Debug)]
pub(super) struct ControlPlane {
    processes: Vec<Process>,
    server: String,
}

impl ControlPlane {
    /// Starts all four and returns when the API server says that it is ready.
    pub(super) async fn start(
        run: &Run,
        programs: &Programs,
        pki: &Pki,
        site: &ControlSite,
    ) -> Result<(Self, Kubectl)> {
        let server = format!("https://{}:{API_PORT}", site.address);
        let admin = pki.client("admin", "admin", Some("system:masters"))?;
        let kubectl = Kubectl::new(programs.path("kubectl"), pki.kubeconfig("admin", &server, &admin)?);
        let mut plane = Self { processes: Vec::new(), server };
        plane.launch(run, programs, site, "etcd", &etcd_flags(run))?;
        plane.launch(run, programs, site, "kube-apiserver", &apiserver_flags(pki, site)?)?;
        let ready = until("the API server getting ready", Duration::from_secs(180), async || {
            plane.ensure_running()?;
            Ok(kubectl.ready().await.then_some(()))
        });
        if let Err(error) = ready.await {
            let ends = ["kube-apiserver", "etcd"].map(|name| tail(&run.logs().join(format!("{name}.log"))));
            return Err(error.context(format!("the API server's log ends:\n{}and etcd's:\n{}", ends[0], ends[1])));
        }
        let manager = plane.kubeconfig(pki, "kube-controller-manager")?;
        plane.launch(run, programs, site, "kube-controller-manager", &manager_flags(pki, &manager))?;
        let scheduler = plane.kubeconfig(pki, "kube-scheduler")?;
        plane.launch(run, programs, site, "kube-scheduler", &scheduler_flags(&scheduler))?;
        Ok((plane, kubectl))
    }

    /// The API server's URL.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Fails, with the end of its log, when one of the four has died.
    pub(super) fn ensure_running(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::ensure_running)
    }

    /// Ends all four at once: nothing of theirs is kept.
    pub(super) async fn stop(self) {
        join_all(self.processes.into_iter().map(|process| process.stop(Duration::ZERO))).await;
    }

    fn kubeconfig(&self, pki: &Pki, name: &str) -> Result<PathBuf> {
        let client = pki.client(name, &format!("system:{name}"), None)?;
        pki.kubeconfig(name, &self.server, &client)
    }

    fn launch(
        &mut self,
        run: &Run,
        programs: &Programs,
        site: &ControlSite,
        name: &str,
        flags: &[String],
    ) -> Result<()> {
        let process = Process::start_in(&site.netns, name, &run.logs(), &programs.path(name), flags)
            .with_context(|| format!("starting {name}"))?;
        self.processes.push(process);
        Ok(())
    }
}

fn etcd_flags(run: &Run) -> Vec<String> {
    flags(&[
        ("data-dir", run.dir().join("etcd").display().to_string()),
        ("listen-client-urls", "http://127.0.0.1:2379".to_owned()),
        ("advertise-client-urls", "http://127.0.0.1:2379".to_owned()),
        ("listen-peer-urls", "http://127.0.0.1:2380".to_owned()),
        // A test cluster that loses its disk is started anew.
        ("unsafe-no-fsync", "true".to_owned()),
        ("log-level", "warn".to_owned()),
    ])
}

fn apiserver_flags(pki: &Pki, site: &ControlSite) -> Result<Vec<String>> {
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
    let serving = pki.server("kube-apiserver", &names, &[site.address, API_SERVICE, Ipv4Addr::LOCALHOST])?;
    let kubelets = pki.client("kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"))?;
    let path = |path: PathBuf| path.display().to_string();
    Ok(flags(&[
        ("etcd-servers", "http://127.0.0.1:2379".to_owned()),
        ("secure-port", API_PORT.to_string()),
        ("advertise-address", site.address.to_string()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("anonymous-auth", "false".to_owned()),
        ("client-ca-file", path(pki.authority())),
        ("tls-cert-file", path(serving.certificate)),
        ("tls-private-key-file", path(serving.key)),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-account-key-file", path(pki.accounts_public_key())),
        ("service-account-signing-key-file", path(pki.accounts_key())),
        ("service-cluster-ip-range", SERVICE_CIDR.to_owned()),
        ("kubelet-client-certificate", path(kubelets.certificate)),
        ("kubelet-client-key", path(kubelets.key)),
        ("kubelet-certificate-authority", path(pki.authority())),
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
    ]))
}

fn manager_flags(pki: &Pki, kubeconfig: &std::path::Path) -> Vec<String> {
    flags(&[
        ("kubeconfig", kubeconfig.display().to_string()),
        ("authentication-kubeconfig", kubeconfig.display().to_string()),
        ("authorization-kubeconfig", kubeconfig.display().to_string()),
        ("service-account-private-key-file", pki.accounts_key().display().to_string()),
        ("root-ca-file", pki.authority().display().to_string()),
        ("use-service-account-credentials", "true".to_owned()),
        ("leader-elect", "false".to_owned()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("node-monitor-grace-period", "20s".to_owned()),
        ("kube-api-qps", "200".to_owned()),
        ("kube-api-burst", "400".to_owned()),
    ])
}

fn scheduler_flags(kubeconfig: &std::path::Path) -> Vec<String> {
    flags(&[
        ("kubeconfig", kubeconfig.display().to_string()),
        ("authentication-kubeconfig", kubeconfig.display().to_string()),
        ("authorization-kubeconfig", kubeconfig.display().to_string()),
        ("leader-elect", "false".to_owned()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("kube-api-qps", "200".to_owned()),
        ("kube-api-burst", "400".to_owned()),
    ])
}

fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

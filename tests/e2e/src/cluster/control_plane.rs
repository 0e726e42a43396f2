//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler: in a network namespace of the run, or the first two
//! alone on the machine's loopback. Where they listen is the run's own, so that two runs do not meet. The API server can be taken away for a while.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::future::join_all;

use super::{
    kubectl::Kubectl,
    pki::Pki,
    process::{Process, dying_with_us, end_of, until},
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
    /// Its network namespace; none: the machine's own.
    netns: Option<PathBuf>,
    /// The address that the API server is reached on.
    address: Ipv4Addr,
    /// Where etcd listens for the API server.
    etcd: (Ipv4Addr, u16),
    /// Where etcd listens for other members, of which there are none.
    etcd_peers: (Ipv4Addr, u16),
    /// The API server's port.
    port: u16,
}

impl ControlSite {
    /// In a network namespace of the run; nodes, pods and the machine's own kubectl reach `address`.
    pub(super) fn in_namespace(netns: PathBuf, address: Ipv4Addr) -> Self {
        let etcd = |port| (Ipv4Addr::LOCALHOST, port);
        Self { netns: Some(netns), address, etcd: etcd(2379), etcd_peers: etcd(2380), port: API_PORT }
    }

    /// On a loopback address of the run's own, for programs of this machine alone. Needs no root.
    pub(super) fn on_loopback(run: &Run) -> Result<Self> {
        // All of 127.0.0.0/8 is this machine (RFC 1122, 3.2.1.3). Its lower half holds what others are used to.
        let [_, high, middle, low] = u32::from_str_radix(run.id(), 16).context("a run's id")?.to_be_bytes();
        let address = Ipv4Addr::new(127, high | 0x80, middle, low.clamp(1, 254));
        // A port may be taken on all addresses at once, by a cluster that a developer keeps.
        let free = || -> Result<u16> {
            let listener = TcpListener::bind((address, 0)).with_context(|| format!("binding a port of {address}"))?;
            Ok(listener.local_addr().context("asking for a port")?.port())
        };
        Ok(Self { netns: None, address, etcd: (address, free()?), etcd_peers: (address, free()?), port: free()? })
    }
}

/// The running control plane.
#[derive(Debug)]
pub(super) struct ControlPlane {
    /// All but the API server.
    processes: Vec<Process>,
    api_server: ApiServer,
    server: String,
    kubectl: Kubectl,
}

/// The API server, and what starts it again.
#[derive(Debug)]
struct ApiServer {
    process: Option<Process>,
    site: ControlSite,
    program: PathBuf,
    flags: Vec<String>,
    logs: PathBuf,
    starts: u32,
}

impl ControlPlane {
    /// Starts all four and returns when the API server says that it is ready.
    pub(super) async fn start(
        run: &Run,
        programs: &Programs,
        pki: &Pki,
        site: &ControlSite,
    ) -> Result<(Self, Kubectl)> {
        let (mut plane, kubectl) = Self::start_api_server(run, programs, pki, site).await?;
        let manager = plane.kubeconfig(pki, "kube-controller-manager")?;
        plane.launch(run, programs, site, "kube-controller-manager", &manager_flags(pki, &manager))?;
        let scheduler = plane.kubeconfig(pki, "kube-scheduler")?;
        plane.launch(run, programs, site, "kube-scheduler", &scheduler_flags(&scheduler))?;
        Ok((plane, kubectl))
    }

    /// Starts etcd and the API server alone, and returns when the latter says that it is ready.
    pub(super) async fn start_api_server(
        run: &Run,
        programs: &Programs,
        pki: &Pki,
        site: &ControlSite,
    ) -> Result<(Self, Kubectl)> {
        let server = format!("https://{}:{}", site.address, site.port);
        let admin = pki.client("admin", "admin", Some("system:masters"))?;
        let kubectl = Kubectl::new(programs.path("kubectl"), pki.kubeconfig("admin", &server, &admin)?);
        let api_server = ApiServer {
            process: None,
            site: site.clone(),
            program: programs.path("kube-apiserver"),
            flags: apiserver_flags(pki, site)?,
            logs: run.logs(),
            starts: 0,
        };
        let mut plane = Self { processes: Vec::new(), api_server, server, kubectl: kubectl.clone() };
        plane.launch(run, programs, site, "etcd", &etcd_flags(run, site))?;
        if let Err(error) = plane.bring_api_server().await {
            // A program that died is told with its log already; of two that live, either may be why.
            let error = if let Err(died) = plane.ensure_running() {
                died
            } else {
                let ends = ["kube-apiserver", "etcd"].map(|name| end_of(&run.logs().join(format!("{name}.log"))));
                anyhow::anyhow!("{error:#}; {}{}", ends[0], ends[1])
            };
            plane.stop().await;
            return Err(error);
        }
        Ok((plane, kubectl))
    }

    /// Starts the API server and returns when it says that it is ready.
    pub(super) async fn bring_api_server(&mut self) -> Result<()> {
        self.api_server.start()?;
        until("the API server getting ready", Duration::from_secs(180), async || {
            self.ensure_running()?;
            Ok(self.kubectl.ready().await.then_some(()))
        })
        .await
    }

    /// Kills the API server, as when its machine loses power; the others stay.
    pub(super) async fn take_api_server(&mut self) {
        if let Some(process) = self.api_server.process.take() {
            process.stop(Duration::ZERO).await;
        }
    }

    /// The API server's URL.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Fails, with the end of its log, when one of them has died.
    pub(super) fn ensure_running(&mut self) -> Result<()> {
        self.processes.iter_mut().chain(&mut self.api_server.process).try_for_each(Process::ensure_running)
    }

    /// Ends all at once: nothing of theirs is kept.
    pub(super) async fn stop(self) {
        let all = self.processes.into_iter().chain(self.api_server.process);
        join_all(all.map(|process| process.stop(Duration::ZERO))).await;
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
        self.processes.push(spawn(site, &run.logs(), &programs.path(name), name, flags)?);
        Ok(())
    }
}

impl ApiServer {
    fn start(&mut self) -> Result<()> {
        self.starts += 1;
        // A log of its own each time: the earlier one may say why.
        let name = if self.starts == 1 { "kube-apiserver".into() } else { format!("kube-apiserver-{}", self.starts) };
        self.process = Some(spawn(&self.site, &self.logs, &self.program, &name, &self.flags)?);
        Ok(())
    }
}

fn spawn(site: &ControlSite, logs: &Path, program: &Path, name: &str, flags: &[String]) -> Result<Process> {
    let Some(netns) = &site.netns else {
        let mut command = dying_with_us(program);
        command.args(flags);
        return Process::start(name, logs, command);
    };
    Process::start_in(netns, name, logs, program, flags)
}

fn etcd_flags(run: &Run, site: &ControlSite) -> Vec<String> {
    flags(&[
        ("data-dir", run.dir().join("etcd").display().to_string()),
        ("listen-client-urls", url(site.etcd)),
        ("advertise-client-urls", url(site.etcd)),
        ("listen-peer-urls", url(site.etcd_peers)),
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
    // A Service may not lead to a loopback address, and nobody there asks for one.
    let (bind, reconciler) =
        if site.netns.is_some() { (Ipv4Addr::UNSPECIFIED, "lease") } else { (site.address, "none") };
    Ok(flags(&[
        ("etcd-servers", url(site.etcd)),
        ("secure-port", site.port.to_string()),
        ("bind-address", bind.to_string()),
        ("advertise-address", site.address.to_string()),
        ("endpoint-reconciler-type", reconciler.to_owned()),
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

fn manager_flags(pki: &Pki, kubeconfig: &Path) -> Vec<String> {
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

fn scheduler_flags(kubeconfig: &Path) -> Vec<String> {
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

fn url((address, port): (Ipv4Addr, u16)) -> String {
    format!("http://{address}:{port}")
}

fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

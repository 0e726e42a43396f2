//! The configuration files of a node's programs, as text. Pure: nothing is written here.

use std::{net::Ipv4Addr, path::Path};

use serde_json::{Value, json};

use super::pki::CertificateFiles;

/// The name that containerd starts every pod's sandbox with.
pub(super) const PAUSE_IMAGE: &str = crate::images::PAUSE;

/// A node's folder of manifests that its kubelet runs with or without an API server.
pub(super) const STATIC_PODS: &str = "manifests";

/// containerd 2.x. Without CAP_SYS_RESOURCE runc cannot lower a score, hence `restrict_oom_score_adj`; the native
/// snapshotter works on whatever file system the machine has.
pub(super) fn containerd(root: &Path) -> String {
    format!(
        r#"version = 3
root = "{root}/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "native"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE_IMAGE}"

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"

[plugins.'io.containerd.transfer.v1.local']
  [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
    platform = "linux/amd64"
    snapshotter = "native"
"#,
        root = root.display(),
    )
    .replace("linux/amd64", platform())
}

/// The kubelet. `max_pods` is what EKS computes from the instance type.
pub(super) fn kubelet(root: &Path, cgroup: &str, authority: &Path, serving: &CertificateFiles, max_pods: u32) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": serving.certificate,
        "tlsPrivateKeyFile": serving.key,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        // Many machines that run tests still mount version 1.
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "1Mi"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": max_pods,
        "staticPodPath": root.join(STATIC_PODS),
        "resolvConf": root.join("resolv.conf"),
        // Where a name server would be; without it the kubelet warns about every pod.
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "serializeImagePulls": false,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "eventRecordQPS": 0,
        "nodeStatusUpdateFrequency": "2s",
        "oomScoreAdj": 0,
    })
}

/// kube-proxy. The kernel's connection tracking limits belong to the machine, not to a node in a namespace.
pub(super) fn kube_proxy(name: &str, address: Ipv4Addr, kubeconfig: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": name,
        "bindAddress": address.to_string(),
        "clientConnection": {"kubeconfig": kubeconfig},
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "100ms"},
    })
}

/// Plain bridging-free pod networking by the reference plugins, for a cluster without the product.
pub(super) fn ptp(subnet: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "ptp",
        "plugins": [{
            "type": "ptp",
            "ipMasq": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    })
}

fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" }
}

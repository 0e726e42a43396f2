//! Looks at EC2, at the agent and at the kernel. Each look ends in bounded time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use enipool_pool::EniId;
use enipool_pool::ec2::{Ec2, Ec2Error, EniFilter};
use enipool_pool::imds::{Imds, ImdsError};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::compare::{CloudPicture, InKernel, KernelPicture, LedgerPicture};
use crate::args::Paths;
use crate::dataplane::{Dataplane, DataplaneError};
use crate::engine::EniState;
use enipool_pool::eni::TAG_INSTANCE;

/// The agent answers from memory.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest instance's pages are below 4 MiB.
const PAGE_MAX: usize = 16 << 20;

/// Why the doctor could not look.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    #[error("the agent does not answer on {address} ({reason}): is it running on this node?")]
    Agent { address: SocketAddr, reason: String },
    #[error(transparent)]
    Ec2(#[from] Ec2Error),
    #[error(transparent)]
    Imds(#[from] ImdsError),
    #[error("cannot look at the kernel")]
    Kernel(#[from] DataplaneError),
}

#[derive(Deserialize)]
struct EnisPage {
    #[serde(rename = "ENIIPPools")]
    pools: BTreeMap<EniId, EniPage>,
}

#[derive(Deserialize)]
struct EniPage {
    #[serde(rename = "IPv4Addresses")]
    #[expect(clippy::zero_sized_map_values, reason = "a JSON object of which only the keys matter")]
    addresses: BTreeMap<Ipv4Addr, serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct PodPage {
    #[serde(rename = "IP")]
    ip: Ipv4Addr,
}

#[derive(Deserialize)]
struct PoolPage {
    enis: Vec<PoolEni>,
}

#[derive(Deserialize)]
struct PoolEni {
    id: EniId,
    state: String,
}

/// What the kernel has to have of an interface in this state (the labels of [`EniState`]). One on its way out may be
/// taken apart already.
fn in_kernel(state: &str) -> Option<InKernel> {
    let is = |known: EniState| state == known.label();
    if is(EniState::Attached) {
        return Some(InKernel::Link);
    }
    let used = [EniState::Ready, EniState::Draining, EniState::Retiring];
    used.into_iter().any(is).then_some(InKernel::Everything)
}

/// What the agent says, from its introspection pages.
pub(super) async fn ledger(address: SocketAddr) -> Result<LedgerPicture, DoctorError> {
    let enis: EnisPage = page(address, "/v1/enis").await?;
    let pods: BTreeMap<String, PodPage> = page(address, "/v1/pods").await?;
    let pool: PoolPage = page(address, "/v1/pool").await?;
    let used: BTreeMap<EniId, BTreeSet<Ipv4Addr>> =
        enis.pools.into_iter().map(|(id, eni)| (id, eni.addresses.into_keys().collect())).collect();
    Ok(LedgerPicture {
        in_kernel: pool.enis.iter().filter_map(|eni| Some((eni.id.clone(), in_kernel(&eni.state)?))).collect(),
        other_enis: pool.enis.into_iter().map(|eni| eni.id).filter(|id| !used.contains_key(id)).collect(),
        enis: used,
        pods: pods.into_iter().map(|(name, pod)| (pod.ip, name)).collect(),
    })
}

async fn page<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T, DoctorError> {
    let failed = |reason: String| DoctorError::Agent { address, reason };
    let answer = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let request = hyper::Request::get(path)
            .header(hyper::header::HOST, address.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), PAGE_MAX).collect().await.map_err(|error| error.to_string())?;
            if status.is_success() { Ok(body.to_bytes()) } else { Err(format!("{path}: {status}")) }
        };
        tokio::select! {
            body = exchange => body,
            ended = connection => Err(format!("the connection ended: {ended:?}")),
        }
    };
    let body = timeout(AGENT_TIMEOUT, answer).await.map_err(|_| failed("no answer in time".into()))?.map_err(failed)?;
    serde_json::from_slice(&body).map_err(|error| failed(format!("{path}: {error}")))
}

/// What EC2 says: two calls.
pub(super) async fn cloud<E: Ec2, I: Imds>(ec2: &E, imds: &I) -> Result<CloudPicture, DoctorError> {
    let instance = imds.identity().await?.instance;
    let attached = EniFilter { instance: Some(instance.clone()), ..EniFilter::default() };
    let tagged = EniFilter { tags: [(TAG_INSTANCE.to_owned(), instance.to_string())].into(), ..EniFilter::default() };
    Ok(CloudPicture {
        attached: ec2.describe_network_interfaces(&attached).await?,
        tagged: ec2.describe_network_interfaces(&tagged).await?,
    })
}

/// What the kernel says.
pub(super) async fn kernel(paths: &Paths, cloud: &CloudPicture) -> Result<KernelPicture, DoctorError> {
    let dataplane = Dataplane::new(paths.dataplane()).await?;
    let observed = dataplane.observe().await?;
    let attachments = cloud.attached.iter().filter_map(|eni| eni.attachment.as_ref());
    let device_indexes: Vec<u32> = attachments.map(|attachment| attachment.device_index).collect();
    Ok(KernelPicture {
        host: dataplane.inspect(&device_indexes).await?,
        pods: observed.pods.into_iter().map(|pod| (pod.address, pod.host_ifname.to_string())).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::introspection::fixture::served;
    use crate::status::fixture::{snapshot, with_adopted_pods};

    #[tokio::test]
    async fn what_the_agent_serves_is_what_the_doctor_reads() {
        let picture = ledger(served(snapshot()).await).await.unwrap();
        let address = Ipv4Addr::new(10, 0, 1, 10);
        assert_eq!(picture.pods.get(&address).map(String::as_str), Some("db-0_default_container-db-0"));
        let second: EniId = "eni-1".parse().unwrap();
        assert_eq!((picture.enis.len(), picture.enis[&second].len(), picture.pods.len()), (2, 3, 3));
        assert!(picture.other_enis.is_empty());
        assert_eq!(picture.in_kernel.get(&second), Some(&InKernel::Everything));
    }

    #[tokio::test]
    async fn every_adopted_pod_is_read_and_not_taken_for_a_difference() {
        let picture = ledger(served(with_adopted_pods(snapshot())).await).await.unwrap();
        let running = [[10, 0, 0, 10], [10, 0, 0, 11], [10, 0, 1, 10], [10, 0, 1, 11], [10, 0, 1, 12]];
        let pods = running.into_iter().map(|address| (address.into(), "eni0".to_owned())).collect();
        let kernel = KernelPicture { pods, ..KernelPicture::default() };
        let found = super::super::compare::compare(&CloudPicture::default(), &picture, &kernel).found;
        assert!(found.iter().all(|finding| finding.kind != "UnknownPod"), "{found:?}");
    }

    #[tokio::test]
    async fn an_agent_that_is_away_is_said() {
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = ledger(nobody).await.unwrap_err().to_string();
        assert!(error.contains("is it running on this node?"), "{error}");
    }
}

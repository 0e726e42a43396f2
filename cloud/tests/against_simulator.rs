//! The adapters against EC2's and IMDS's wire protocols. Endpoints, region and credentials come as in production: from
//! the SDK's environment variables and from the metadata service. A process reads its environment once, so each scenario
//! runs in a process of its own: this same test binary, started again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use ec2_sim::model::request::RunInstances;
use ec2_sim::server::{self, Handle, ImdsGuard};
use ec2_sim::{FaultKind, FaultRule, Request, Response, SimConfig};
use enipool_cloud::{Aws, Options, connect};
use enipool_pool::cloudwatch::{CloudWatch, CloudWatchErrorKind, Datum, METRICS_PER_REQUEST, Unit};
use enipool_pool::ec2::{CreateEni, Ec2, Ec2ErrorKind, EniFilter, EniStatus, Selector, Supply, Tags};
use enipool_pool::imds::{Imds, ImdsError};
use enipool_pool::{ClientToken, EniId, InstanceId, InstanceType, SubnetId, Timestamp};

const EC2_ADDRESS: &str = "ENIPOOL_TEST_EC2_ADDRESS";
const IMDS_ADDRESS: &str = "ENIPOOL_TEST_IMDS_ADDRESS";

/// Where a process yet to be started will listen, twice. It has to find that in its environment, so its own bind cannot
/// choose; but the loopback address is one that no other process uses, so nobody takes the ports away in between.
fn addresses() -> [SocketAddr; 2] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Linux numbers processes below 2^22: three addresses for each in 127.0.0.0/8, one for each scenario.
    let number = std::process::id() * 4 + NEXT.fetch_add(1, Ordering::Relaxed) % 3;
    let host = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() | (number & 0x00ff_ffff));
    // Both at once, so that they differ.
    [(); 2].map(|()| TcpListener::bind((host, 0)).unwrap()).map(|listener| listener.local_addr().unwrap())
}

/// Runs an ignored test of this file in a process that finds EC2 and IMDS by its environment.
fn in_its_own_process(test: &str) {
    let [ec2, imds] = addresses();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env_clear()
        .env("AWS_ENDPOINT_URL_EC2", format!("http://{ec2}"))
        .env("AWS_ENDPOINT_URL_CLOUDWATCH", format!("http://{ec2}"))
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{imds}"))
        .env(EC2_ADDRESS, ec2.to_string())
        .env(IMDS_ADDRESS, imds.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn an_eni_lives_from_create_to_delete() {
    in_its_own_process("scenario_life_of_an_eni");
}

#[test]
fn each_failure_is_of_the_kind_that_says_what_to_do() {
    in_its_own_process("scenario_failures");
}

#[test]
fn cloudwatch_gets_each_value_with_its_time_and_unit() {
    in_its_own_process("scenario_cloudwatch");
}

#[test]
fn a_process_without_credentials_says_so() {
    in_its_own_process("scenario_without_credentials");
}

/// A region with one running instance, whose metadata this process can read.
struct Site {
    sim: Handle,
    _imds: Option<ImdsGuard>,
    instance: InstanceId,
    subnet: SubnetId,
    aws: Aws,
}

fn address(variable: &str) -> SocketAddr {
    std::env::var(variable).unwrap().parse().unwrap()
}

async fn site(with_imds: bool) -> Site {
    let sim = server::start(SimConfig::instant(), address(EC2_ADDRESS)).await.unwrap();
    let (instance, subnet) = sim.model().with(|model| {
        let subnet = model.subnets().map(|subnet| subnet.info.id.clone()).min().unwrap();
        let run = RunInstances::one(InstanceType::new("m5.large"), subnet.clone());
        match model.call("test", &Request::RunInstances(run)).result.unwrap() {
            Response::Reservation(instances) => (instances[0].id.clone(), subnet),
            other => panic!("{other:?}"),
        }
    });
    sim.model().advance(std::time::Duration::from_secs(1));
    let imds = if with_imds {
        let listener = tokio::net::TcpListener::bind(address(IMDS_ADDRESS)).await.unwrap();
        Some(sim.serve_imds(listener, instance.clone()))
    } else {
        None
    };
    let region = (!with_imds).then(|| "eu-west-1".to_owned());
    let aws = connect(Options { region, ..Options::new("enipool-test") }).await.unwrap();
    Site { sim, _imds: imds, instance, subnet, aws }
}

fn creation(site: &Site, token: &str, supply: Supply) -> CreateEni {
    CreateEni {
        subnet: site.subnet.clone(),
        security_groups: Vec::new(),
        supply,
        description: "enipool test".into(),
        tags: Tags::from([("enipool.dev/intent".into(), token.into())]),
        client_token: ClientToken::new(token),
    }
}

#[tokio::test]
#[ignore = "started by an_eni_lives_from_create_to_delete"]
async fn scenario_life_of_an_eni() {
    let site = site(true).await;
    let Aws { ec2, imds, region, .. } = &site.aws;
    assert_eq!(region, "eu-west-1", "IMDS says it");

    let identity = imds.identity().await.unwrap();
    assert_eq!((identity.instance.clone(), identity.instance_type.as_str()), (site.instance.clone(), "m5.large"));
    assert_eq!(imds.macs().await.unwrap(), [identity.primary_mac]);
    let primary = imds.eni(identity.primary_mac).await.unwrap();
    assert_eq!((primary.device_index, primary.addresses.clone()), (0, vec![identity.primary_ip]));
    assert_eq!(primary.vpc_cidrs.len(), 1);
    assert!(matches!(imds.eni("02:00:00:00:00:01".parse().unwrap()).await, Err(ImdsError::NotFound(_))));

    let instances = ec2.describe_instances(std::slice::from_ref(&site.instance)).await.unwrap();
    assert_eq!(instances[0].device_indexes, [(0, 0)]);
    let limits = ec2.describe_instance_type(&identity.instance_type).await.unwrap();
    assert_eq!((limits.max_enis, limits.ipv4_per_eni, limits.supports_prefixes), (3, 10, true));
    let all = Selector { ids: Vec::new(), vpc: Some(primary.vpc.clone()), zone: None, tags: Tags::new() };
    let subnets = ec2.describe_subnets(&all).await.unwrap();
    let subnet = subnets.iter().find(|subnet| subnet.id == site.subnet).unwrap();
    assert_eq!(subnet.available_ips, 4096 - 5 - 1);
    let groups = Selector { ids: primary.security_groups.clone(), vpc: None, zone: None, tags: Tags::new() };
    assert_eq!(ec2.describe_security_groups(&groups).await.unwrap().len(), primary.security_groups.len());

    let request = CreateEni {
        security_groups: primary.security_groups.clone(),
        ..creation(&site, "intent-1", Supply::Addresses(3))
    };
    let eni = ec2.create_network_interface(&request).await.unwrap();
    assert_eq!(
        (eni.secondary_ips.len(), eni.status, eni.description.as_str()),
        (3, EniStatus::Available, "enipool test")
    );
    assert_eq!(ec2.create_network_interface(&request).await.unwrap().id, eni.id, "the same token, the same ENI");
    let attachment = ec2.attach_network_interface(&eni.id, &site.instance, 1).await.unwrap();
    let of_instance = EniFilter { instance: Some(site.instance.clone()), ..EniFilter::default() };
    let found = ec2.describe_network_interfaces(&of_instance).await.unwrap();
    assert_eq!(found.len(), 2);
    let tagged = EniFilter { tag_keys: vec!["enipool.dev/intent".into()], ..EniFilter::default() };
    assert_eq!(ec2.describe_network_interfaces(&tagged).await.unwrap().len(), 1);
    ec2.set_delete_on_termination(&eni.id, &attachment, true).await.unwrap();
    ec2.set_security_groups(&eni.id, &primary.security_groups).await.unwrap();
    ec2.create_tags(&eni.id, &Tags::from([("team".into(), "a".into())])).await.unwrap();

    let assigned = ec2.assign(&eni.id, Supply::Addresses(2)).await.unwrap();
    assert_eq!((assigned.addresses.len(), assigned.prefixes.len()), (2, 0));
    let prefixes = ec2.assign(&eni.id, Supply::Prefixes(1)).await.unwrap().prefixes;
    assert_eq!(prefixes.len(), 1);
    ec2.unassign(&eni.id, &assigned.addresses, &[]).await.unwrap();
    ec2.unassign(&eni.id, &[], &prefixes).await.unwrap();
    let by_id =
        EniFilter { ids: vec![eni.id.clone(), "eni-0123456789abcdef0".parse().unwrap()], ..EniFilter::default() };
    let found = ec2.describe_network_interfaces(&by_id).await.unwrap();
    assert_eq!(found.len(), 1, "an id that is gone is no error");
    assert_eq!(found[0].secondary_ips, eni.secondary_ips);
    let held = found[0].attachment.as_ref().unwrap();
    assert!(held.delete_on_termination && held.device_index == 1);
    assert_eq!(found[0].tags["team"], "a");

    ec2.detach_network_interface(&attachment, false).await.unwrap();
    ec2.delete_network_interface(&eni.id).await.unwrap();
    assert!(ec2.describe_network_interfaces(&by_id).await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "started by each_failure_is_of_the_kind_that_says_what_to_do"]
async fn scenario_failures() {
    let site = site(true).await;
    let ec2 = &site.aws.ec2;
    let none: EniId = "eni-0123456789abcdef0".parse().unwrap();
    let inject = |fault, action| site.sim.model().with(|model| model.inject(FaultRule::next(fault, action, 1)));
    for (fault, kind) in [
        (FaultKind::Throttle, Ec2ErrorKind::Throttled),
        (FaultKind::Denied, Ec2ErrorKind::AccessDenied),
        (FaultKind::InternalError, Ec2ErrorKind::Internal),
        (FaultKind::Unavailable, Ec2ErrorKind::Internal),
        (FaultKind::AppliedInternalError, Ec2ErrorKind::Internal),
        (FaultKind::AnswerLost, Ec2ErrorKind::NoAnswer),
        (FaultKind::RequestLost, Ec2ErrorKind::NoAnswer),
        (FaultKind::InsufficientAddresses, Ec2ErrorKind::SubnetExhausted),
        (FaultKind::InsufficientPrefixes, Ec2ErrorKind::NoContiguousPrefix),
    ] {
        inject(fault.clone(), "CreateNetworkInterface");
        let before = site.sim.model().with(|model| model.calls().count("CreateNetworkInterface"));
        let error = ec2.create_network_interface(&creation(&site, "a", Supply::Addresses(0))).await.unwrap_err();
        assert_eq!(error.kind, kind, "{fault:?}: {error}");
        let after = site.sim.model().with(|model| model.calls().count("CreateNetworkInterface"));
        assert!(after <= before + 1, "{fault:?}: the SDK repeated the call by itself");
    }

    let eni = ec2.create_network_interface(&creation(&site, "b", Supply::Addresses(1))).await.unwrap();
    let other = ec2.create_network_interface(&creation(&site, "c", Supply::Addresses(0))).await.unwrap();
    let mismatch = ec2.create_network_interface(&creation(&site, "b", Supply::Addresses(2))).await.unwrap_err();
    assert_eq!(mismatch.kind, Ec2ErrorKind::TokenMismatch);
    ec2.attach_network_interface(&eni.id, &site.instance, 1).await.unwrap();
    let taken = ec2.attach_network_interface(&other.id, &site.instance, 1).await.unwrap_err();
    assert_eq!(taken.kind, Ec2ErrorKind::DeviceIndexInUse, "{taken}");
    let attached = ec2.attach_network_interface(&eni.id, &site.instance, 2).await.unwrap_err();
    assert_eq!(attached.kind, Ec2ErrorKind::EniInUse, "{attached}");
    let third = ec2.create_network_interface(&creation(&site, "d", Supply::Addresses(0))).await.unwrap();
    ec2.attach_network_interface(&other.id, &site.instance, 2).await.unwrap();
    let full = ec2.attach_network_interface(&third.id, &site.instance, 3).await.unwrap_err();
    assert_eq!(full.kind, Ec2ErrorKind::AttachmentLimit, "{full}");
    let in_use = ec2.delete_network_interface(&eni.id).await.unwrap_err();
    assert_eq!(in_use.kind, Ec2ErrorKind::EniInUse, "{in_use}");
    let slots = ec2.assign(&eni.id, Supply::Addresses(9)).await.unwrap_err();
    assert_eq!(slots.kind, Ec2ErrorKind::AddressLimit, "{slots}");
    let unheld = ec2.unassign(&eni.id, &[Ipv4Addr::new(10, 0, 9, 9)], &[]).await.unwrap_err();
    assert_eq!(unheld.kind, Ec2ErrorKind::AddressNotAssigned, "{unheld}");
    let gone = ec2.delete_network_interface(&none).await.unwrap_err();
    assert_eq!(gone.kind, Ec2ErrorKind::EniNotFound, "{gone}");
    let nobody = "i-0123456789abcdef0".parse().unwrap();
    let gone = ec2.describe_instances(&[nobody]).await.unwrap_err();
    assert_eq!(gone.kind, Ec2ErrorKind::InstanceNotFound, "{gone}");
    let everything = ec2.describe_network_interfaces(&EniFilter::default()).await.unwrap_err();
    assert_eq!(everything.kind, Ec2ErrorKind::Unexpected, "an empty filter means the whole account");
}

#[tokio::test]
#[ignore = "started by a_process_without_credentials_says_so"]
async fn scenario_without_credentials() {
    let site = site(false).await;
    let error = site.aws.ec2.describe_instances(std::slice::from_ref(&site.instance)).await.unwrap_err();
    assert_eq!(error.kind, Ec2ErrorKind::Credentials, "{error}");
    assert!(matches!(site.aws.imds.identity().await, Err(ImdsError::Unavailable(_))));
}

/// As many values as one request may hold, of which the last one is `value`.
fn full_request(value: f64, at: Timestamp) -> Vec<Datum> {
    let datum = |n: usize| Datum {
        name: "subnetFreeAddresses",
        dimensions: vec![("CLUSTER_ID", "prod".into()), ("SUBNET_ID", format!("subnet-{n}"))],
        value,
        unit: Unit::Count,
        at,
    };
    (0..METRICS_PER_REQUEST).map(datum).collect()
}

#[tokio::test]
#[ignore = "started by cloudwatch_gets_each_value_with_its_time_and_unit"]
async fn scenario_cloudwatch() {
    let site = site(true).await;
    let cloudwatch = &site.aws.cloudwatch;
    let at = site.sim.model().with(|model| model.now());
    let latency = Datum {
        name: "awsAPILatency",
        dimensions: vec![("CLUSTER_ID", "prod".into())],
        value: 250.5,
        unit: Unit::Milliseconds,
        at: Timestamp(at.0 - 60_000),
    };
    cloudwatch.put_metric_data("Kubernetes", &[latency]).await.unwrap();
    // Over 10 kB, so it goes compressed.
    cloudwatch.put_metric_data("Kubernetes", &full_request(7.0, at)).await.unwrap();
    site.sim.model().with(|model| {
        let metrics = model.metrics();
        assert_eq!(metrics.iter().count(), 1 + METRICS_PER_REQUEST);
        let (id, metric) = metrics.iter().find(|(id, _)| id.name == "awsAPILatency").unwrap();
        assert_eq!(
            (id.namespace.as_str(), id.dimensions.as_slice()),
            ("Kubernetes", &[("CLUSTER_ID".into(), "prod".into())][..])
        );
        let last = metric.last();
        assert_eq!((last.value, last.unit.as_str(), last.at), (250.5, "Milliseconds", Timestamp(at.0 - 60_000)));
    });
    let inject = |fault| site.sim.model().with(|model| model.inject(FaultRule::next(fault, "PutMetricData", 1)));
    for (fault, kind) in [
        (FaultKind::Throttle, CloudWatchErrorKind::Throttled),
        (FaultKind::Denied, CloudWatchErrorKind::AccessDenied),
        (FaultKind::InternalError, CloudWatchErrorKind::Internal),
        (FaultKind::Unavailable, CloudWatchErrorKind::Internal),
        (FaultKind::AnswerLost, CloudWatchErrorKind::NoAnswer),
        (FaultKind::RequestLost, CloudWatchErrorKind::NoAnswer),
    ] {
        inject(fault.clone());
        let error = cloudwatch.put_metric_data("Kubernetes", &full_request(1.0, at)).await.unwrap_err();
        assert_eq!(error.kind, kind, "{fault:?}: {error}");
    }
    let refused = cloudwatch.put_metric_data("AWS/EC2", &full_request(1.0, at)).await.unwrap_err();
    assert_eq!(refused.kind, CloudWatchErrorKind::Refused, "{refused}");
}

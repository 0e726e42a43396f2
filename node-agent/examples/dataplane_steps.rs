//! Times the dataplane's work for pods against the running kernel, in namespaces of its own (needs root).
//!
//! `cargo run --release --no-default-features --example dataplane_steps -- [pods]`

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use enipool_agent::dataplane::{Dataplane, DataplaneConfig, PodSpec, VethPrefix};
use nix::sched::{CloneFlags, unshare};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pods: u32 = std::env::args().nth(1).map_or(Ok(100), |text| text.parse())?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(run(pods))
}

async fn run(pods: u32) -> Result<(), Box<dyn std::error::Error>> {
    let dataplane = Dataplane::new(DataplaneConfig::default()).await?;
    let namespaces: Vec<File> = (0..pods).map(|_| namespace()).collect::<Result<_, _>>()?;
    let spec = |number: u32, namespace: &File| PodSpec {
        netns: format!("/proc/self/fd/{}", namespace.as_raw_fd()).into(),
        ifname: "eth0".into(),
        host_ifname: VethPrefix::default().host_ifname("bench", &format!("pod-{number}")),
        address: Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 10).to_bits() + number),
        mtu: 9001,
    };
    let specs: Vec<PodSpec> = (0..).zip(&namespaces).map(|(number, namespace)| spec(number, namespace)).collect();

    let mut adds = Vec::new();
    for spec in &specs {
        let start = Instant::now();
        dataplane.add_pod(spec).await?;
        adds.push(start.elapsed());
    }
    for (number, block) in adds.chunks(50).enumerate() {
        report(&format!("add, from pod {}", number * 50), &mut block.to_vec());
    }
    report("add, one at a time", &mut adds);
    let mut checks = Vec::new();
    for spec in &specs {
        let start = Instant::now();
        dataplane.check_pod(spec).await?;
        checks.push(start.elapsed());
    }
    report("check", &mut checks);
    let mut dels = Vec::new();
    for spec in &specs {
        let start = Instant::now();
        dataplane.del_pod(spec.address, &spec.host_ifname).await?;
        dels.push(start.elapsed());
    }
    report("del", &mut dels);
    drop(namespaces);
    std::thread::sleep(Duration::from_secs(3));

    let namespaces: Vec<File> = (0..pods).map(|_| namespace()).collect::<Result<_, _>>()?;
    let specs: Vec<PodSpec> = (0..).zip(&namespaces).map(|(number, namespace)| spec(number, namespace)).collect();
    let start = Instant::now();
    let mut each = Vec::new();
    for twenty in specs.chunks(20) {
        let tasks: Vec<_> = twenty
            .iter()
            .map(|spec| {
                let (dataplane, spec) = (dataplane.clone(), spec.clone());
                tokio::spawn(async move {
                    let start = Instant::now();
                    dataplane.add_pod(&spec).await.map(|_| start.elapsed())
                })
            })
            .collect();
        for task in tasks {
            each.push(task.await??);
        }
    }
    let took = start.elapsed();
    report("add, 20 at once", &mut each);
    println!("{:<22} {:.0} per second", "add, 20 at once", f64::from(pods) / took.as_secs_f64());
    Ok(())
}

fn namespace() -> Result<File, Box<dyn std::error::Error>> {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)?;
        File::open("/proc/thread-self/ns/net")
    });
    Ok(made.join().map_err(|_| "the thread that makes a namespace panicked")??)
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    println!("{what:<22} p50 {:>9.1?}  p90 {:>9.1?}  p99 {:>9.1?}", at(50), at(90), at(99));
}

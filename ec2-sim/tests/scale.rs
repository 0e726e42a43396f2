//! The model must not be what limits a simulation of a large fleet.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are outside #[test] functions")]

use std::time::Instant;

use ec2_sim::model::SubnetConfig;
use ec2_sim::model::filter::Filter;
use ec2_sim::model::request::{AttachInterface, CreateInterface, Describe, RunInstances, Wanted};
use ec2_sim::{Model, Request, Response, SimConfig};
use enipool_pool::{InstanceType, SubnetCidr};

/// 5,000 nodes that each get two more interfaces and look at what they have: 30,000 calls, 270,000 addresses.
#[test]
#[cfg_attr(debug_assertions, ignore = "two seconds in a release build, as `make test` has it; much longer in this one")]
fn five_thousand_nodes_are_served() {
    let zones = ["a", "b", "c"];
    let subnets = (0..12u8).map(|n| SubnetConfig {
        zone: format!("eu-west-1{}", zones[usize::from(n) % 3]),
        cidr: SubnetCidr(format!("10.{n}.0.0/16").parse().unwrap()),
        tags: std::collections::BTreeMap::new(),
    });
    let mut config =
        SimConfig { subnets: subnets.collect(), max_enis: 20_000, keep_calls: 1000, ..SimConfig::instant() };
    config.vpc.cidrs = (0..12u8).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
    let mut model = Model::new(config).unwrap();
    let subnets: Vec<_> = model.subnets().map(|subnet| subnet.info.id.clone()).collect();
    let start = Instant::now();
    let mut nodes = Vec::new();
    for n in 0..5000 {
        let subnet = subnets[n % subnets.len()].clone();
        let run = RunInstances::one(InstanceType::new("m5.xlarge"), subnet.clone());
        let Response::Reservation(made) = model.act(&Request::RunInstances(run)).unwrap() else { panic!() };
        nodes.push((made[0].id.clone(), subnet));
    }
    for (index, (node, subnet)) in nodes.iter().flat_map(|node| [(1, node), (2, node)]) {
        let create = CreateInterface {
            subnet: Some(subnet.clone()),
            secondary: Wanted::addresses(14),
            client_token: Some(format!("{node}-{index}")),
            ..CreateInterface::default()
        };
        let made = model.call("fleet", &Request::CreateNetworkInterface(create)).result.unwrap();
        let Response::Interface(eni) = made else { panic!() };
        let attach =
            AttachInterface { interface: eni.id.clone(), instance: node.clone(), device_index: index, network_card: 0 };
        model.call("fleet", &Request::AttachNetworkInterface(attach)).result.unwrap();
        let mine = Describe::filtered([Filter::new("attachment.instance-id", [node.as_str()])]);
        let paged =
            Describe { page: ec2_sim::model::page::PageRequest { max_results: Some(1000), next_token: None }, ..mine };
        model.call("fleet", &Request::DescribeNetworkInterfaces(paged)).result.unwrap();
    }
    let took = start.elapsed();
    println!("5,000 nodes, {} calls: {took:?}", model.calls().last_seq());
    assert_eq!(model.interfaces().count(), 15_000);
    assert!(took.as_secs() < 60, "{took:?}");
}

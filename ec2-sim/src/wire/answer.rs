//! From responses to EC2's XML.

use std::collections::BTreeMap;
use std::fmt::Display;

use enipool_pool::ec2::Tags;

use super::describe::{instance_item, instance_types, interface_fields, reservation, subnet_fields, vpc_fields};
use super::xml::Xml;
use crate::model::resource::{InstanceView, SecurityGroup, state_code};
use crate::model::{ApiError, Model, Response};

const NAMESPACE: &str = " xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"";

/// The body of a successful answer.
pub fn success_answer(model: &Model, action: &str, request_id: &str, response: &Response) -> String {
    Xml::document(&format!("{action}Response"), NAMESPACE, |xml| {
        xml.text("requestId", request_id);
        content(xml, model, response);
    })
}

/// The body of an error answer.
pub fn error_answer(error: &ApiError, request_id: &str) -> String {
    Xml::document("Response", "", |xml| {
        xml.nested("Errors", |xml| {
            xml.nested("Error", |xml| {
                xml.text("Code", &error.code);
                xml.text("Message", &error.message);
            });
        });
        xml.text("RequestID", request_id);
    })
}

fn content(xml: &mut Xml, model: &Model, response: &Response) {
    let token = |xml: &mut Xml, next: &Option<String>| xml.optional("nextToken", next.as_ref());
    match response {
        Response::Reservation(instances) => reservation(xml, model, &instances.iter().collect::<Vec<_>>()),
        Response::StateChanges(changes) => xml.list("instancesSet", changes, |xml, change| {
            xml.text("instanceId", &change.instance);
            for (name, state) in [("currentState", change.current), ("previousState", change.previous)] {
                let (code, text) = state_code(state);
                xml.nested(name, |xml| {
                    xml.text("code", code);
                    xml.text("name", text);
                });
            }
        }),
        Response::Instances(page) => {
            xml.list("reservationSet", by_reservation(&page.items), |xml, launched| reservation(xml, model, &launched));
            token(xml, &page.next_token);
        }
        Response::InstanceTypes(page) => {
            instance_types(xml, &page.items);
            token(xml, &page.next_token);
        }
        Response::Vpcs(page) => {
            xml.list("vpcSet", &page.items, |xml, vpc| vpc_fields(xml, model, vpc));
            token(xml, &page.next_token);
        }
        Response::Subnets(page) => {
            xml.list("subnetSet", &page.items, |xml, subnet| subnet_fields(xml, model, subnet));
            token(xml, &page.next_token);
        }
        Response::SecurityGroups(page) => {
            xml.list("securityGroupInfo", &page.items, |xml, group| security_group_fields(xml, model, group));
            token(xml, &page.next_token);
        }
        Response::Interfaces(page) => {
            xml.list("networkInterfaceSet", &page.items, |xml, eni| interface_fields(xml, model, eni));
            token(xml, &page.next_token);
        }
        Response::Interface(eni) => xml.nested("networkInterface", |xml| interface_fields(xml, model, eni)),
        Response::Attached { attachment, network_card } => {
            xml.text("attachmentId", attachment);
            xml.text("networkCardIndex", network_card);
        }
        Response::Assigned { interface, assigned } => {
            xml.text("return", true);
            xml.text("networkInterfaceId", interface);
            xml.list("assignedPrivateIpAddressesSet", &assigned.addresses, |xml, address| {
                xml.text("privateIpAddress", address);
            });
            xml.list("assignedIpv4PrefixSet", &assigned.prefixes, |xml, prefix| xml.text("ipv4Prefix", prefix));
        }
        Response::Vpc(vpc) => xml.nested("vpc", |xml| vpc_fields(xml, model, vpc)),
        Response::Subnet(subnet) => xml.nested("subnet", |xml| subnet_fields(xml, model, subnet)),
        Response::SecurityGroup(group) => {
            xml.text("return", true);
            xml.text("groupId", &group.id);
            tag_set(xml, &group.tags);
        }
        Response::Done => xml.text("return", true),
    }
}

/// The instances of this page by the launch that made them, in the order of their launch indexes.
fn by_reservation(instances: &[InstanceView]) -> Vec<Vec<&InstanceView>> {
    let mut launches: BTreeMap<&str, Vec<&InstanceView>> = BTreeMap::new();
    for instance in instances {
        launches.entry(&instance.reservation).or_default().push(instance);
    }
    let mut launches: Vec<_> = launches.into_values().collect();
    for launched in &mut launches {
        launched.sort_by_key(|instance| instance.launch_index);
    }
    launches
}

fn security_group_fields(xml: &mut Xml, model: &Model, group: &SecurityGroup) {
    xml.text("ownerId", &model.config().account);
    xml.text("groupId", &group.id);
    xml.text("groupName", &group.name);
    xml.text("groupDescription", &group.description);
    xml.text("vpcId", &group.vpc);
    // Rules are not simulated: what a security group lets through is for the fabric to ignore.
    xml.list("ipPermissions", [(); 0], |_, ()| ());
    xml.list("ipPermissionsEgress", [()], |xml, ()| {
        xml.text("ipProtocol", "-1");
        xml.list("groups", [(); 0], |_, ()| ());
        xml.list("ipRanges", ["0.0.0.0/0"], |xml, range| xml.text("cidrIp", range));
        xml.list("ipv6Ranges", [(); 0], |_, ()| ());
        xml.list("prefixListIds", [(); 0], |_, ()| ());
    });
    tag_set(xml, &group.tags);
}

pub(super) fn tag_set(xml: &mut Xml, tags: &Tags) {
    xml.list("tagSet", tags, |xml, (key, value)| {
        xml.text("key", key);
        xml.text("value", value);
    });
}

pub(super) fn group_set(xml: &mut Xml, model: &Model, groups: &[impl Display]) {
    let named = groups.iter().map(|id| {
        let id = id.to_string();
        let name = model.security_groups().find(|group| group.id.as_str() == id).map(|group| group.name.clone());
        (id, name.unwrap_or_default())
    });
    xml.list("groupSet", named, |xml, (id, name)| {
        xml.text("groupId", id);
        xml.text("groupName", name);
    });
}

pub(super) fn instances_set(xml: &mut Xml, model: &Model, instances: &[&InstanceView]) {
    xml.list("instancesSet", instances, |xml, instance| instance_item(xml, model, instance));
}

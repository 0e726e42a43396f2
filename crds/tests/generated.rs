//! The generated manifests are what the types say, and the API server can take them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use enipool_crds::{ENIPool, ENIPoolClass, Reason, fixtures, manifest};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::CustomResourceExt;

fn schema(
    crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) -> JSONSchemaProps {
    crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap()
}

fn field(path: &str, props: &JSONSchemaProps) -> JSONSchemaProps {
    path.split('.').fold(props.clone(), |props, name| props.properties.unwrap()[name].clone())
}

#[test]
fn the_checked_in_manifests_are_the_generated_ones() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let stale = manifest::stale(root).unwrap();
    assert!(stale.is_empty(), "out of date: {stale:?}: run `make generate`");
}

#[test]
fn a_manifest_that_is_missing_or_edited_by_hand_is_out_of_date() {
    let root = std::env::temp_dir().join(format!("enipool-crds-{}", std::process::id()));
    manifest::write(&root).unwrap();
    assert!(manifest::stale(&root).unwrap().is_empty());
    let (edited, missing) =
        (root.join("crds/enipools.yaml"), root.join("deploy/helm/enipool/crds/enipoolclasses.yaml"));
    std::fs::write(&edited, "# mine\n").unwrap();
    std::fs::remove_file(&missing).unwrap();
    assert_eq!(manifest::stale(&root).unwrap(), [edited, missing]);
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn kubectl_explain_has_an_answer_for_every_field() {
    fn walk(path: &str, props: &JSONSchemaProps, missing: &mut Vec<String>) {
        for (name, child) in props.properties.iter().flatten() {
            let path = format!("{path}.{name}");
            let known_by_kubernetes = path.ends_with(".metadata");
            if child.description.is_none() && !known_by_kubernetes {
                missing.push(path.clone());
            }
            walk(&path, child, missing);
        }
    }
    let mut missing = Vec::new();
    for crd in [ENIPool::crd(), ENIPoolClass::crd()] {
        walk(&crd.spec.names.kind, &schema(&crd), &mut missing);
    }
    assert!(missing.is_empty(), "without a description: {missing:?}");
}

#[test]
fn kubectl_explain_says_of_every_setting_what_holds_without_it() {
    fn walk(path: &str, props: &JSONSchemaProps, silent: &mut Vec<String>) {
        // Kubernetes' own words, and numbers that the operator always writes.
        if path.ends_with(".nodeSelector") || path.ends_with(".allocation") {
            return;
        }
        for (name, child) in props.properties.iter().flatten() {
            let path = format!("{path}.{name}");
            if !child.description.as_ref().is_some_and(|text| text.contains("Absent")) {
                silent.push(path.clone());
            }
            walk(&path, child, silent);
        }
    }
    let mut silent = Vec::new();
    for crd in [ENIPool::crd(), ENIPoolClass::crd()] {
        walk(&format!("{}.spec", crd.spec.names.kind), &field("spec", &schema(&crd)), &mut silent);
    }
    assert!(silent.is_empty(), "without a word on what is so when they are absent: {silent:?}");
}

#[test]
fn numbers_have_a_format_that_the_api_server_knows() {
    let text = serde_json::to_string(&[ENIPool::crd(), ENIPoolClass::crd()]).unwrap();
    for unknown in ["\"uint8\"", "\"uint16\"", "\"uint32\"", "\"uint64\"", "\"uint\"", "\"int8\"", "\"int16\""] {
        assert!(!text.contains(unknown), "{unknown}");
    }
}

#[test]
fn the_conditions_field_explains_every_reason() {
    let explained = field("status.conditions", &schema(&ENIPool::crd())).description.unwrap();
    for reason in Reason::ALL {
        assert!(explained.contains(&format!("`{reason}`")), "{reason}");
    }
}

#[test]
fn columns_come_in_the_order_that_people_read_them() {
    let crd = ENIPool::crd();
    let columns = crd.spec.versions[0].additional_printer_columns.clone().unwrap();
    let names = |wide: bool| -> Vec<String> {
        columns.iter().filter(|c| (c.priority == Some(1)) == wide).map(|c| c.name.to_uppercase()).collect()
    };
    assert_eq!(names(false).join(" "), "TYPE ENIS MAX IPS ASSIGNED FREE WARM READY REASON AGE");
    assert_eq!(names(true).join(" "), "SUBNET CEILING DEMAND THROTTLES INSTANCE");
}

#[test]
fn the_status_of_the_largest_instance_stays_under_sixteen_kilobytes() {
    let pool = fixtures::pool_with_enis("ip-10-0-255-255.eu-west-1.compute.internal", 15, 49, 700);
    let size = serde_json::to_vec(&pool.status).unwrap().len();
    assert!(size < 16 * 1024 / 2, "{size} bytes, and field ownership doubles it");
}

#[test]
fn an_eni_state_of_a_newer_agent_does_not_hide_the_pool() {
    let mut pool = serde_json::to_value(fixtures::pool_with_enis("a", 1, 9, 0)).unwrap();
    pool["status"]["enis"][0]["state"] = "Teleporting".into();
    let pool: ENIPool = serde_json::from_value(pool).unwrap();
    assert_eq!(pool.status.unwrap().enis[0].state, enipool_crds::EniState::Unknown);
}

//! Which class a node belongs to. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use enipool_crds::ENIPoolClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

/// Classes in the order in which they are asked, their selectors parsed once.
#[derive(Debug, Default)]
pub struct Classes(Vec<Ranked>);

#[derive(Debug)]
struct Ranked {
    requirements: usize,
    selector: Selector,
    class: Arc<ENIPoolClass>,
}

/// A class whose selector Kubernetes would not accept: no node belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenSelector {
    pub class: String,
    pub why: String,
}

impl Classes {
    /// The most requirements first, then by name.
    pub fn new<'a>(classes: impl IntoIterator<Item = &'a Arc<ENIPoolClass>>) -> (Self, Vec<BrokenSelector>) {
        let mut ranked = Vec::new();
        let mut broken = Vec::new();
        for class in classes {
            let labels = class.spec.node_selector.clone().unwrap_or_default();
            let requirements = count(&labels);
            match Selector::try_from(labels) {
                Ok(selector) => ranked.push(Ranked { requirements, selector, class: class.clone() }),
                Err(error) => broken.push(BrokenSelector { class: class.name_any(), why: error.to_string() }),
            }
        }
        ranked.sort_by(|a, b| {
            b.requirements.cmp(&a.requirements).then_with(|| a.class.name_any().cmp(&b.class.name_any()))
        });
        (Self(ranked), broken)
    }

    /// The class of a node with these labels.
    pub fn of(&self, labels: &BTreeMap<String, String>) -> Option<&Arc<ENIPoolClass>> {
        self.0.iter().find(|ranked| ranked.selector.matches(labels)).map(|ranked| &ranked.class)
    }
}

fn count(selector: &LabelSelector) -> usize {
    selector.match_labels.as_ref().map_or(0, BTreeMap::len) + selector.match_expressions.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use enipool_crds::{ENIPoolClassSpec, fixtures};
    use serde_json::json;

    use super::*;

    fn class(name: &str, selector: serde_json::Value) -> Arc<ENIPoolClass> {
        let node_selector = serde_json::from_value(selector).unwrap();
        Arc::new(ENIPoolClass::new(name, ENIPoolClassSpec { node_selector, ..ENIPoolClassSpec::default() }))
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn the_class_with_the_most_requirements_wins_then_the_first_by_name() {
        let all = [
            Arc::new(fixtures::default_class()),
            class("b", json!({"matchLabels": {"pool": "gpu"}})),
            class("a", json!({"matchExpressions": [{"key": "pool", "operator": "Exists"}]})),
            class("c", json!({"matchLabels": {"pool": "gpu", "zone": "1"}})),
        ];
        let (classes, broken) = Classes::new(&all);
        assert!(broken.is_empty());
        let of = |pairs: &[(&str, &str)]| classes.of(&labels(pairs)).unwrap().name_any();
        assert_eq!(of(&[]), "default");
        assert_eq!(of(&[("pool", "gpu")]), "a");
        assert_eq!(of(&[("pool", "gpu"), ("zone", "1")]), "c");
    }

    #[test]
    fn a_class_with_a_broken_selector_takes_no_node_and_is_named() {
        let all = [class("x", json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}))];
        let (classes, broken) = Classes::new(&all);
        assert!(classes.of(&labels(&[("a", "b")])).is_none());
        assert_eq!(broken[0].class, "x");
    }
}

//! What the schemas demand of a spec: each rule and each bound, with the field that it is about. Read from the same
//! manifests that are installed, so that nothing new in them goes unseen.

use serde_json::Value;

/// One demand of a kind's schema.
#[derive(Debug)]
pub(crate) struct Demand {
    pub(crate) kind: String,
    /// As the API server names it; of a list its first item, of a map its entry [`ENTRY`].
    pub(crate) field: String,
    pub(crate) limit: Limit,
}

/// A map's entry, for want of a name in the schema.
const ENTRY: &str = "team";

#[derive(Debug)]
pub(crate) enum Limit {
    Least(i64),
    Most(i64),
    Characters(i64),
    Items(i64),
    OneOf(Vec<Value>),
    /// A rule in CEL, known by its message.
    Rule(String),
}

impl Limit {
    /// What the API server says when it is broken.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Least(least) => format!("should be greater than or equal to {least}"),
            Self::Most(most) => format!("should be less than or equal to {most}"),
            Self::Characters(most) => format!("may not be more than {most} bytes"),
            Self::Items(most) => format!("must have at most {most} items"),
            Self::OneOf(values) => {
                let values: Vec<String> = values.iter().map(Value::to_string).collect();
                format!("supported values: {}", values.join(", "))
            }
            Self::Rule(message) => message.clone(),
        }
    }

    /// Of each value that just keeps within it, whether this is it. None for a rule: what it lets through is not in it.
    pub(crate) fn kept_by(&self, value: &Value) -> Vec<bool> {
        let size = match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            _ => 0,
        };
        match self {
            Self::Least(edge) | Self::Most(edge) => vec![value.as_i64() == Some(*edge)],
            Self::Characters(edge) | Self::Items(edge) => vec![i64::try_from(size) == Ok(*edge)],
            Self::OneOf(values) => values.iter().map(|one| one == value).collect(),
            Self::Rule(_) => Vec::new(),
        }
    }
}

/// All demands on what people and the operator write: the specs.
pub(crate) fn all() -> Vec<Demand> {
    let mut all = Vec::new();
    for (_, text) in enipool_crds::manifest::all().unwrap() {
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        collect(kind, "spec", schema, &mut all);
    }
    all
}

fn collect(kind: &str, field: &str, schema: &Value, all: &mut Vec<Demand>) {
    for limit in limits(schema) {
        all.push(Demand { kind: kind.into(), field: field.into(), limit });
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        collect(kind, &format!("{field}.{name}"), child, all);
    }
    if let Some(items) = schema.get("items") {
        collect(kind, &format!("{field}[0]"), items, all);
    }
    if let Some(entries) = schema.get("additionalProperties") {
        collect(kind, &format!("{field}.{ENTRY}"), entries, all);
    }
}

fn limits(schema: &Value) -> Vec<Limit> {
    let mut limits = Vec::new();
    for (name, value) in schema.as_object().into_iter().flatten() {
        // Bounds of numbers are floating-point numbers in a schema.
        let number = || {
            value.as_i64().unwrap_or_else(|| serde_json::from_str(&format!("{:.0}", value.as_f64().unwrap())).unwrap())
        };
        match name.as_str() {
            "minimum" => limits.push(Limit::Least(number())),
            "maximum" => limits.push(Limit::Most(number())),
            "maxLength" => limits.push(Limit::Characters(number())),
            "maxItems" | "maxProperties" => limits.push(Limit::Items(number())),
            "enum" => limits.push(Limit::OneOf(value.as_array().cloned().unwrap())),
            "x-kubernetes-validations" => {
                let messages = value.as_array().into_iter().flatten().map(|rule| rule["message"].as_str().unwrap());
                limits.extend(messages.map(|message| Limit::Rule(message.into())));
            }
            // What these say is checked by every object that is accepted or refused; any other word may be a demand.
            "type"
            | "format"
            | "description"
            | "default"
            | "properties"
            | "required"
            | "items"
            | "additionalProperties"
            | "x-kubernetes-list-type"
            | "x-kubernetes-int-or-string" => {}
            other => panic!("the schema demands {other:?}, which this test does not know yet"),
        }
    }
    limits
}

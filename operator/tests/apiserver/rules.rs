//! What the API server takes, and what it refuses with a sentence that says what to do. Dry runs: nothing is kept.

use enipool_crds::{Allocation, ENIPool, ENIPoolClass};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::response::{Status, StatusCause};
use serde_json::{Value, json};

use super::{accepted, client, demands, install_crds, refused};

fn api(client: &Client, kind: &str) -> (Api<DynamicObject>, ApiResource) {
    let resource = match kind {
        "ENIPool" => ApiResource::erase::<ENIPool>(&()),
        "ENIPoolClass" => ApiResource::erase::<ENIPoolClass>(&()),
        other => panic!("no kind {other}"),
    };
    (Api::all_with(client.clone(), &resource), resource)
}

/// What the API server would make of an object with this content.
async fn create(client: &Client, kind: &str, content: Value) -> Result<DynamicObject, Status> {
    let (api, resource) = api(client, kind);
    let object = DynamicObject::new("rules-test", &resource).data(content);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&params, &object).await.map_err(refusal)
}

fn refusal(error: kube::Error) -> Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("the API server did not answer: {other}"),
    }
}

/// What is wrong with an object, but for the remark that its rules in CEL were not tried because of that.
fn causes(status: &Status) -> Vec<&StatusCause> {
    status.details.iter().flat_map(|details| &details.causes).filter(|cause| cause.field != "<nil>").collect()
}

/// An object's content with this value of this field.
fn content(field: &str, value: Value) -> Value {
    let mut content = field.rsplit('.').fold(value, |inner, name| match name.strip_suffix("[0]") {
        Some(list) => json!({list: [inner]}),
        None => json!({name: inner}),
    });
    // The operator always writes a whole allocation.
    if let Some(Value::Object(allocation)) = content.pointer_mut("/spec/allocation") {
        let Ok(Value::Object(mut whole)) = serde_json::to_value(Allocation::default()) else { unreachable!() };
        whole.append(allocation);
        *allocation = whole;
    }
    // Alone in a class it breaks a rule of its own.
    if field == "spec.warmPrefixTarget" {
        content["spec"]["addressing"] = json!("Prefix");
    }
    content
}

/// A field's value, as [`content`] puts it there.
fn value_of<'a>(content: &'a Value, field: &str) -> Option<&'a Value> {
    content.pointer(&format!("/{}", field.replace("[0]", ".0").replace('.', "/")))
}

#[tokio::test]
#[ignore = "needs an API server: make test-api-server"]
async fn what_breaks_a_rule_is_refused_with_a_sentence_that_says_what_to_do() {
    let client = client().await;
    install_crds(&client).await;
    let mut wrong = Vec::new();
    for refused::Refused { kind, field, value, sentence } in refused::all() {
        let row = format!("{kind} with {field} {value:.100}");
        match create(&client, kind, content(&field, value)).await {
            Ok(_) => wrong.push(format!("{row} was accepted")),
            Err(status) => match causes(&status).as_slice() {
                // One cause: nothing else is wrong with this object, and the person reads but this sentence.
                [cause] if cause.field == field && cause.message.contains(sentence) => {}
                others => wrong.push(format!("{row} should be refused with {sentence:?}, but: {others:#?}")),
            },
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
#[ignore = "needs an API server: make test-api-server"]
async fn what_breaks_no_rule_is_accepted_as_it_is() {
    let client = client().await;
    install_crds(&client).await;
    let mut wrong = Vec::new();
    for (kind, spec) in accepted::all() {
        match create(&client, kind, json!({"spec": spec})).await {
            Ok(object) if object.data["spec"] == spec => {}
            Ok(object) => wrong.push(format!("{kind} {spec} became {}", object.data["spec"])),
            Err(status) => wrong.push(format!("{kind} {spec} was refused: {}", status.message)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
#[ignore = "needs an API server: make test-api-server"]
async fn a_misspelt_field_is_refused_by_its_name() {
    let client = client().await;
    install_crds(&client).await;
    for kind in ["ENIPool", "ENIPoolClass"] {
        let (api, resource) = api(&client, kind);
        let object = DynamicObject::new("rules-test", &resource).data(json!({"spec": {"warmEniTarget": 1}}));
        // As kubectl asks for it, unless told otherwise.
        let params = PatchParams { dry_run: true, ..PatchParams::apply("rules-test").validation_strict() };
        let status = refusal(api.patch("rules-test", &params, &Patch::Apply(&object)).await.unwrap_err());
        assert!(status.message.contains(".spec.warmEniTarget: field not declared in schema"), "{}", status.message);
    }
}

#[test]
fn no_rule_and_no_bound_is_without_an_example_that_breaks_it() {
    let refused = refused::all();
    let tried = |demand: &&demands::Demand| {
        let sentence = demand.limit.sentence();
        refused.iter().any(|row| row.kind == demand.kind && row.field == demand.field && row.sentence == sentence)
    };
    let demands = demands::all();
    let untried: Vec<&demands::Demand> = demands.iter().filter(|demand| !tried(demand)).collect();
    assert!(untried.is_empty(), "no row of `refused` breaks these: {untried:#?}");
}

#[test]
fn no_bound_is_without_an_example_that_just_keeps_it() {
    let mut untried = Vec::new();
    for demand in demands::all() {
        let mut kept: Vec<bool> = Vec::new();
        for (kind, spec) in accepted::all() {
            let content = json!({"spec": spec});
            if let Some(value) = value_of(&content, &demand.field).filter(|_| kind == demand.kind) {
                let by_this = demand.limit.kept_by(value);
                kept.resize(by_this.len(), false);
                kept.iter_mut().zip(by_this).for_each(|(kept, by_this)| *kept |= by_this);
            }
        }
        let rule = matches!(demand.limit, demands::Limit::Rule(_));
        if !rule && (kept.is_empty() || kept.contains(&false)) {
            untried.push(demand);
        }
    }
    assert!(untried.is_empty(), "no spec of `accepted` just keeps these: {untried:#?}");
}

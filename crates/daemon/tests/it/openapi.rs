//! The OpenAPI document: checked in, complete, and true to the router.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::world::World;

/// Its place in the repository.
const FILE: &str = "../../docs/reference/openapi.yaml";

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn document() -> Value {
    serde_json::to_value(daemon::http::openapi()).unwrap()
}

/// Method, path and description of each operation.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                operations.push((method.to_uppercase(), path.clone(), operation.clone()));
            }
        }
    }
    operations
}

#[test]
fn the_file_in_the_repository_is_what_is_served() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let made = daemon::http::openapi().to_yaml().unwrap();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == made,
        "docs/reference/openapi.yaml is out of date; \
         run: UPDATE_OPENAPI=1 cargo test -p daemon --test it openapi"
    );
}

#[test]
fn operations_have_unique_ids_groups_summaries_and_answers() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let label = format!("{method} {path}");
        let id = operation["operationId"].as_str().unwrap_or_default();
        assert!(
            !id.is_empty() && ids.insert(id.to_owned()),
            "{label}: operationId {id:?}"
        );
        assert!(operation["summary"].is_string(), "{label} has no summary");
        assert_eq!(
            operation["tags"].as_array().map(Vec::len),
            Some(1),
            "{label}"
        );
        let answers = operation["responses"].as_object().unwrap();
        assert!(
            answers
                .keys()
                .any(|status| status.starts_with('2') || status == "101"),
            "{label}"
        );
        let parameters = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')) {
            let name = name.trim_end_matches('}');
            assert!(
                parameters.iter().any(|one| one["name"] == json!(name)),
                "{label}: {name}"
            );
        }
        if path.contains("{id}") {
            assert!(
                answers.contains_key("404") || answers.contains_key("409"),
                "{label}"
            );
        }
    }
    assert!(ids.len() >= 20, "{ids:?}");
}

#[test]
fn everything_but_health_asks_for_a_token() {
    let document = document();
    assert_eq!(
        document["components"]["securitySchemes"]["bearerAuth"]["scheme"],
        json!("bearer")
    );
    assert_eq!(document["security"], json!([{ "bearerAuth": [] }]));
    let open: Vec<String> = operations(&document)
        .into_iter()
        .filter(|(_, _, operation)| operation.get("security").is_some())
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    assert_eq!(open, ["GET /health"]);
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    found.insert(target.clone());
                }
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn every_documented_operation_is_routed() {
    let world = World::new().await;
    for (method, path, _) in operations(&document()) {
        let path = path.replace("{id}", "nobody").replace("{name}", "nothing");
        let answer = world.call(&method, &path, "").await;
        let unrouted = answer.status == 405
            || answer.status == 404 && answer.message().starts_with("there is no ");
        assert!(!unrouted, "{method} {path}: {answer:?}");
    }
    for path in ["/spec.json", "/spec.yaml", "/swagger/"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    assert_eq!(world.get("/spec.json").await.json(), document());
}

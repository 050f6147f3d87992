//! Builds the OpenAPI document, from the same table as the router. A test compares it with `docs/openapi.json`.

use std::collections::BTreeMap;

use axum::Json;
use serde_json::{Map, Value, json};
use wire::rest::error::Code;

use super::route::{Method, Parameter, Route};

/// Where it is served.
pub const PATH: &str = "/openapi.json";

/// The schemas of bodies, by name.
const SCHEMAS: &str = include_str!("schemas.json");

pub(super) async fn document() -> Json<Value> {
    Json(whole())
}

/// The whole document.
pub fn whole() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (route, _) in super::routes() {
        paths.entry(route.path).or_default().insert(verb(route.method).to_owned(), operation(&route));
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("our own file is valid: a test reads it");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Farcall",
            "description": "The compute routes of a Farcall service: those of Globus Compute that its SDK and endpoint use.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn verb(method: Method) -> &'static str {
    match method {
        Method::Get => "get",
        Method::Post => "post",
        Method::Put => "put",
        Method::Delete => "delete",
    }
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = path_parameters(route.path).collect();
    parameters.extend(route.query.iter().map(|it| parameter(it, "query")));
    parameters.extend(route.header.iter().map(|it| parameter(it, "header")));
    let mut responses = Map::new();
    let schema = json!({"$ref": format!("#/components/schemas/{}", route.answer)});
    responses.insert(
        "200".to_owned(),
        json!({"description": route.summary, "content": {"application/json": {"schema": schema}}}),
    );
    for (status, names) in refusals(route) {
        let content = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}});
        responses.insert(status.to_string(), json!({"description": names.join(", "), "content": content}));
    }
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "responses": responses,
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if route.token {
        operation["security"] = json!([{"token": []}]);
    }
    if let Some(body) = route.body {
        let schema = json!({"$ref": format!("#/components/schemas/{body}")});
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

fn path_parameters(path: &str) -> impl Iterator<Item = Value> + '_ {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(|name| {
        let schema = match name {
            "id" => json!({"type": "string", "format": "uuid"}),
            _ => json!({"type": "string", "minLength": 1}),
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    })
}

fn parameter(parameter: &Parameter, place: &str) -> Value {
    let mut schema = json!({"type": "string"});
    if !parameter.values.is_empty() {
        schema["enum"] = json!(parameter.values);
    }
    json!({"name": parameter.name, "in": place, "required": false, "description": parameter.summary, "schema": schema})
}

/// Every status but 200 that the route answers with, and the names of the errors.
fn refusals(route: &Route) -> BTreeMap<u16, Vec<&'static str>> {
    let mut all: Vec<(u16, Code)> = route.refusals.iter().map(|code| (code.http_status(), *code)).collect();
    let mut also = |codes: &[Code]| all.extend(codes.iter().map(|code| (code.http_status(), *code)));
    if route.token {
        also(&[
            Code::UserUnauthenticated,
            Code::InvalidAuthToken,
            Code::InsufficientAuthScope,
            Code::MaxRequestsExceeded,
            Code::ServiceUnavailable,
        ]);
    }
    if route.path.contains("{id}") {
        also(&[Code::InvalidUuid]);
    }
    if route.body.is_some() {
        also(&[Code::RequestMalformed, Code::TaskPayloadTooLarge]);
        all.extend([408, 415].map(|status| (status, Code::RequestMalformed)));
    }
    let mut refusals: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    for (status, code) in all {
        let names = refusals.entry(status).or_default();
        if !names.contains(&code.name()) {
            names.push(code.name());
        }
    }
    refusals
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::*;

    /// `UPDATE_OPENAPI=1` writes it anew.
    #[test]
    fn the_file_is_what_is_served() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let text = format!("{:#}\n", whole());
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == text, "docs/openapi.json is not what is served: run this test with UPDATE_OPENAPI=1");
    }

    #[test]
    fn operations_have_names_of_their_own_and_schemas_that_exist() {
        let document = whole();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let mut names = HashSet::new();
        for (route, _) in super::super::routes() {
            assert!(names.insert(route.name), "{}", route.name);
            for schema in route.body.iter().chain([&route.answer]) {
                assert!(schemas.contains_key(*schema), "{schema}");
            }
        }
        let text = document.to_string();
        for (reference, _) in text.match_indices("#/components/schemas/") {
            let name =
                text[reference..].trim_start_matches("#/components/schemas/").split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}

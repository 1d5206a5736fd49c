//! What the Platform API says of itself, for programs: an OpenAPI description, written by hand.
//!
//! It stands at `/openapi.json`, where tools look for one; Heroku's `/schema` is a JSON hyper-schema, which this is not.
//! Who may not ask for anything else may read it: it is the same on every machine.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

/// OpenAPI 3.1, of all that the API's listener answers by its own names, and of nothing else: what the heroku CLI has it
/// answer in the name of a host of Heroku's is no part of the Platform API.
const DESCRIPTION: &str = include_str!("openapi.json");

/// `GET /openapi.json`
pub(in crate::control) async fn show() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DESCRIPTION)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;
    use crate::config::limits;
    use crate::control::routes::{apps, told};

    type Paths = BTreeMap<String, BTreeSet<String>>;

    /// The paths of a router with their methods. Only its `Debug` tells: should axum write that in another way one day,
    /// no path is found, and that fails here.
    fn routed<S>(router: &axum::Router<S>) -> Paths {
        let (mut methods, mut paths) = (BTreeMap::new(), BTreeMap::new());
        let told = format!("{router:?}");
        let (own, _fallback) = told.split_once("fallback_router").unwrap();
        for entry in own.split("RouteId(").skip(1) {
            let (id, entry) = entry.split_once("): ").unwrap();
            if let Some(path) = entry.strip_prefix('"') {
                paths.insert(id.to_owned(), path.split('"').next().unwrap().to_owned());
            } else if let Some((_, allowed)) = entry.split_once("allow_header: Bytes(b\"") {
                let allowed = allowed.split('"').next().unwrap().to_ascii_lowercase();
                // Whoever answers GET answers HEAD.
                let allowed = allowed.split(',').filter(|method| *method != "head");
                methods.insert(id.to_owned(), allowed.map(str::to_owned).collect());
            }
        }
        paths.into_iter().map(|(id, path)| (path, methods.remove(&id).unwrap())).collect()
    }

    fn description() -> Value {
        serde_json::from_str(DESCRIPTION).unwrap()
    }

    /// Each path and method with what is said of it.
    fn operations(description: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
        let paths = description["paths"].as_object().unwrap();
        paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap();
            methods.iter().map(move |(method, operation)| (path, method, operation))
        })
    }

    /// Those that are described and wanted.
    fn described(description: &Value, wanted: impl Fn(&Value) -> bool) -> Paths {
        let mut paths = Paths::new();
        for (path, method, _) in operations(description).filter(|(.., it)| wanted(it)) {
            paths.entry(path.clone()).or_default().insert(method.clone());
        }
        paths
    }

    #[test]
    fn what_is_routed_is_described_and_nothing_else() {
        let description = description();
        let wants_token = |operation: &Value| operation.get("security").is_none();
        assert_eq!(described(&description, wants_token), routed(&apps()));
        assert_eq!(described(&description, |it| !wants_token(it)), routed(&told()));
    }

    #[test]
    fn each_reference_leads_somewhere() {
        fn check(description: &Value, at: &Value) {
            if let Some(reference) = at.get("$ref") {
                let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
                assert!(description.pointer(pointer).is_some(), "{pointer}");
            }
            let parts = at.as_object().into_iter().flat_map(|it| it.values());
            parts
                .chain(at.as_array().into_iter().flatten())
                .for_each(|part| check(description, part));
        }
        check(&description(), &description());
    }

    #[test]
    fn each_part_of_a_path_is_a_parameter_and_each_operation_has_a_name() {
        let description = description();
        let mut names = BTreeSet::new();
        for (path, method, operation) in operations(&description) {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let of_path = parameters.filter_map(|it| {
                let pointer = it["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
                let parameter = description.pointer(pointer).unwrap();
                (parameter["in"] == "path").then(|| parameter["name"].as_str().unwrap())
            });
            let parts = path.split('/');
            let parts = parts.filter_map(|it| it.strip_prefix('{')?.strip_suffix('}'));
            assert_eq!(of_path.collect::<Vec<_>>(), parts.collect::<Vec<_>>(), "{method} {path}");
            assert!(names.insert(operation["operationId"].as_str().unwrap()), "{method} {path}");
        }
    }

    #[test]
    fn whoever_needs_a_token_is_told_how_that_can_fail() {
        let description = description();
        for (path, method, operation) in operations(&description) {
            let told = |status: &str| operation["responses"].get(status).is_some();
            let all = ["401", "403", "421", "429", "500"].into_iter().all(told);
            assert!(all || operation.get("security").is_some(), "{method} {path}");
        }
    }

    #[test]
    fn bounds_are_those_that_hold() {
        let description = description();
        let scale =
            "/paths/~1apps~1{app}~1formation/patch/requestBody/content/application~1json/schema";
        let quantity = format!("{scale}/properties/updates/items/properties/quantity/oneOf/0");
        assert_eq!(description.pointer(&quantity).unwrap()["maximum"], limits::FORMATION_MAX);
        let of_log = description["paths"]["/apps/{app}/log-sessions"].to_string();
        assert!(of_log.contains("1,500 at most") && limits::BOOK_LINES == 1_500, "{of_log}");
        let told = description["info"]["description"].as_str().unwrap();
        assert!(told.contains("4,500") && limits::API_REQUESTS == 4_500, "{told}");
        let back = format!("of which {} come back", limits::API_REQUESTS_PER_SECOND);
        assert!(told.contains(&back), "{told}");
    }
}

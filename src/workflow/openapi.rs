//! The `OpenAPI` document of the workflow API, written by hand and first; tests hold it against the routes and
//! against what they answer.

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// The document for a gateway that serves the workflow API below `prefix`, and that clients call `public_url`.
#[must_use]
pub fn document(prefix: &str, public_url: Option<&str>) -> Bytes {
    let Ok(mut document) = serde_json::from_str::<Map<String, Value>>(DOCUMENT) else {
        return Bytes::from_static(DOCUMENT.as_bytes());
    };
    if prefix != WRITTEN_FOR
        && let Some(Value::Object(paths)) = document.remove("paths")
    {
        let moved: Map<_, _> = paths
            .into_iter()
            .map(|(path, item)| match path.strip_prefix(WRITTEN_FOR) {
                Some(rest) => (format!("{prefix}{rest}"), item),
                None => (path, item),
            })
            .collect();
        document.insert("paths".to_owned(), moved.into());
    }
    if let Some(url) = public_url {
        let url = url.trim_end_matches('/');
        document.insert("servers".to_owned(), json!([{"url": url}]));
    }
    Value::from(document).to_string().into()
}

/// The document as it is written, for the prefix `/api` and no address.
pub const DOCUMENT: &str = include_str!("openapi.json");

/// The prefix of its paths.
const WRITTEN_FOR: &str = "/api";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::workflow::route::ROUTES;

    fn parsed(prefix: &str, public_url: Option<&str>) -> Value {
        serde_json::from_slice(&document(prefix, public_url)).unwrap()
    }

    #[test]
    fn every_route_is_documented_and_nothing_else_is() {
        let document = parsed("/api", None);
        let documented: BTreeSet<String> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys();
                let methods = methods.filter(|name| *name != "parameters");
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let own = ["/health", "/openapi.json"].map(|path| format!("GET {path}"));
        let routes: BTreeSet<String> = ROUTES
            .iter()
            .map(|route| {
                let name = if route.path.starts_with("/processes/") {
                    "{key}"
                } else {
                    "{id}"
                };
                format!("{} /api{}", route.method, route.path.replace("{}", name))
            })
            .chain(own)
            .collect();
        assert_eq!(documented, routes);
    }

    #[test]
    fn the_codes_are_those_there_are() {
        let document = parsed("/api", None);
        let codes = document["components"]["schemas"]["ProblemCode"]["enum"].clone();
        let codes: Vec<String> = serde_json::from_value(codes).unwrap();
        let known: Vec<String> = include_str!("../../docs/errors.md")
            .lines()
            .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
            .collect();
        let sorted = |codes: Vec<String>| codes.into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted(codes), sorted(known));
    }

    #[test]
    fn prefix_and_address_are_the_gateways() {
        let document = parsed("/bpm/v1", Some("https://app.example/x/"));
        assert_eq!(
            document["servers"],
            json!([{"url": "https://app.example/x"}])
        );
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.contains_key("/bpm/v1/processes/{key}/start"));
        assert!(paths.contains_key("/health"));
        assert!(!paths.keys().any(|path| path.starts_with("/api")));
        assert!(parsed("/api", None).get("servers").is_none());
    }
}

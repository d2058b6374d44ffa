//! The operation catalogue against the engine that it describes.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;

use crate::support::Engine;
use crate::support::http::{request, send};

const CATALOGUE: &str = include_str!("../../src/operation/operations.tsv");

/// `OPTIONS` is the one question about a path that does nothing: its `Allow` is what the engine has
/// there. Both directions: no row without its operation, no operation without its row.
#[tokio::test]
async fn every_path_of_the_catalogue_has_the_methods_that_the_engine_has_there() {
    let engine = Engine::shared().await;
    let mut wrong = Vec::new();
    for (path, methods) in paths() {
        let asked = path.replace(['{', '}'], "");
        let url = format!("{}{asked}", engine.url());
        let answer = send(request(Method::OPTIONS, &url, &Engine::authorization())).await;
        let allow = answer
            .headers
            .get("allow")
            .map(|allow| allow.to_str().unwrap().to_owned());
        let mut engine_has = allow
            .iter()
            .flat_map(|allow| allow.split(','))
            .map(|method| method.trim().to_owned())
            .collect::<BTreeSet<_>>();
        // Answered everywhere, listed nowhere.
        engine_has.remove("OPTIONS");
        engine_has.remove("HEAD");
        if engine_has != methods {
            wrong.push(format!(
                "{path}: {methods:?}, the engine {:?} {engine_has:?}",
                answer.status
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The paths that Operaton has, with their methods.
fn paths() -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut lines = CATALOGUE.lines();
    let header: Vec<_> = lines.next().unwrap().split('\t').collect();
    let column = |name| header.iter().position(|column| *column == name).unwrap();
    let (method, path, flavours) = (column("method"), column("path"), column("flavours"));
    let mut paths = BTreeMap::<_, BTreeSet<_>>::new();
    for row in lines.map(|line| line.split('\t').collect::<Vec<_>>()) {
        if row[method] != "OPTIONS" && row[flavours] == "all" {
            paths
                .entry(row[path])
                .or_default()
                .insert(row[method].to_owned());
        }
    }
    paths
}

//! The operation catalogue against the engine that it describes.

use std::collections::{BTreeMap, BTreeSet};

use bpmgate::operation::{Catalogue, Matched};
use http::Method;

use crate::support::http::{json_request, request, send};
use crate::support::{Engine, model};

const CATALOGUE: &str = include_str!("../../src/operation/operations.tsv");

/// `OPTIONS` is the one question about a path that does nothing: its `Allow` is what the engine has
/// there. Both directions: no row without its operation, and on no known path an operation without
/// its row.
#[tokio::test]
async fn every_path_of_the_catalogue_has_the_methods_that_the_engine_has_there() {
    let engine = Engine::shared().await;
    // Below `/key/{key}` the engine looks for the definition before it answers.
    for tenant in [None, Some("tenant-id")] {
        engine.deploy(&model::waiting(["key"]), tenant).await;
        for (file, document) in model::BESIDE_BPMN {
            engine.deploy_file(file, document, tenant).await;
        }
    }
    let mut wrong = Vec::new();
    for (path, rows) in paths() {
        let has = methods(
            engine,
            &path.replace(['{', '}'], ""),
            rows.contains("OPTIONS"),
        )
        .await;
        if has != rows {
            wrong.push(format!(
                "{path}: the catalogue has {rows:?}, the engine {has:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Where a literal stands in a parameter's place, the row that is found must be the one that the engine
/// runs: what the catalogue does not know passes unread where everything may pass.
#[tokio::test]
async fn a_literal_in_a_parameters_place_leads_where_the_engine_goes() {
    let engine = Engine::shared().await;
    let paths: Vec<Vec<&str>> = paths()
        .keys()
        .map(|path| path.split('/').collect())
        .collect();
    let mut tried = BTreeSet::new();
    for (path, at) in paths
        .iter()
        .flat_map(|path| (0..path.len()).map(move |at| (path, at)))
        .filter(|(path, at)| path[*at].starts_with('{'))
    {
        // The literals of other paths that begin alike.
        for other in paths
            .iter()
            .filter(|other| other.get(..at) == path.get(..at))
        {
            if let Some(literal) = other.get(at).filter(|other| !other.starts_with('{')) {
                let mixed = [&path[..at], &[*literal], &path[at + 1..]].concat();
                tried.insert(mixed.join("/").replace(['{', '}'], ""));
            }
        }
    }
    let mut wrong = Vec::new();
    for path in &tried {
        let has = methods(engine, path, false).await;
        let found: BTreeSet<String> = [Method::GET, Method::POST, Method::PUT, Method::DELETE]
            .into_iter()
            .filter(|method| {
                matches!(
                    Catalogue::builtin().find(method, path),
                    Matched::Operation(_)
                )
            })
            .map(|method| method.to_string())
            .collect();
        // What is found and is not there is 404 at the engine.
        if !has.is_subset(&found) {
            wrong.push(format!("{path}: found {found:?}, the engine has {has:?}"));
        }
    }
    assert!(
        wrong.is_empty() && tried.len() > 100,
        "{}\n{}",
        tried.len(),
        wrong.join("\n")
    );
}

/// The methods that the engine has on a path; `OPTIONS` only where it answers links.
async fn methods(engine: &Engine, path: &str, links: bool) -> BTreeSet<String> {
    let url = format!("{}{path}", engine.url());
    let options = request(Method::OPTIONS, &url, &Engine::authorization());
    let options = send(options).await;
    if !links {
        let allow = options
            .headers
            .get("allow")
            .map_or("", |allow| allow.to_str().unwrap());
        let all = allow.split(',').map(|method| method.trim().to_owned());
        // Answered everywhere, and in the catalogue nowhere.
        return all
            .filter(|method| !["OPTIONS", "HEAD", ""].contains(&&**method))
            .collect();
    }
    // These say what the caller may do instead. The ids are of nothing, so trying does no harm.
    let mut methods = BTreeSet::from(["OPTIONS".to_owned()]);
    options.expect(200).json()["links"]
        .as_array()
        .expect("links");
    for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
        let tried = json_request(method.clone(), &url, &Engine::authorization(), "{}");
        if send(tried).await.status != 405 {
            methods.insert(method.to_string());
        }
    }
    methods
}

/// The paths that Operaton has, with their methods.
fn paths() -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut lines = CATALOGUE.lines();
    let header: Vec<_> = lines.next().unwrap().split('\t').collect();
    let column = |name| header.iter().position(|column| *column == name).unwrap();
    let (method, path, flavours) = (column("method"), column("path"), column("flavours"));
    let mut paths = BTreeMap::<_, BTreeSet<_>>::new();
    for row in lines.map(|line| line.split('\t').collect::<Vec<_>>()) {
        if row[flavours] == "all" {
            paths
                .entry(row[path])
                .or_default()
                .insert(row[method].to_owned());
        }
    }
    paths
}

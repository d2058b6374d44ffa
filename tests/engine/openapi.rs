//! The operation catalogue against the vendor's own `OpenAPI` document, which Maven fetches.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use bpmgate::operation::Catalogue;
use serde_json::Value;

/// The document lies in this artifact; Operaton's engine has the same operations (see `catalogue.rs`).
const ARTIFACT: &str = "org.camunda.bpm:camunda-engine-rest-openapi:7.24.0";

#[test]
fn every_operation_of_the_openapi_document_is_a_row_with_its_id_and_group() {
    let directory = tempfile::tempdir().unwrap();
    let output = format!("-DoutputDirectory={}", directory.path().display());
    run(
        directory.path(),
        "mvn",
        &[
            "--batch-mode",
            "--quiet",
            "dependency:copy",
            &format!("-Dartifact={ARTIFACT}"),
            &output,
        ],
    );
    run(
        directory.path(),
        "jar",
        &[
            "--extract",
            "--file",
            "camunda-engine-rest-openapi-7.24.0.jar",
            "openapi.json",
        ],
    );
    let document = std::fs::read(directory.path().join("openapi.json")).unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();

    let rows: BTreeMap<(String, String), (&str, &str)> = Catalogue::builtin()
        .operations()
        .iter()
        .map(|row| {
            (
                (row.method.to_string(), shape(row.path)),
                (row.id, row.group),
            )
        })
        .collect();
    let mut compared = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let place = (method.to_uppercase(), shape(path));
            let id = operation["operationId"].as_str().unwrap();
            let group = operation["tags"][0].as_str().unwrap();
            assert_eq!(rows.get(&place), Some(&(id, group)), "{method} {path}");
            compared += 1;
        }
    }
    assert_eq!(compared, 399);
}

/// The path without the names of its parameters, which differ here and there.
fn shape(path: &str) -> String {
    let segments = path.split('/').map(|segment| {
        if segment.starts_with('{') {
            "{}"
        } else {
            segment
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

fn run(directory: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

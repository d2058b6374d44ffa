//! The catalogue: what it finds fits, and what it does not find is not there.

use bpmgate::operation::{Catalogue, Match, Matched, Operation};
use http::Method;
use percent_encoding::percent_decode_str;

/// The input is a method, a space, and a path below the engine's REST root, normalized or not.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Some((method, path)) = text.split_once(' ') else {
        return;
    };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else {
        return;
    };
    let catalogue = Catalogue::builtin();
    let asked = if method == Method::HEAD {
        &Method::GET
    } else {
        &method
    };
    let below = below_engine(path);
    let fitting = || {
        let rows = catalogue.operations().iter();
        rows.filter(move |row| below.is_some_and(|below| fits(row.path, below)))
    };
    match catalogue.find(&method, path) {
        Matched::Operation(found) => {
            let row = found.operation;
            assert_eq!(row.method, *asked);
            let below = below.expect("a path of the engine");
            assert!(fits(row.path, below), "{} does not fit {path}", row.path);
            assert_params(&found, below);
            // Of several templates the engine takes the one whose literals come first.
            for other in fitting() {
                assert!(literals(row) >= literals(other), "{} is nearer", other.path);
            }
        }
        Matched::OtherMethods(allow) => {
            let nearest = fitting().map(literals).max();
            let rows: Vec<_> = fitting()
                .filter(|row| Some(literals(row)) == nearest)
                .collect();
            assert!(!rows.is_empty(), "no template fits {path}");
            for row in rows {
                assert_ne!(row.method, *asked, "{} was not seen", row.id);
                assert!(allow.split(", ").any(|known| known == row.method.as_str()));
            }
        }
        Matched::Unknown => assert!(fitting().next().is_none(), "{path} is known"),
    }
}

/// The path without `/engine/{name}`; `None` where the engines know nothing below it.
fn below_engine(path: &str) -> Option<&str> {
    let Some(rest) = path.strip_prefix("/engine/") else {
        return Some(path);
    };
    let at = rest.find('/')?;
    let below = rest.get(at..)?;
    (below != "/engine" && !below.starts_with("/engine/")).then_some(below)
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

fn fits(template: &str, path: &str) -> bool {
    segments(template).count() == segments(path).count()
        && segments(template)
            .zip(segments(path))
            .all(|(step, segment)| step.starts_with('{') || step == segment)
}

/// Which segments are literal, comparable from the first on.
fn literals(row: &Operation) -> Vec<bool> {
    segments(row.path)
        .map(|step| !step.starts_with('{'))
        .collect()
}

fn assert_params(found: &Match, below: &str) {
    let mut wanted: Vec<(&str, String)> = Vec::new();
    for (step, segment) in segments(found.operation.path).zip(segments(below)) {
        if let Some(name) = step
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
        {
            let value = percent_decode_str(segment).decode_utf8_lossy();
            wanted.push((name, value.into_owned()));
        }
    }
    for (name, _) in &wanted {
        // A name that a template has twice is asked for by its first.
        let value = wanted.iter().find(|(known, _)| known == name);
        assert_eq!(
            found.param(name),
            value.map(|(_, value)| value.as_str()),
            "{name}"
        );
    }
    assert_eq!(found.param("nothing"), None);
}

//! A request's target: refused, or one form that gateway and engine read alike.

use bpmgate::layer::{MatchOperationLayer, NormalizePathLayer, RewritePathLayer};
use bpmgate::operation::{Catalogue, Matched};
use bpmgate::path::normalize;
use bpmgate::problem::Problem;
use futures_util::FutureExt;
use http::{Request, Response, Uri};
use percent_encoding::percent_decode_str;
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// The input is a request's target; its path is also tried without the limits of a target.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(normal) = normalize(text) {
        assert_normal(text, &normal);
    }
    if let Ok(uri) = Uri::try_from(text) {
        assert_forwarded_as_matched(&uri);
    }
}

fn assert_normal(path: &str, normal: &str) {
    assert_eq!(normalize(normal).as_deref(), Ok(normal), "not idempotent");
    assert!(normal.starts_with('/') && (normal == "/" || !normal.ends_with('/')));
    assert!(normal.is_ascii() && !normal.contains([';', '\\', '?', '#', ' ']));
    let decoded = |path: &str| {
        let bytes: Vec<u8> = percent_decode_str(path).collect();
        String::from_utf8(bytes).expect("UTF-8")
    };
    for segment in normal.split('/').skip(1) {
        assert!(!segment.is_empty() || normal == "/", "an empty segment");
        let plain = decoded(segment);
        assert!(![".", ".."].contains(&&*plain), "a dot segment");
        assert!(
            !plain.contains(['/', '\\']) && !plain.chars().any(|sign| sign.is_ascii_control()),
            "a segment that is two: {plain:?}"
        );
        for escape in segment.split('%').skip(1) {
            let digits = escape.get(..2).expect("two digits");
            let value = u8::from_str_radix(digits, 16).expect("two digits");
            assert_eq!(digits, format!("{value:02X}"));
            assert!(
                !value.is_ascii_alphanumeric() && !b"-._~".contains(&value),
                "an escape of what needs none: {digits}"
            );
        }
    }
    let without_slash = path.strip_suffix('/').filter(|rest| !rest.is_empty());
    assert_eq!(
        decoded(normal),
        decoded(without_slash.unwrap_or(path)),
        "another path"
    );
}

/// What reaches the engine is what the catalogue was asked about.
fn assert_forwarded_as_matched(target: &Uri) {
    let prefixes = || vec!["/api".to_owned()];
    let engine = service_fn(|request: Request<()>| async move {
        let matched = request.extensions().get::<Matched>();
        let operation = matched.map(|matched| match matched {
            Matched::Operation(found) => Some(found.operation.id),
            Matched::OtherMethods(_) | Matched::Unknown => None,
        });
        let operation = operation.expect("a request that was matched");
        Ok::<_, Problem>(Response::new((request.uri().clone(), operation)))
    });
    let gateway = ServiceBuilder::new()
        .layer(NormalizePathLayer::new())
        .layer(MatchOperationLayer::new(prefixes()))
        .layer(RewritePathLayer::new(prefixes(), "/engine-rest"))
        .service(engine);
    let request = Request::post(target.clone())
        .body(())
        .expect("a request of a valid target");
    let answer = gateway.oneshot(request).now_or_never();
    let Ok(answer) = answer.expect("nothing to wait for") else {
        return;
    };
    let (forwarded, operation) = answer.into_body();
    let normal = normalize(target.path()).expect("only what is normal goes on");
    let below = normal.strip_prefix("/api").expect("below the prefix");
    assert_eq!(forwarded.path(), format!("/engine-rest{below}"));
    assert_eq!(forwarded.query(), target.query());
    assert!(forwarded.authority().is_none());
    let found = match Catalogue::builtin().find(&http::Method::POST, below) {
        Matched::Operation(found) => Some(found.operation.id),
        Matched::OtherMethods(_) | Matched::Unknown => None,
    };
    assert_eq!(operation, found, "another operation than is forwarded");
}

//! The demo's page: the built example frontend, out of the binary, at `/demo` of the gateway's own address.
//!
//! It is there with the feature `demo-app`, where `examples/frontend` was built before bpmgate was. What the
//! page must know, where to sign in, it reads from `/demo/config.json`.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response};
use serde_json::json;

use super::sign_in::Client;
use crate::body::Body;
use crate::layer::Pages;

/// Where the page is.
pub const PATH: &str = "/demo";

/// The frontend as the issuer knows it, when the gateway is at this port.
///
/// The page may also come from Vite's own server, as one works on it.
#[must_use]
pub fn client(port: u16) -> Client {
    let origins = ["127.0.0.1", "localhost"]
        .into_iter()
        .flat_map(|host| [port, VITE_PORT].map(|port| format!("http://{host}:{port}{PATH}/")));
    Client {
        id: "bpmgate-demo-app".to_owned(),
        redirects: origins.collect(),
    }
}

/// The page, for people who sign in at this issuer; `None` where it was not built in.
#[must_use]
pub fn pages(issuer: &str, client: &Client) -> Option<Pages> {
    file(INDEX)?;
    serve(file, issuer, client)
}

/// A file of the page, with its media type.
struct File {
    content: Bytes,
    kind: String,
}

fn serve(file: fn(&str) -> Option<File>, issuer: &str, client: &Client) -> Option<Pages> {
    let config = json!({"issuer": issuer, "clientId": client.id});
    let config = Bytes::from(config.to_string());
    let policy = HeaderValue::try_from(policy(issuer)).ok()?;
    Some(Pages::new(PATH, move |rest| {
        let name = match rest.trim_start_matches('/') {
            "" => INDEX,
            name => name,
        };
        let File { content, kind } = if name == CONFIG {
            File {
                content: config.clone(),
                kind: "application/json".to_owned(),
            }
        } else {
            file(name)?
        };
        let mut answer = Response::new(Body::from(content));
        let headers = answer.headers_mut();
        let charset = if kind.starts_with("text/") {
            "; charset=utf-8"
        } else {
            ""
        };
        headers.insert(CONTENT_TYPE, HeaderValue::try_from(kind + charset).ok()?);
        // The names of assets change with what is in them.
        let kept = if name.starts_with("assets/") {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(kept));
        headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        Some(answer)
    }))
}

/// The page runs what came with it, and talks to gateway and issuer.
fn policy(issuer: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' {issuer}; \
         form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )
}

#[cfg(feature = "demo-app")]
fn file(name: &str) -> Option<File> {
    #[derive(rust_embed::RustEmbed)]
    #[folder = "examples/frontend/dist"]
    #[allow_missing = true]
    struct Built;

    let found = Built::get(name)?;
    Some(File {
        kind: found.metadata.mimetype().to_owned(),
        content: match found.data {
            std::borrow::Cow::Borrowed(data) => Bytes::from_static(data),
            std::borrow::Cow::Owned(data) => Bytes::from(data),
        },
    })
}

#[cfg(not(feature = "demo-app"))]
fn file(_: &str) -> Option<File> {
    None
}

const INDEX: &str = "index.html";
const CONFIG: &str = "config.json";
const VITE_PORT: u16 = 5173;

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::layer::Own;
    use crate::problem::Problem;

    fn built(name: &str) -> Option<File> {
        let (content, kind) = match name {
            INDEX => ("<!doctype html>", "text/html"),
            "assets/app-1a2b.js" => ("run()", "text/javascript"),
            "icon.svg" => ("<svg/>", "image/svg+xml"),
            _ => return None,
        };
        Some(File {
            content: Bytes::from_static(content.as_bytes()),
            kind: kind.to_owned(),
        })
    }

    async fn ask(method: &str, path: &str) -> Result<Response<Body>, Problem> {
        let engine = tower::service_fn(|_: Request<Body>| async {
            Err::<Response<Body>, _>(Problem::Internal)
        });
        let pages = serve(built, "http://127.0.0.1:4444", &client(8000));
        let own = Own::new(engine, "", None).with_pages(pages);
        let request = Request::builder().method(method).uri(path).body(());
        own.oneshot(request.unwrap()).await
    }

    #[tokio::test]
    async fn each_file_has_its_type_its_time_and_the_policy() {
        for (path, kind, kept, content) in [
            (
                "/demo",
                "text/html; charset=utf-8",
                "no-cache",
                "<!doctype html>",
            ),
            (
                "/demo/index.html",
                "text/html; charset=utf-8",
                "no-cache",
                "<!doctype html>",
            ),
            (
                "/demo/assets/app-1a2b.js",
                "text/javascript; charset=utf-8",
                "public, max-age=31536000, immutable",
                "run()",
            ),
            ("/demo/icon.svg", "image/svg+xml", "no-cache", "<svg/>"),
            (
                "/demo/config.json",
                "application/json",
                "no-cache",
                r#"{"clientId":"bpmgate-demo-app","issuer":"http://127.0.0.1:4444"}"#,
            ),
        ] {
            let answer = ask("GET", path).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()[CONTENT_TYPE], kind, "{path}");
            assert_eq!(answer.headers()[CACHE_CONTROL], kept, "{path}");
            assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
            let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
            assert!(policy.contains("connect-src 'self' http://127.0.0.1:4444;"));
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, content, "{path}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_404_and_nothing_can_be_sent() {
        for (method, path, code) in [
            ("GET", "/demo/none.js", "not_found"),
            ("GET", "/demo/assets", "not_found"),
            ("GET", "/demonstration", "not_found"),
            ("POST", "/demo", "method_not_allowed"),
            ("DELETE", "/demo/config.json", "method_not_allowed"),
        ] {
            assert_eq!(ask(method, path).await.unwrap_err().code(), code, "{path}");
        }
        assert_eq!(ask("HEAD", "/demo").await.unwrap().status(), 200);
    }

    #[test]
    fn people_come_back_to_the_gateway_or_to_vite() {
        assert_eq!(
            client(8000).redirects,
            [
                "http://127.0.0.1:8000/demo/",
                "http://127.0.0.1:5173/demo/",
                "http://localhost:8000/demo/",
                "http://localhost:5173/demo/",
            ]
        );
    }
}

//! The page at `/docs`: the workflow API in Swagger UI, whose files are in the binary.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use utoipa_swagger_ui::Config;

use crate::body::Body;
use crate::problem::Problem;

/// The answer for a path below `/docs`, of which `file` is the rest; `/docs` itself leads to the page, below
/// `public_url` where it is given.
///
/// # Errors
/// 404 for what is no file of the page.
pub fn page(file: &str, public_url: Option<&str>) -> Result<Response<Body>, Problem> {
    let file = file.trim_start_matches('/');
    if file.is_empty() {
        let base = public_url.unwrap_or_default().trim_end_matches('/');
        let page = format!("{base}/docs/index.html");
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::FOUND;
        let location = HeaderValue::try_from(page).map_err(|_| Problem::Internal)?;
        answer.headers_mut().insert(LOCATION, location);
        return Ok(answer);
    }
    let found = utoipa_swagger_ui::serve(file, CONFIG.clone()).map_err(|_| Problem::Internal)?;
    let found = found.ok_or(Problem::NotFound)?;
    let content_type = HeaderValue::try_from(found.content_type).map_err(|_| Problem::Internal)?;
    let bytes = match found.bytes {
        // The files are large, and nobody knows how long they are being sent.
        Cow::Borrowed(file) => Bytes::from_static(file),
        Cow::Owned(file) => Bytes::from(file),
    };
    let mut answer = Response::new(Body::from(bytes));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // The files have no version in their names.
        (CACHE_CONTROL, "public, max-age=300"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(answer)
}

/// Nothing from elsewhere but the answers of the API, which `public_url` may put at another origin. The page
/// sets styles from its script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self' http: https:; frame-ancestors 'none'; base-uri 'none'; \
     form-action 'none'";

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("../openapi.json")
        // Without the bar that loads other documents.
        .use_base_layout()
        .try_it_out_enabled(true)
        .display_request_duration(true)
        .display_operation_id(true)
        .default_models_expand_depth(0)
        // It would tell a stranger which documents there are.
        .validator_url("none");
    Arc::new(config)
});

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn text(file: &str) -> String {
        let body = page(file, None)
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_page_and_its_files_come_from_here() {
        let html = text("/index.html").await;
        assert!(html.contains("swagger-ui"), "{html}");
        for part in html
            .split(['"', '\''])
            .filter(|part| part.starts_with("./"))
        {
            let file = part.trim_start_matches('.');
            assert_eq!(page(file, None).unwrap().status(), 200, "{file}");
        }
        assert!(!html.contains("//"), "nothing from elsewhere: {html}");
        assert!(
            text("/swagger-initializer.js")
                .await
                .contains("../openapi.json")
        );
    }

    #[tokio::test]
    async fn a_file_is_not_copied_for_each_request() {
        let mut places = Vec::new();
        for _ in 0..2 {
            let body = page("/swagger-ui-bundle.js", None).unwrap().into_body();
            places.push(body.collect().await.unwrap().to_bytes().as_ptr());
        }
        assert_eq!(places[0], places[1]);
    }

    #[test]
    fn the_short_path_leads_to_the_page() {
        for (public_url, want) in [
            (None, "/docs/index.html"),
            (
                Some("https://app.example/bpm/"),
                "https://app.example/bpm/docs/index.html",
            ),
        ] {
            assert_eq!(page("", public_url).unwrap().headers()[LOCATION], want);
        }
        assert_eq!(page("/nope", None).unwrap_err(), Problem::NotFound);
    }
}

//! The development issuer's page to sign in: `OpenID` Connect's authorization code flow with PKCE.
//!
//! A public client sends the browser to `/authorize`; there one chooses who one is, without a password,
//! and goes back with a code that `/token` exchanges once for tokens. Kept to, as a browser's library
//! relies on them: RFC 6749 §4.1, RFC 7636 with `S256` alone, RFC 9207, RFC 7009 for refresh tokens, which
//! are good once. A redirect goes only to an address that was registered, compared letter by letter.
//!
//! There is no session, so there is nothing to be signed out of but the client's own tokens.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::people::{PEOPLE, Person};
use super::{Body, lock, sized};

/// A frontend that may send people here. It is a public client: it has no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its `client_id`, which is the `aud` of its id tokens.
    pub id: String,
    /// The addresses that people may be sent back to.
    pub redirects: Vec<String>,
}

/// What an issuer needs to sign people in.
#[derive(Debug)]
pub(super) struct SignIn {
    client: Client,
    codes: Mutex<Grants<Code>>,
    refreshes: Mutex<Grants<Person>>,
}

/// What a code stands for.
#[derive(Debug)]
struct Code {
    person: Person,
    redirect: String,
    challenge: String,
    nonce: Option<String>,
}

/// Signs these claims; `iss` and `iat` are filled in, and `exp` where it is absent.
type Sign<'a> = &'a (dyn Fn(&Value) -> String + Sync);

impl SignIn {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            codes: Mutex::new(Grants::new(CODE_LIFE)),
            refreshes: Mutex::new(Grants::new(REFRESH_LIFE)),
        }
    }

    /// What the discovery document says of it (`OpenID` Connect Discovery §3, RFC 8414 §2).
    pub(super) fn metadata(issuer: &str) -> Value {
        json!({
            "authorization_endpoint": format!("{issuer}{AUTHORIZE}"),
            "token_endpoint": format!("{issuer}{TOKEN}"),
            "revocation_endpoint": format!("{issuer}{REVOKE}"),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "revocation_endpoint_auth_methods_supported": ["none"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nonce", "email", "name"],
            "authorization_response_iss_parameter_supported": true,
        })
    }

    /// Answers a request for one of its paths; `None` for any other.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        issuer: &str,
        sign: Sign<'_>,
    ) -> Option<Response<Body>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let methods: &[Method] = match path {
            STYLE => &[Method::GET],
            AUTHORIZE => &[Method::GET, Method::POST],
            TOKEN | REVOKE => &[Method::POST, Method::OPTIONS],
            _ => return None,
        };
        // A name that somebody else made point here speaks for nobody (DNS rebinding).
        if !is_own(head.headers.get(header::HOST), issuer) {
            return Some(plain(StatusCode::MISDIRECTED_REQUEST));
        }
        if !methods.contains(&head.method) {
            return Some(plain(StatusCode::METHOD_NOT_ALLOWED));
        }
        if path == STYLE {
            return Some(style());
        }
        if head.method == Method::OPTIONS {
            return Some(open_to_pages(plain(StatusCode::NO_CONTENT)));
        }
        let parameters = match parameters(&head, body).await {
            Ok(parameters) => parameters,
            Err(status) => return Some(plain(status)),
        };
        Some(match path {
            AUTHORIZE => self.authorize(&head, &parameters, issuer),
            TOKEN => open_to_pages(self.token(&parameters, sign)),
            _ => open_to_pages(self.revoke(&parameters)),
        })
    }

    /// Shows the page, or sends the one who chose there back with a code.
    fn authorize(&self, head: &Parts, given: &Parameters, issuer: &str) -> Response<Body> {
        // Whoever cannot be trusted with an answer gets none sent (RFC 6749 §4.1.2.1).
        let redirect = match (given.one("client_id"), given.one("redirect_uri")) {
            (Some(client), _) if client != self.client.id => {
                return refusal_page("No frontend with this client_id is known here.");
            }
            (Some(_), Some(redirect))
                if self.client.redirects.iter().any(|known| known == redirect) =>
            {
                redirect
            }
            (Some(_), Some(_)) => {
                return refusal_page("This redirect_uri is not one of the frontend's.");
            }
            (None, _) | (_, None) => {
                return refusal_page("One client_id and one redirect_uri are needed.");
            }
        };
        let back = |answer: &[(&str, &str)]| back_to(redirect, answer, given.one("state"), issuer);
        let challenge = match given.challenge() {
            Ok(challenge) => challenge,
            Err(error) => return see_other(&back(&[("error", error)])),
        };
        if head.method == Method::GET {
            let cancel = back(&[("error", "access_denied")]);
            return page(
                StatusCode::OK,
                &choice(given, &cancel),
                Some(&origin(redirect)),
            );
        }
        // Another site's page must not choose for the one who sits before it.
        let foreign = head
            .headers
            .get("sec-fetch-site")
            .is_some_and(|site| site != "same-origin");
        let chosen = given.one("person").unwrap_or_default();
        let person = PEOPLE.into_iter().find(|person| person.subject == chosen);
        let Some(person) = person.filter(|_| !foreign) else {
            return refusal_page("Choose one of the people on the page.");
        };
        let code = lock(&self.codes).put(Code {
            person,
            redirect: redirect.to_owned(),
            challenge: challenge.to_owned(),
            nonce: given.one("nonce").map(str::to_owned),
        });
        see_other(&back(&[("code", &code)]))
    }

    /// Exchanges a code or a refresh token for tokens (RFC 6749 §4.1.3, §6).
    fn token(&self, given: &Parameters, sign: Sign<'_>) -> Response<Body> {
        if given.one("client_id") != Some(self.client.id.as_str()) {
            return token_error("invalid_client");
        }
        let one = |name| given.one(name).unwrap_or_default();
        let (person, nonce) = match one("grant_type") {
            "authorization_code" => {
                // Taken whatever comes of it: a code is good for one try.
                let Some(code) = lock(&self.codes).take(one("code")) else {
                    return token_error("invalid_grant");
                };
                let verifier = one("code_verifier");
                if code.redirect != one("redirect_uri")
                    || !(43..=128).contains(&verifier.len())
                    || code.challenge != challenge_of(verifier)
                {
                    return token_error("invalid_grant");
                }
                (code.person, code.nonce)
            }
            "refresh_token" => match lock(&self.refreshes).take(one("refresh_token")) {
                Some(person) => (person, None),
                None => return token_error("invalid_grant"),
            },
            _ => return token_error("unsupported_grant_type"),
        };
        let life = TOKEN_LIFE.as_secs();
        let until = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() + life);
        let mut access = person.claims();
        if let Some(members) = access.as_object_mut() {
            members.insert("exp".to_owned(), json!(until));
            members.insert("client_id".to_owned(), json!(self.client.id));
            // No two are the same, however fast they are asked for.
            members.insert("jti".to_owned(), json!(random()));
        }
        let mut id = json!({
            "sub": person.subject, "email": person.email, "name": person.name,
            "aud": self.client.id, "exp": until,
        });
        if let (Some(nonce), Some(members)) = (nonce, id.as_object_mut()) {
            members.insert("nonce".to_owned(), json!(nonce));
        }
        let mut answer = json_answer(&json!({
            "access_token": sign(&access),
            "token_type": "Bearer",
            "expires_in": life,
            "id_token": sign(&id),
            "refresh_token": lock(&self.refreshes).put(person),
            "scope": "openid profile email",
        }));
        no_store(answer.headers_mut());
        answer
    }

    /// Forgets a refresh token, known or not (RFC 7009 §2.2). Access tokens live on till they expire.
    fn revoke(&self, given: &Parameters) -> Response<Body> {
        lock(&self.refreshes).take(given.one("token").unwrap_or_default());
        plain(StatusCode::OK)
    }
}

/// Things given out under a name that nobody can guess: for a while, once, and not too many.
#[derive(Debug)]
struct Grants<T> {
    life: Duration,
    /// The oldest first.
    given: VecDeque<(String, Instant, T)>,
}

impl<T> Grants<T> {
    fn new(life: Duration) -> Self {
        Self {
            life,
            given: VecDeque::new(),
        }
    }

    fn put(&mut self, grant: T) -> String {
        if self.given.len() >= MAX_GRANTS {
            self.given.pop_front();
        }
        let name = random();
        self.given.push_back((name.clone(), Instant::now(), grant));
        name
    }

    fn take(&mut self, name: &str) -> Option<T> {
        let place = self.given.iter().position(|(known, ..)| known == name)?;
        let (_, since, grant) = self.given.remove(place)?;
        (since.elapsed() < self.life).then_some(grant)
    }
}

/// The parameters of a query or a form.
#[derive(Debug)]
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn parse(encoded: &[u8]) -> Self {
        Self(form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// The value of a parameter that is given once and not empty (RFC 6749 §3.1).
    fn one(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(given, _)| given == name);
        let (_, value) = values.next()?;
        (values.next().is_none() && !value.is_empty()).then_some(value)
    }

    /// The PKCE challenge of a request that is as it must be, or the error that its sender is told.
    fn challenge(&self) -> Result<&str, &'static str> {
        let repeated =
            |(name, value): &(String, String)| self.one(name).is_none() && !value.is_empty();
        if self.0.iter().any(repeated) {
            return Err("invalid_request");
        }
        let scopes = self.one("scope").unwrap_or_default();
        match self.one("response_type") {
            Some("code") => {}
            Some(_) => return Err("unsupported_response_type"),
            None => return Err("invalid_request"),
        }
        if !scopes.split(' ').any(|scope| scope == "openid") {
            return Err("invalid_scope");
        }
        if self
            .one("response_mode")
            .is_some_and(|mode| mode != "query")
            || self.one("code_challenge_method") != Some("S256")
        {
            return Err("invalid_request");
        }
        // Nobody is ever signed in here without having been asked.
        if self.one("prompt") == Some("none") {
            return Err("login_required");
        }
        self.one("code_challenge")
            .filter(|challenge| challenge.len() == CHALLENGE_LENGTH)
            .ok_or("invalid_request")
    }
}

/// The parameters of a request: its query, or its form.
async fn parameters(head: &Parts, body: Incoming) -> Result<Parameters, StatusCode> {
    if head.method != Method::POST {
        return Ok(Parameters::parse(
            head.uri.query().unwrap_or_default().as_bytes(),
        ));
    }
    let kind = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default();
    if !kind
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let form = tokio::time::timeout(PATIENCE, Limited::new(body, MAX_FORM).collect());
    match form.await {
        Ok(Ok(form)) => Ok(Parameters::parse(&form.to_bytes())),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// Whether `Host` names the issuer as it names itself.
fn is_own(host: Option<&HeaderValue>, issuer: &str) -> bool {
    let own = issuer.strip_prefix("http://").unwrap_or(issuer);
    host.is_some_and(|host| host.as_bytes() == own.as_bytes())
}

/// The address to send the browser back to.
fn back_to(redirect: &str, answer: &[(&str, &str)], state: Option<&str>, issuer: &str) -> String {
    let joint = if redirect.contains('?') { '&' } else { '?' };
    let mut query = Serializer::new(String::new());
    query.extend_pairs(answer);
    query.extend_pairs(state.map(|state| ("state", state)));
    // RFC 9207: so that a client of several issuers knows whose answer it is.
    query.append_pair("iss", issuer);
    format!("{redirect}{joint}{}", query.finish())
}

fn see_other(address: &str) -> Response<Body> {
    let mut answer = plain(StatusCode::SEE_OTHER);
    if let Ok(address) = HeaderValue::from_str(address) {
        answer.headers_mut().insert(header::LOCATION, address);
    }
    no_store(answer.headers_mut());
    answer
}

/// The page's main part: the people, each a button that sends the request again with a name.
fn choice(given: &Parameters, cancel: &str) -> String {
    use std::fmt::Write as _;
    let mut fields = String::new();
    for (name, value) in &given.0 {
        let (name, value) = (escape(name), escape(value));
        let _ = writeln!(
            fields,
            "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">"
        );
    }
    let mut people = String::new();
    for Person {
        subject,
        name,
        part,
        ..
    } in PEOPLE
    {
        let initial = name.chars().next().unwrap_or_default();
        let _ = writeln!(
            people,
            "<li><button name=\"person\" value=\"{subject}\"><span class=\"initial\" aria-hidden=\"true\">{initial}</span>\
             <span class=\"name\">{name}</span> <span class=\"part\">{part}</span></button></li>"
        );
    }
    format!(
        "<h1>Sign in to the bpmgate demo</h1>\n<p>Choose who you are. Nobody has a password here.</p>\n\
         <form method=\"post\" action=\"{AUTHORIZE}\">\n{fields}<ul>\n{people}</ul>\n</form>\n\
         <p class=\"note\"><a href=\"{}\">Back without signing in</a></p>",
        escape(cancel)
    )
}

fn refusal_page(why: &str) -> Response<Body> {
    let content = format!("<h1>This sign-in cannot go on</h1>\n<p>{}</p>", escape(why));
    page(StatusCode::BAD_REQUEST, &content, None)
}

/// A page that may load its style, and send its form here and on to `target`, and nothing else.
fn page(status: StatusCode, content: &str, target: Option<&str>) -> Response<Body> {
    let html = include_str!("sign_in/page.html").replace("{{content}}", content);
    let mut answer = Response::new(sized(html));
    *answer.status_mut() = status;
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self' {}; frame-ancestors 'none'; base-uri 'none'",
        target.unwrap_or_default()
    );
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    no_store(headers);
    answer
}

fn style() -> Response<Body> {
    let mut answer = Response::new(sized(include_str!("sign_in/page.css")));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/css; charset=utf-8"),
    );
    answer
}

fn json_answer(value: &Value) -> Response<Body> {
    let mut answer = Response::new(sized(value.to_string()));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

/// RFC 6749 §5.2.
fn token_error(error: &str) -> Response<Body> {
    let mut answer = json_answer(&json!({"error": error}));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    no_store(answer.headers_mut());
    answer
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(sized(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// Lets pages of any origin read an answer. No cookie comes along, so nothing is shown that was not asked for by name.
pub(super) fn open_to_pages(mut answer: Response<Body>) -> Response<Body> {
    let any = HeaderValue::from_static("*");
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, any);
    answer
}

fn no_store(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Scheme, host and port of an address.
fn origin(address: &str) -> String {
    let parsed = address.parse::<Uri>().ok().map(Uri::into_parts);
    parsed
        .and_then(|parts| Some(format!("{}://{}", parts.scheme?, parts.authority?)))
        .unwrap_or_default()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// RFC 7636 §4.2, `S256`.
fn challenge_of(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

#[expect(
    clippy::expect_used,
    reason = "the system's generator works, or no key could have been made"
)]
fn random() -> String {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).expect("the system gives random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

const AUTHORIZE: &str = "/authorize";
const TOKEN: &str = "/token";
const REVOKE: &str = "/revoke";
const STYLE: &str = "/sign-in.css";

/// How long a code may wait for its exchange.
const CODE_LIFE: Duration = Duration::from_mins(1);
/// How long a refresh token may lie unused.
const REFRESH_LIFE: Duration = Duration::from_hours(8);
/// Short, so that a frontend shows that it renews them.
const TOKEN_LIFE: Duration = Duration::from_mins(5);
/// Codes, and refresh tokens, that are kept; the oldest give way.
const MAX_GRANTS: usize = 200;
const MAX_FORM: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);
/// A SHA-256 in base64url.
const CHALLENGE_LENGTH: usize = 43;

#[cfg(test)]
mod tests;

//! A development issuer: signs tokens and publishes its keys over HTTP, as an identity provider does.
//!
//! It serves `/.well-known/openid-configuration` and `/.well-known/jwks.json` (RFC 7517) and signs with
//! RS256 under an RSA key of 2048 bits made at start. Whoever runs it can sign for anybody, so it is for
//! trying out and for tests; no configuration names it. With [`Issuer::offer_sign_in`] it also has a page
//! on which people sign in for a frontend.
//!
//! [`Issuer::set_fault`] makes the key set misbehave the way identity providers do on bad days.

use std::fmt;
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::listening::{ANY_LOOPBACK_PORT, Listening};
use super::sign_in::{Client, SignIn, open_to_pages};
use super::{Body, lock, sized, unsized_body};

/// An issuer that runs until it is dropped.
#[derive(Debug)]
pub struct Issuer {
    listening: Listening,
    shared: Arc<Shared>,
}

/// What the key set's address does instead of answering well.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing: the key set is answered.
    None,
    /// This status, with a short text.
    Status(StatusCode),
    /// Takes the request and never answers.
    Hang,
    /// Closes the connection without an answer.
    Close,
    /// A redirect (302) to this address.
    Redirect(String),
    /// A valid key set padded with blanks to this many bytes.
    TooLarge(usize),
    /// The key set without `Content-Length`, in chunks.
    NoContentLength,
    /// An endless chunked answer: blanks for ever.
    Endless,
    /// The key set byte by byte, with this pause before each.
    Slow(Duration),
    /// A 200 answer with this text in place of the key set.
    Text(&'static str),
}

/// What becomes of the keys so far when a new one is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldKeys {
    /// They stay in the key set, as in an orderly rotation.
    Kept,
    /// They vanish, as after a leak.
    Gone,
}

impl Issuer {
    /// Makes a key and listens on a loopback port.
    ///
    /// # Errors
    /// When no port can be bound or no key can be made.
    pub async fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            keys: Mutex::new(vec![Key::generate(1)?]),
            made: AtomicUsize::new(1),
            fault: Mutex::new(Fault::None),
            fetches: AtomicUsize::new(0),
            discoveries: AtomicUsize::new(0),
            sign_in: OnceLock::new(),
        });
        let served = Arc::clone(&shared);
        let listening = Listening::start(ANY_LOOPBACK_PORT, move |_, stream| {
            let shared = Arc::clone(&served);
            async move {
                let local = stream.local_addr();
                let service = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    let url = local
                        .as_ref()
                        .map_or_else(|_| String::new(), |local| format!("http://{local}"));
                    async move { shared.answer(request, &url).await }
                });
                // A client that goes away is not worth a word.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        })
        .await?;
        Ok(Self { listening, shared })
    }

    /// The issuer's name, which is its address: the `iss` of its tokens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.listening.address())
    }

    /// Where the keys are.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        format!("{}{JWKS_PATH}", self.url())
    }

    /// The key set as it is published now, whatever fault is set.
    #[must_use]
    pub fn jwks(&self) -> Value {
        self.shared.jwks()
    }

    /// The id of the key that signs now.
    #[must_use]
    pub fn kid(&self) -> String {
        self.shared.signing_key().kid
    }

    /// A signed token with these claims; `iss`, `iat` and `exp` (one hour from now) are filled in where absent.
    #[must_use]
    pub fn token(&self, claims: &Value) -> String {
        self.shared.token(claims, &self.url())
    }

    /// A signed token for a person with these three claims: `sub`, `email`, `name`.
    #[must_use]
    pub fn token_for(&self, subject: &str, email: &str, name: &str) -> String {
        self.token(&json!({"sub": subject, "email": email, "name": name}))
    }

    /// Lets people sign in for this frontend from now on. The first one given stays.
    pub fn offer_sign_in(&self, client: Client) {
        let _ = self.shared.sign_in.set(SignIn::new(client));
    }

    /// Signs this header and these claims as they are, well formed or not.
    #[must_use]
    pub fn sign(&self, header: &[u8], claims: &[u8]) -> String {
        self.shared.signing_key().sign(header, claims)
    }

    /// Makes a new key, which signs from now on, and returns its id.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn rotate(&self, old: OldKeys) -> io::Result<String> {
        let key = Key::generate(self.shared.made.fetch_add(1, Ordering::SeqCst) + 1)?;
        let kid = key.kid.clone();
        let mut keys = lock(&self.shared.keys);
        if old == OldKeys::Gone {
            keys.clear();
        }
        keys.push(key);
        Ok(kid)
    }

    /// How often the key set was asked for, answered or not.
    #[must_use]
    pub fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// How often the discovery document was asked for.
    #[must_use]
    pub fn discoveries(&self) -> usize {
        self.shared.discoveries.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.listening.accepted()
    }

    /// Makes the key set's address misbehave from now on; [`Fault::None`] heals it.
    pub fn set_fault(&self, fault: Fault) {
        *lock(&self.shared.fault) = fault;
    }
}

/// What the connections share with the handle.
struct Shared {
    /// The last one signs.
    keys: Mutex<Vec<Key>>,
    made: AtomicUsize,
    fault: Mutex<Fault>,
    fetches: AtomicUsize,
    discoveries: AtomicUsize,
    sign_in: OnceLock<SignIn>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids: Vec<String> = lock(&self.keys).iter().map(|key| key.kid.clone()).collect();
        f.debug_struct("Shared")
            .field("kids", &kids)
            .finish_non_exhaustive()
    }
}

impl Shared {
    #[expect(
        clippy::expect_used,
        reason = "the list starts with a key and rotation always adds one"
    )]
    fn signing_key(&self) -> Key {
        lock(&self.keys)
            .last()
            .cloned()
            .expect("there is always a key")
    }

    fn jwks(&self) -> Value {
        json!({"keys": lock(&self.keys).iter().map(Key::public).collect::<Vec<_>>()})
    }

    /// Signs these claims, with `iss`, `iat` and `exp` filled in where absent.
    fn token(&self, claims: &Value, issuer: &str) -> String {
        let key = self.signing_key();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut claims = claims.clone();
        if let Some(members) = claims.as_object_mut() {
            members.entry("iss").or_insert_with(|| json!(issuer));
            members.entry("iat").or_insert_with(|| json!(now));
            members
                .entry("exp")
                .or_insert_with(|| json!(now + TOKEN_LIFE_SECONDS));
        }
        key.sign(
            json!({"alg": "RS256", "typ": "JWT", "kid": key.kid})
                .to_string()
                .as_bytes(),
            claims.to_string().as_bytes(),
        )
    }

    async fn answer(&self, request: Request<Incoming>, url: &str) -> io::Result<Response<Body>> {
        match request.uri().path() {
            DISCOVERY_PATH => {
                self.discoveries.fetch_add(1, Ordering::SeqCst);
                let mut document = json!({
                    "issuer": url,
                    "jwks_uri": format!("{url}{JWKS_PATH}"),
                    "id_token_signing_alg_values_supported": ["RS256"],
                    "response_types_supported": ["id_token"],
                    "subject_types_supported": ["public"],
                });
                if let (Some(_), Some(members), Value::Object(more)) = (
                    self.sign_in.get(),
                    document.as_object_mut(),
                    SignIn::metadata(url),
                ) {
                    members.extend(more);
                }
                Ok(open_to_pages(json_answer(sized(document.to_string()))))
            }
            JWKS_PATH => {
                self.fetches.fetch_add(1, Ordering::SeqCst);
                let fault = lock(&self.fault).clone();
                Ok(open_to_pages(fault.apply(self.jwks().to_string()).await?))
            }
            _ => {
                let answer = match self.sign_in.get() {
                    Some(sign_in) => {
                        let sign = |claims: &Value| self.token(claims, url);
                        sign_in.answer(request, url, &sign).await
                    }
                    None => None,
                };
                Ok(answer.unwrap_or_else(|| status_answer(StatusCode::NOT_FOUND)))
            }
        }
    }
}

impl Fault {
    /// Answers with this key set, spoilt.
    ///
    /// # Errors
    /// For [`Fault::Close`]: hyper then closes the connection.
    async fn apply(self, jwks: String) -> io::Result<Response<Body>> {
        Ok(match self {
            Self::None => json_answer(sized(jwks)),
            Self::Status(status) => status_answer(status),
            Self::Hang => {
                pending::<()>().await;
                status_answer(StatusCode::GATEWAY_TIMEOUT)
            }
            Self::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
            Self::Redirect(to) => {
                let mut answer = status_answer(StatusCode::FOUND);
                if let Ok(to) = HeaderValue::from_str(&to) {
                    answer.headers_mut().insert(header::LOCATION, to);
                }
                answer
            }
            Self::TooLarge(bytes) => {
                let mut jwks = jwks.into_bytes();
                jwks.resize(bytes.max(jwks.len()), b' ');
                json_answer(sized(jwks))
            }
            Self::NoContentLength => json_answer(unsized_body(stream::iter([Ok(Frame::data(
                Bytes::from(jwks),
            ))]))),
            Self::Endless => {
                let blanks = Bytes::from(vec![b' '; 16 * 1024]);
                json_answer(unsized_body(stream::repeat_with(move || {
                    Ok(Frame::data(blanks.clone()))
                })))
            }
            Self::Slow(pause) => {
                let bytes = Bytes::from(jwks);
                json_answer(unsized_body(stream::unfold(
                    bytes,
                    move |mut left| async move {
                        if left.is_empty() {
                            return None;
                        }
                        tokio::time::sleep(pause).await;
                        Some((Ok(Frame::data(left.split_to(1))), left))
                    },
                )))
            }
            Self::Text(text) => json_answer(sized(text)),
        })
    }
}

/// One signing key with the id under which it is published.
#[derive(Clone)]
struct Key {
    kid: String,
    pair: Arc<KeyPair>,
}

impl Key {
    fn generate(number: usize) -> io::Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048)
            .map_err(|_| io::Error::other("the RSA key could not be made"))?;
        // A key id of an earlier run must not name a key of this one in somebody's cache.
        let kid = format!("demo-{number}-{}", uuid::Uuid::now_v7().simple());
        Ok(Self {
            kid,
            pair: Arc::new(pair),
        })
    }

    /// The public half as a JSON Web Key (RFC 7517, RFC 7518 §6.3.1).
    fn public(&self) -> Value {
        let public = self.pair.public_key();
        json!({
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.kid,
            "n": URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
            "e": URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
        })
    }

    /// The compact serialization (RFC 7515 §7.1).
    #[expect(
        clippy::expect_used,
        reason = "a generated key signs any message; the buffer has the modulus' length"
    )]
    fn sign(&self, header: &[u8], claims: &[u8]) -> String {
        let mut token = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                token.as_bytes(),
                &mut signature,
            )
            .expect("a generated key signs");
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

fn json_answer(body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

fn status_answer(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(sized(status.to_string()));
    *answer.status_mut() = status;
    answer
}

const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
const JWKS_PATH: &str = "/.well-known/jwks.json";
const TOKEN_LIFE_SECONDS: u64 = 3600;

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
    use tokio::time::timeout;

    use super::super::testing::{fetch, get};
    use super::*;

    async fn published_keys(issuer: &Issuer) -> JwkSet {
        serde_json::from_slice(&get(&issuer.jwks_url()).await.unwrap().into_body()).unwrap()
    }

    fn verified(token: &str, keys: &JwkSet, issuer: &str) -> jsonwebtoken::errors::Result<Value> {
        let kid = decode_header(token)?.kid.unwrap();
        let key = keys
            .find(&kid)
            .ok_or(jsonwebtoken::errors::ErrorKind::InvalidSignature)?;
        let mut rules = Validation::new(Algorithm::RS256);
        rules.set_issuer(&[issuer]);
        Ok(decode::<Value>(token, &DecodingKey::from_jwk(key)?, &rules)?.claims)
    }

    #[tokio::test]
    async fn tokens_verify_with_the_published_keys_and_no_others() {
        let issuer = Issuer::start().await.unwrap();
        let other = Issuer::start().await.unwrap();
        let token = issuer.token_for("alice", "alice@example.org", "Alice Example");
        let claims = verified(&token, &published_keys(&issuer).await, &issuer.url()).unwrap();
        assert_eq!(claims["sub"], "alice");
        assert_eq!(claims["email"], "alice@example.org");
        assert_eq!(claims["name"], "Alice Example");
        assert_eq!(
            claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
            3600
        );
        assert!(verified(&token, &published_keys(&other).await, &issuer.url()).is_err());
        assert_eq!((issuer.fetches(), other.fetches()), (1, 1));
    }

    #[tokio::test]
    async fn given_claims_win_over_filled_in_ones() {
        let issuer = Issuer::start().await.unwrap();
        let token = issuer.token(
            &json!({"sub": "a", "iss": "https://elsewhere.example", "exp": 4_000_000_000_u64}),
        );
        let claims = verified(
            &token,
            &published_keys(&issuer).await,
            "https://elsewhere.example",
        )
        .unwrap();
        assert_eq!(claims["exp"], 4_000_000_000_u64);
    }

    #[tokio::test]
    async fn discovery_names_issuer_and_key_set() {
        let issuer = Issuer::start().await.unwrap();
        let answer = get(&format!(
            "{}/.well-known/openid-configuration",
            issuer.url()
        ))
        .await
        .unwrap();
        let document: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(document["issuer"], issuer.url());
        assert_eq!(document["jwks_uri"], issuer.jwks_url());
        assert_eq!((issuer.discoveries(), issuer.fetches()), (1, 0));
    }

    #[tokio::test]
    async fn rotation_keeps_or_drops_the_old_key() {
        let issuer = Issuer::start().await.unwrap();
        let first = issuer.kid();
        let second = issuer.rotate(OldKeys::Kept).unwrap();
        let keys = published_keys(&issuer).await;
        assert!(keys.find(&first).is_some() && keys.find(&second).is_some());
        let third = issuer.rotate(OldKeys::Gone).unwrap();
        let keys = published_keys(&issuer).await;
        assert!(
            keys.find(&first).is_none()
                && keys.find(&second).is_none()
                && keys.find(&third).is_some()
        );
        assert_eq!(issuer.kid(), third);
        assert!(verified(&issuer.token(&json!({"sub": "a"})), &keys, &issuer.url()).is_ok());
    }

    #[tokio::test]
    async fn each_fault_shows_on_the_wire() {
        let issuer = Issuer::start().await.unwrap();
        let url = issuer.jwks_url();
        issuer.set_fault(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
        assert_eq!(get(&url).await.unwrap().status(), 500);
        issuer.set_fault(Fault::Redirect("http://127.0.0.2:1/keys".into()));
        let answer = get(&url).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (302, &HeaderValue::from_static("http://127.0.0.2:1/keys"))
        );
        issuer.set_fault(Fault::TooLarge(200_000));
        assert_eq!(get(&url).await.unwrap().body().len(), 200_000);
        issuer.set_fault(Fault::NoContentLength);
        let answer = get(&url).await.unwrap();
        assert_eq!(answer.headers().get("content-length"), None);
        assert_eq!(*answer.body(), issuer.jwks().to_string().into_bytes());
        issuer.set_fault(Fault::Text("<html>"));
        assert_eq!(get(&url).await.unwrap().body(), "<html>");
        issuer.set_fault(Fault::Close);
        assert!(get(&url).await.is_err());
        issuer.set_fault(Fault::Hang);
        assert!(
            timeout(Duration::from_millis(100), get(&url))
                .await
                .is_err()
        );
        issuer.set_fault(Fault::Slow(Duration::from_secs(1)));
        assert!(
            timeout(Duration::from_secs(10), fetch(&url))
                .await
                .unwrap()
                .is_ok(),
            "headers come at once"
        );
        assert!(
            timeout(Duration::from_millis(100), get(&url))
                .await
                .is_err(),
            "the body takes minutes"
        );
        issuer.set_fault(Fault::None);
        assert_eq!(get(&url).await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn dropping_it_closes_its_port() {
        let issuer = Issuer::start().await.unwrap();
        let url = issuer.jwks_url();
        get(&url).await.unwrap();
        drop(issuer);
        let closed = async {
            while get(&url).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), closed).await.unwrap();
    }

    #[tokio::test]
    async fn debug_output_names_keys_only_by_id() {
        let issuer = Issuer::start().await.unwrap();
        let shown = format!("{issuer:?}");
        assert!(shown.contains(&issuer.kid()));
        assert!(
            !shown.contains("KeyPair") && !shown.contains("RsaKey"),
            "{shown}"
        );
    }
}

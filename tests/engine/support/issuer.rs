//! An issuer of tokens with real keys and a real JWKS URL.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Somebody with a token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Person {
    pub(crate) id: &'static str,
    pub(crate) email: &'static str,
    pub(crate) name: &'static str,
}

/// Who calls in most tests; her name is not ASCII.
pub(crate) const ADA: Person = Person {
    id: "user_ada",
    email: "ada@example.org",
    name: "Ada Lovelace-Bÿrön 🧮",
};

/// Whom the bodies claim to be.
pub(crate) const MALLORY: Person = Person {
    id: "mallory",
    email: "mallory@example.org",
    name: "Mallory",
};

/// An issuer; its server ends with the test's runtime.
pub(crate) struct Issuer {
    address: SocketAddr,
    key: Mutex<Key>,
    published: Arc<Published>,
}

struct Key {
    id: String,
    private: EncodingKey,
}

#[derive(Default)]
struct Published {
    keys: Mutex<Vec<u8>>,
    fetches: AtomicUsize,
}

impl Issuer {
    pub(crate) const AUDIENCE: &str = "bpmgate-acceptance";

    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let published = Arc::new(Published::default());
        tokio::spawn(serve(listener, Arc::clone(&published)));
        let issuer = Self {
            address,
            key: Mutex::new(Key::generate("first")),
            published,
        };
        issuer.publish();
        issuer
    }

    /// The exact `iss` of its tokens.
    pub(crate) fn name(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn jwks_url(&self) -> String {
        format!("http://{}/.well-known/jwks.json", self.address)
    }

    /// How often its keys were fetched.
    pub(crate) fn fetches(&self) -> usize {
        self.published.fetches.load(Ordering::SeqCst)
    }

    /// Signs with a new key from now on, and publishes that one alone.
    pub(crate) fn rotate(&self, key_id: &str) {
        *self.key.lock().unwrap() = Key::generate(key_id);
        self.publish();
    }

    /// `Bearer` and a good token of this person.
    pub(crate) fn bearer(&self, person: Person) -> String {
        self.bearer_with(person, &json!({}))
    }

    /// The same with these claims put in or, as null, taken out.
    pub(crate) fn bearer_with(&self, person: Person, changes: &Value) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut claims = json!({
            "iss": self.name(), "aud": Self::AUDIENCE, "sub": person.id, "iat": now, "exp": now + 600,
            "email": person.email, "name": person.name,
        });
        let members = claims.as_object_mut().unwrap();
        for (claim, value) in changes.as_object().unwrap() {
            members.insert(claim.clone(), value.clone());
        }
        members.retain(|_, value| !value.is_null());

        let key = self.key.lock().unwrap();
        let header = Header {
            kid: Some(key.id.clone()),
            ..Header::new(Algorithm::RS256)
        };
        format!("Bearer {}", encode(&header, &claims, &key.private).unwrap())
    }

    fn publish(&self) {
        let key = self.key.lock().unwrap();
        let mut public = Jwk::from_encoding_key(&key.private, Algorithm::RS256).unwrap();
        public.common.key_id = Some(key.id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        let set = JwkSet { keys: vec![public] };
        *self.published.keys.lock().unwrap() = serde_json::to_vec(&set).unwrap();
    }
}

impl Key {
    fn generate(id: &str) -> Self {
        let pair =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
        let private = EncodingKey::from_rsa_pem(pair.unwrap().serialize_pem().as_bytes()).unwrap();
        Self {
            id: id.to_owned(),
            private,
        }
    }
}

async fn serve(listener: TcpListener, published: Arc<Published>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let published = Arc::clone(&published);
        let answer = service_fn(move |_| {
            published.fetches.fetch_add(1, Ordering::SeqCst);
            let keys = Bytes::from(published.keys.lock().unwrap().clone());
            let answer = Response::builder().header("content-type", "application/jwk-set+json");
            async { Ok::<_, Infallible>(answer.body(Full::new(keys)).unwrap()) }
        });
        // A client that goes away is none of the issuer's business.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

use serde_json::json;
use tempfile::tempdir;

use super::super::tests::server::{Answer, Server};
use super::*;
use crate::token::tests::testing::{self, RSA, jwks, rsa_jwk};
use crate::token::{IssuerRules, Preset};

fn issuer_named(name: &str) -> Issuer {
    Issuer::new(IssuerRules::new(Preset::Clerk, name)).unwrap()
}

async fn fetch_url(url: &str) -> Result<KeySet, FetchError> {
    fetch(
        &testing::issuer(),
        &KeySource::JwksUrl(url.parse().unwrap()),
    )
    .await
    .map(|fetched| fetched.keys)
}

fn keys() -> Answer {
    Answer::Json(jwks(&[rsa_jwk("one", &RSA)]))
}

#[tokio::test]
async fn answer_that_is_no_key_set_is_refused() {
    let server = Server::start().await;
    for (answer, expected) in [
        (Answer::Status(404), "404"),
        (Answer::Status(500), "500"),
        (Answer::Status(204), "204"),
        (Answer::Json(b"<html>".to_vec()), "not strict JSON"),
        (Answer::Json(b"{}".to_vec()), "no array"),
        (Answer::Json(br#"{"keys":[]}"#.to_vec()), "no usable key"),
        (Answer::BreakOff, "broke off"),
    ] {
        server.answer("/keys", answer.clone());
        let error = fetch_url(&server.url("/keys"))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{answer:?}: {error}");
    }
    server.answer("/keys", keys());
    assert_eq!(fetch_url(&server.url("/keys")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn answer_over_one_mebibyte_is_refused_whether_announced_or_not() {
    let server = Server::start().await;
    server.answer("/announced", Answer::Json(vec![b' '; MAX_SET_BYTES + 1]));
    server.answer("/endless", Answer::Endless);
    for path in ["/announced", "/endless"] {
        let error = fetch_url(&server.url(path)).await.unwrap_err();
        assert!(
            matches!(error, FetchError::TooLarge(_)),
            "{path}: {error:?}"
        );
    }
}

#[tokio::test]
async fn redirect_to_another_host_is_refused_and_never_asked() {
    let (server, other) = (Server::start().await, Server::start().await);
    other.answer("/keys", keys());
    for target in [
        other.url("/keys"),
        other.url("/keys").replace("http://", "//"),
        other.url("/keys").replace("http://", "http://user@"),
        server.url("/keys").replace("http://", "https://"),
        server.url("/keys").replace("127.0.0.1", "localhost"),
        "file:///etc/passwd".to_owned(),
        "relative".to_owned(),
        String::new(),
    ] {
        server.answer("/from", Answer::Redirect(target.clone()));
        let error = fetch_url(&server.url("/from")).await.unwrap_err();
        assert!(
            matches!(error, FetchError::Redirect(_)),
            "{target}: {error:?}"
        );
    }
    server.answer("/from", Answer::Status(302));
    let error = fetch_url(&server.url("/from")).await.unwrap_err();
    assert!(
        matches!(error, FetchError::Redirect(_)),
        "without Location: {error:?}"
    );
    assert_eq!(other.hits(), 0, "the other host was asked");
}

#[tokio::test]
async fn three_redirects_on_the_same_host_are_followed_and_no_four() {
    let server = Server::start().await;
    server.answer("/keys", keys());
    server.answer("/1", Answer::Redirect("/keys".to_owned()));
    server.answer("/2", Answer::Redirect(server.url("/1")));
    server.answer("/3", Answer::Redirect("/2".to_owned()));
    server.answer("/4", Answer::Redirect("/3".to_owned()));
    assert_eq!(fetch_url(&server.url("/3")).await.unwrap().len(), 1);
    let error = fetch_url(&server.url("/4")).await.unwrap_err();
    assert!(matches!(error, FetchError::Redirects(_)), "{error:?}");
}

#[tokio::test]
async fn discovery_takes_only_the_issuers_own_document() {
    let server = Server::start().await;
    server.answer("/keys", keys());
    let name = server.url("/realms/one");
    let at = "/realms/one/.well-known/openid-configuration";
    let discover =
        |name: String| async move { fetch(&issuer_named(&name), &KeySource::Discovery).await };
    for (document, expected) in [
        (
            json!({"issuer": server.url("/realms/two"), "jwks_uri": server.url("/keys")}),
            "not that of the issuer",
        ),
        (
            json!({"issuer": format!("{name}/"), "jwks_uri": server.url("/keys")}),
            "not that of the issuer",
        ),
        (
            json!({"jwks_uri": server.url("/keys")}),
            "not that of the issuer",
        ),
        (json!({"issuer": name}), "jwks_uri"),
        (json!({"issuer": name, "jwks_uri": "/keys"}), "jwks_uri"),
        (
            json!({"issuer": name, "jwks_uri": "file:///keys"}),
            "jwks_uri",
        ),
        (json!([]), "no object"),
    ] {
        server.answer(at, Answer::Json(document.to_string().into_bytes()));
        let error = discover(name.clone()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{document}: {error}");
    }
    let good = |name: &str| {
        Answer::Json(
            json!({"issuer": name, "jwks_uri": server.url("/keys")})
                .to_string()
                .into_bytes(),
        )
    };
    server.answer(at, good(&name));
    assert_eq!(discover(name.clone()).await.unwrap().keys.len(), 1);
    // Auth0's issuers end with a slash, which does not become two.
    let slash = format!("{name}/");
    server.answer(at, good(&slash));
    assert_eq!(discover(slash).await.unwrap().keys.len(), 1);

    for name in ["issuer", "https://", "https://issuer.example?a"] {
        let error = discover(name.to_owned()).await.unwrap_err();
        assert!(
            matches!(error, FetchError::IssuerUrl(_)),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn discovery_of_an_https_issuer_never_leads_to_plain_http() {
    let uri = |from: &str, to: &str| {
        let document = json!({"issuer": "i", "jwks_uri": to}).to_string();
        read_discovery(document.as_bytes(), "i", &from.parse().unwrap()).ok()
    };
    assert_eq!(uri("https://a.example/", "http://a.example/keys"), None);
    for (from, to) in [
        ("https://a.example/", "https://keys.example/"),
        ("http://a.example/", "http://a.example/keys"),
        ("http://a.example/", "https://a.example/keys"),
    ] {
        assert_eq!(uri(from, to), Some(to.parse().unwrap()), "{from} {to}");
    }
}

#[tokio::test]
async fn certificate_that_the_platform_does_not_trust_is_refused() {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/keys", listener.local_addr().unwrap());
    let handshake = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.map(drop)
    });
    let error = fetch_url(&url).await.unwrap_err();
    assert!(matches!(error, FetchError::Connection(..)), "{error:?}");
    assert!(handshake.await.unwrap().is_err(), "the client went on");
}

#[tokio::test]
async fn file_is_read_as_jwks_or_pem() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("keys");
    let read = || fetch_file(path.clone());
    assert!(matches!(read().await.unwrap_err(), FetchError::File(..)));
    std::fs::write(&path, vec![b' '; MAX_SET_BYTES + 10]).unwrap();
    assert!(matches!(
        read().await.unwrap_err(),
        FetchError::Keys(KeySetError::TooLarge(_))
    ));
    std::fs::write(&path, jwks(&[rsa_jwk("one", &RSA)])).unwrap();
    assert_eq!(read().await.unwrap().key_ids().collect::<Vec<_>>(), ["one"]);
    let pem = rcgen::KeyPair::generate().unwrap().public_key_pem();
    std::fs::write(&path, pem).unwrap();
    assert_eq!(read().await.unwrap().len(), 1);
}

async fn fetch_file(path: PathBuf) -> Result<KeySet, FetchError> {
    fetch(&testing::issuer(), &KeySource::File(path))
        .await
        .map(|fetched| fetched.keys)
}

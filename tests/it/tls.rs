//! An engine behind TLS: trusted by its own authority, and by no other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpmgate::body::Body;
use bpmgate::demo::engine::Engine;
use bpmgate::demo::issuer::Issuer;
use bpmgate::engine::{EngineClient, Nodes};
use bytes::Bytes;
use http::{Request, Response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::https::Pair;
use crate::problem::refused;
use crate::support::{
    AUDIENCE, Client, Gateway, Process, Protocol, World, alice, config, eventually, whole,
};

/// An authority with a certificate of its own.
pub(crate) fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Takes TLS off in front of an engine, with a certificate for this name; the port.
async fn tls_before(
    engine: &Engine,
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    asks_for_certificates: bool,
) -> u16 {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let provider = aws_lc_rs::default_provider();
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if asks_for_certificates {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let config = builder
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let engine = engine.address();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us goes away in the handshake.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut engine = TcpStream::connect(engine).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut engine).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn an_https_engine_is_trusted_by_the_configured_authority_alone() {
    let (ours, another) = (authority(), authority());
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let trusted = file("ours.pem", ours.pem());
    let both = file("both.pem", another.pem() + &ours.pem());
    let other = file("another.pem", another.pem());

    for (ca_file, name, passes) in [
        (Some(&trusted), "localhost", true),
        (Some(&both), "localhost", true),
        (Some(&other), "localhost", false),
        // the system's, which do not know our authority
        (None, "localhost", false),
        // the right authority, for another host
        (Some(&trusted), "engine.example", false),
    ] {
        let engine = Engine::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let port = tls_before(&engine, &ours, name, false).await;
        let mut config = config(&issuer, &format!("https://localhost:{port}/engine-rest"));
        config.engine.retry.attempts = 0;
        if let Some(ca_file) = ca_file {
            config.engine.ca_file.clone_from(ca_file);
        }
        let gateway = Gateway::start(&config).await;
        let client = Client::connect(gateway.address, Protocol::Http1).await;
        let request = Request::get("/api/version").header("authorization", alice(&issuer));
        let answer = client
            .send(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let answer = whole(answer).await.unwrap();
        if passes {
            assert_eq!(answer.status(), 200, "{ca_file:?} {name} {answer:?}");
            assert_eq!(engine.request_count(), 1);
        } else {
            assert_eq!(
                refused(&answer),
                (502, "engine_unreachable".to_owned()),
                "{ca_file:?} {name}"
            );
            assert_eq!(engine.connections(), 0, "no credentials go to a stranger");
        }
    }
}

#[tokio::test]
async fn a_file_without_a_certificate_is_refused_at_the_start() {
    let issuer = Issuer::start().await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    for text in [
        "",
        "no PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&file, text).unwrap();
        let mut config = config(&issuer, "https://localhost:1/engine-rest");
        file.path().clone_into(&mut config.engine.ca_file);
        assert!(
            EngineClient::from_config(&config, &Nodes::from_config(&config)).is_err(),
            "{text}"
        );
    }
}

#[tokio::test]
async fn an_engine_that_asks_for_a_certificate_is_shown_the_configured_one() {
    let (ours, another) = (authority(), authority());
    let directory = tempfile::tempdir().unwrap();
    let trusted = directory.path().join("ca.pem");
    std::fs::write(&trusted, ours.pem()).unwrap();
    let of = |authority| Pair::new(authority, "gateway");
    for (shown, passes) in [
        (Some(of(&ours)), true),
        (Some(of(&another)), false),
        (None, false),
    ] {
        let engine = Engine::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let port = tls_before(&engine, &ours, "localhost", true).await;
        let mut config = config(&issuer, &format!("https://localhost:{port}/engine-rest"));
        config.engine.retry.attempts = 0;
        config.engine.ca_file.clone_from(&trusted);
        if let Some(pair) = &shown {
            let (certificate, key) = pair.write(directory.path());
            config.engine.certificate_file = certificate;
            config.engine.private_key_file = key;
        }
        let gateway = Gateway::start(&config).await;
        let client = Client::connect(gateway.address, Protocol::Http1).await;
        let request = Request::get("/api/version").header("authorization", alice(&issuer));
        let answer = client.send(request.body(Body::empty()).unwrap()).await;
        let answer = whole(answer.unwrap()).await.unwrap();
        if passes {
            assert_eq!(answer.status(), 200, "{answer:?}");
        } else {
            assert_eq!(answer.status(), 502, "{answer:?}");
            assert_eq!(engine.connections(), 0);
        }
    }
}

/// `GET /api/version` of a gateway.
async fn version(address: SocketAddr, issuer: &Issuer) -> Response<Bytes> {
    let client = Client::connect(address, Protocol::Http1).await;
    let request = Request::get("/api/version").header("authorization", alice(issuer));
    let answer = client.send(request.body(Body::empty()).unwrap()).await;
    whole(answer.unwrap()).await.unwrap()
}

#[tokio::test]
async fn without_an_authority_of_its_own_the_engine_is_trusted_by_the_systems() {
    let (ours, another) = (authority(), authority());
    let directory = tempfile::tempdir().unwrap();
    for (system, passes) in [(&ours, true), (&another, false)] {
        let engine = Engine::start().await.unwrap();
        let issuer = Issuer::start().await.unwrap();
        let port = tls_before(&engine, &ours, "localhost", false).await;
        let file = directory.path().join("system.pem");
        std::fs::write(&file, system.pem()).unwrap();
        let gateway = Process::with_environment(&[
            ("SSL_CERT_FILE", file.to_str().unwrap()),
            ("BPMGATE__SERVER__LISTEN", "127.0.0.1:0"),
            ("BPMGATE__ADMIN__LISTEN", ""),
            (
                "BPMGATE__ENGINE__URL",
                &format!("https://localhost:{port}/engine-rest"),
            ),
            ("BPMGATE__ENGINE__RETRY__ATTEMPTS", "0"),
            ("BPMGATE__ENGINE__HEALTH__INTERVAL", "0s"),
            ("BPMGATE__ISSUERS__0__ISSUER", &issuer.url()),
            ("BPMGATE__ISSUERS__0__JWKS_URL", &issuer.jwks_url()),
            ("BPMGATE__ISSUERS__0__AUDIENCE", AUDIENCE),
        ])
        .await;
        let answer = version(gateway.address, &issuer).await;
        if passes {
            assert_eq!(answer.status(), 200, "{answer:?}");
        } else {
            assert_eq!(refused(&answer), (502, "engine_unreachable".to_owned()));
            assert_eq!(engine.connections(), 0);
        }
    }
}

#[tokio::test]
async fn a_reload_takes_authority_certificate_and_key_of_the_engine() {
    const LOADED: &str = "the configuration was loaded again";
    let (ours, another) = (authority(), authority());
    let engine = Engine::start().await.unwrap();
    let issuer = Issuer::start().await.unwrap();
    let port = tls_before(&engine, &ours, "localhost", true).await;
    let directory = tempfile::tempdir().unwrap();
    let trusted = directory.path().join("ca.pem");
    std::fs::write(&trusted, another.pem()).unwrap();
    let (certificate, key) = Pair::new(&another, "gateway").write(directory.path());
    let (name, keys) = (issuer.url(), issuer.jwks_url());
    let gateway = Process::with_config(&format!(
        "server.listen = \"127.0.0.1:0\"\nadmin.listen = \"\"\n[engine]\nurl = \"https://localhost:{port}/engine-rest\"\n\
         ca_file = {trusted:?}\ncertificate_file = {certificate:?}\nprivate_key_file = {key:?}\nretry.attempts = 0\n\
         health.interval = \"0s\"\n[[issuers]]\nissuer = \"{name}\"\njwks_url = \"{keys}\"\naudience = [\"{AUDIENCE}\"]\n"
    ))
    .await;
    let reloaded = async || {
        let before = gateway.logged(LOADED);
        gateway.signal("HUP").await;
        eventually("the reload", || gateway.logged(LOADED) > before).await;
        version(gateway.address, &issuer).await.status()
    };
    assert_eq!(version(gateway.address, &issuer).await.status(), 502);
    std::fs::write(&trusted, ours.pem()).unwrap();
    assert_eq!(
        reloaded().await,
        502,
        "the engine does not know its certificate"
    );
    assert_eq!(engine.connections(), 0);
    Pair::new(&ours, "gateway").write(directory.path());
    assert_eq!(reloaded().await, 200);
    std::fs::write(&trusted, another.pem()).unwrap();
    assert_eq!(
        reloaded().await,
        502,
        "connections that were trusted before are not used on"
    );
}

#[tokio::test]
async fn an_engine_that_does_not_answer_the_handshake_costs_the_time_to_connect() {
    const CONNECT: Duration = Duration::from_millis(500);
    // It accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/engine-rest", silent.local_addr().unwrap());
    let world = World::over(silent, &url, |config| {
        config.engine.timeouts.connect = CONNECT;
        config.engine.timeouts.response = Duration::from_mins(10);
        config.engine.retry.attempts = 0;
    })
    .await;
    let began = Instant::now();
    let answer = world.get("/api/version").await;
    assert_eq!(refused(&answer), (502, "engine_unreachable".to_owned()));
    assert!(began.elapsed() >= CONNECT, "{:?}", began.elapsed());
}

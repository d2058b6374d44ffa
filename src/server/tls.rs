//! TLS towards clients: the certificate's files, read again when they change, and the handshake.
//!
//! A changed file is noticed within [`LOOK`]. What cannot be used is logged once, and the certificate before it
//! goes on serving; connections that stand are not touched. A new certificate, or a new authority, comes with a
//! memory of sessions of its own, so that nobody resumes past what is no longer trusted.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{error, info};
use zeroize::Zeroizing;

use super::reload::{LOOK, Stamp, stamp};
use crate::config;

/// The server's side of TLS, as its files have it.
pub struct Tls {
    files: config::Tls,
    current: ArcSwap<ServerConfig>,
    /// How the files looked before they were read last.
    seen: Mutex<Stamps>,
}

impl Tls {
    /// Reads the files: TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// A file cannot be read, or holds nothing that can be used.
    pub fn open(files: config::Tls) -> Result<Self, TlsFileError> {
        let seen = stamps(&files);
        Ok(Self {
            current: ArcSwap::from_pointee(server_config(&files)?),
            seen: Mutex::new(seen),
            files,
        })
    }

    /// Shakes hands. Who does not even begin to speak TLS gets no answer, as it would be none that he understands.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut first = [0];
        match (stream.peek(&mut first).await?, first) {
            (0, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            (_, [HANDSHAKE]) => {
                TlsAcceptor::from(self.current.load_full())
                    .accept(stream)
                    .await
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no TLS, but perhaps plain HTTP",
            )),
        }
    }

    /// Looks at the files every [`LOOK`], for ever.
    pub(super) async fn keep_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let tls = self.clone();
            // Files may be slow, as may be the check of a key.
            if let Err(error) = tokio::task::spawn_blocking(move || tls.look()).await {
                error!(%error, "the files of `server.tls` could not be looked at");
            }
        }
    }

    fn look(&self) {
        let now = stamps(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        match server_config(&self.files) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                info!("the certificate was read again, as its files have changed");
            }
            Err(error) => {
                error!(%error, "the changed certificate cannot be used, and the one before is kept");
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// Why a file of certificates or of a key cannot be used. It shows nothing of what is in the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {path:?}: {problem}")]
pub struct TlsFileError {
    /// The key of the configuration that names the file.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
}

/// A PEM file that the configuration names.
#[derive(Debug, Clone, Copy)]
struct PemFile<'a> {
    key: &'static str,
    path: &'a Path,
}

impl PemFile<'_> {
    fn refused(self, problem: impl Into<String>) -> TlsFileError {
        TlsFileError {
            key: self.key,
            path: self.path.to_owned(),
            problem: problem.into(),
        }
    }

    fn read(self) -> Result<Zeroizing<Vec<u8>>, TlsFileError> {
        std::fs::read(self.path)
            .map(Zeroizing::new)
            .map_err(|error| self.refused(format!("it cannot be read: {error}")))
    }

    fn certificates(self) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&self.read()?)
            .collect::<Result<_, _>>()
            .map_err(|_| self.refused("it is damaged: not all of it is PEM"))?;
        if certificates.is_empty() {
            return Err(self.refused("it holds no certificate in PEM"));
        }
        Ok(certificates)
    }

    fn roots(self) -> Result<RootCertStore, TlsFileError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|error| self.refused(format!("it holds no good certificate: {error}")))?;
        }
        Ok(roots)
    }
}

/// Reads a certificate with its chain, and its key.
fn certified_key(certificate: PemFile<'_>, key: PemFile<'_>) -> Result<CertifiedKey, TlsFileError> {
    let chain = certificate.certificates()?;
    // The errors of PEM quote the file.
    let private = PrivateKeyDer::from_pem_slice(&key.read()?)
        .map_err(|_| key.refused("it holds no private key in PEM, or an encrypted one"))?;
    let private = provider()
        .key_provider
        .load_private_key(private)
        .map_err(|_| key.refused("its private key is damaged, or of a kind that TLS has not"))?;
    let pair = CertifiedKey::new(chain, private);
    match pair.keys_match() {
        // Unknown: a key that does not say what its public key is.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => Err(key.refused(format!(
            "it is not the key of the certificate in {}",
            certificate.path.display()
        ))),
        Err(error) => {
            Err(certificate.refused(format!("its first certificate cannot be used: {error}")))
        }
    }
}

/// The certificate that the gateway shows to the engine.
pub(crate) fn engine_identity(engine: &config::Engine) -> Result<CertifiedKey, TlsFileError> {
    certified_key(
        PemFile {
            key: "engine.certificate_file",
            path: &engine.certificate_file,
        },
        PemFile {
            key: "engine.private_key_file",
            path: &engine.private_key_file,
        },
    )
}

/// What the files come to.
pub(crate) fn server_config(files: &config::Tls) -> Result<ServerConfig, TlsFileError> {
    let pair = certified_key(
        PemFile {
            key: "server.tls.certificate_file",
            path: &files.certificate_file,
        },
        PemFile {
            key: "server.tls.private_key_file",
            path: &files.private_key_file,
        },
    )?;
    let authorities = PemFile {
        key: "server.tls.client_ca_file",
        path: &files.client_ca_file,
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| authorities.refused(error.to_string()))?;
    let builder = if files.client_ca_file.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(authorities.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| authorities.refused(error.to_string()))?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// How each of the files looks; `None` where it cannot be seen.
type Stamps = [Option<Stamp>; 3];

fn stamps(files: &config::Tls) -> Stamps {
    [
        &files.certificate_file,
        &files.private_key_file,
        &files.client_ca_file,
    ]
    .map(|path| stamp(path))
}

/// The first byte of a connection that begins with a TLS handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

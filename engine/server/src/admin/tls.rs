//! The endpoint's identity, from PEM files.

use crate::config::TlsFiles;
use crate::exit::Failure;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, version};

/// Who the endpoint is.
#[derive(Clone)]
pub(crate) struct Identity {
    acceptor: TlsAcceptor,
    chain: Arc<[CertificateDer<'static>]>,
}

impl Identity {
    /// Reads certificate and key. TLS 1.3 only.
    ///
    /// # Errors
    /// A file cannot be read or is not what its key says: the text names key, file and what is allowed.
    pub(crate) fn read(files: &TlsFiles) -> Result<Self, Failure> {
        let chain = CertificateDer::pem_file_iter(&files.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong("tls_cert", &files.cert, error))?;
        if chain.is_empty() {
            return Err(wrong("tls_cert", &files.cert, "no certificate in it"));
        }
        let key =
            PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong("tls_key", &files.key, error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| wrong("tls_cert", &files.cert, error))?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key)
            .map_err(|error| wrong("tls_key", &files.key, error))?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), chain: chain.into() })
    }

    /// Takes connections in its name.
    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// The certificates that it shows, its own first.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

fn wrong(key: &str, file: &Path, error: impl Display) -> Failure {
    let allowed = match key {
        "tls_cert" => "a PEM file with the certificate chain",
        _ => "a PEM file with the private key of admin.tls_cert's first certificate",
    };
    Failure::usage(format!("admin.{key} = {}: {error}, allowed: {allowed}", file.display()))
}

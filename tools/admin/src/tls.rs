//! Whom a client of an endpoint with TLS believes.

use anyhow::{Result, bail};
use std::path::Path;
use std::sync::Arc;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Trusts what is in the PEM file and nothing else.
///
/// # Errors
/// The file cannot be read, or has no certificate.
pub(crate) fn trusting(file: &Path) -> Result<TlsConfig> {
    let pem = std::fs::read(file)?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item? {
            roots.push(certificate);
        }
    }
    if roots.is_empty() {
        bail!("no certificate in it, allowed: a PEM file with certificates");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots: &[Certificate<'static>] = &roots;
    let config = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    Ok(config.root_certs(RootCerts::new_with_certs(roots)).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_said() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("ca.pem");
        std::fs::write(&file, "no PEM\n").unwrap();
        let error = trusting(&file).unwrap_err().to_string();
        assert!(error.starts_with("no certificate in it"), "{error}");
    }
}

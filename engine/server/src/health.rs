//! `tern health`: asks the node of a configuration, on this machine, whether it serves. For health checks of containers
//! and balancers: it finds the endpoint, and whom to trust, where the node itself does.

use crate::config::{Settings, TlsFiles};
use crate::exit::Failure;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
    StreamOwned, version,
};

/// Longest wait for a connection, and for each piece of the answer: an endpoint that is slower does not serve.
const TIME: Duration = Duration::from_secs(2);
/// Bytes of the answer that are read: its first line is in them.
const ANSWER_BYTES: u64 = 4096;
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: tern\r\nconnection: close\r\n\r\n";

/// Whether the node serves.
///
/// # Errors
/// It does not: start-up, with what it says, or why it says nothing.
pub(crate) fn health(settings: &Settings) -> Result<(), Failure> {
    let address = near(settings.admin);
    let line = ask(address, settings.admin_access.tls.as_ref())
        .map_err(|error| Failure::start_up(format!("admin = {address}: {error}")))?;
    if line.split_whitespace().nth(1) == Some("200") {
        return Ok(());
    }
    Err(Failure::start_up(format!("admin = {address}: it does not serve: {line}")))
}

/// Where this machine reaches an endpoint that listens at `admin`.
fn near(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, admin.port())
}

/// The first line of the answer.
fn ask(address: SocketAddr, tls: Option<&TlsFiles>) -> io::Result<String> {
    let socket = TcpStream::connect_timeout(&address, TIME)?;
    socket.set_read_timeout(Some(TIME))?;
    socket.set_write_timeout(Some(TIME))?;
    match tls {
        None => talk(socket),
        Some(files) => {
            let name = ServerName::IpAddress(address.ip().into());
            let session =
                ClientConnection::new(Arc::new(trusting(files)?), name).map_err(io::Error::other)?;
            talk(StreamOwned::new(session, socket))
        }
    }
}

fn talk(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    // An endpoint may end the connection without saying so in TLS: what came is what counts.
    let ended = stream.take(ANSWER_BYTES).read_to_end(&mut answer);
    match String::from_utf8_lossy(&answer).lines().next() {
        Some(line) => Ok(line.to_string()),
        None => Err(ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Trusts the configured certificate and no other, whatever its names and dates: the question is whether this node
/// serves, not whether others can reach it.
fn trusting(files: &TlsFiles) -> io::Result<ClientConfig> {
    let certificate = CertificateDer::from_pem_file(&files.cert)
        .map_err(|error| io::Error::other(format!("admin.tls_cert = {}: {error}", files.cert.display())))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { certificate, provider }));
    Ok(config.with_no_client_auth())
}

/// The endpoint must show this certificate, and sign with its key.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *shown == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_at_every_address_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:7323", "127.0.0.1:7323"),
            ("[::]:7323", "[::1]:7323"),
            ("10.0.0.1:7323", "10.0.0.1:7323"),
        ] {
            assert_eq!(near(listen.parse().unwrap()).to_string(), asked);
        }
    }
}

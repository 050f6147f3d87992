//! Checks the addresses of the service: whether they are free while it doesn't run, and what answers while it does.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Finding, failed, passed};
use crate::http::listeners::Protocols;

/// How long an address may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
const LOG: &str = "read the service's log";

/// Checks what answers at `address`. `certificate` is the service's, from its file.
pub(super) async fn ask(
    address: SocketAddr,
    spoken: Protocols,
    certificate: Option<&CertificateDer<'_>>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if spoken.http || spoken.metrics {
        findings.push(http("http", address, TcpStream::connect(address)).await);
    }
    if spoken.amqp {
        findings.push(broker("broker", address, TcpStream::connect(address)).await);
    }
    if !spoken.https && !spoken.amqps {
        return findings;
    }
    match timely(tls(address)).await {
        Err(error) => {
            findings.push(failed("tls", format!("{address} does not speak TLS: {error}"), LOG));
            return findings;
        }
        Ok(stream) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            if shown != certificate {
                let remedy =
                    "the log says why the file was not read anew; `systemctl reload farcall` tries it again";
                let seen = format!("{address} shows another certificate than the one in the file");
                findings.push(failed("tls", seen, remedy));
            }
        }
    }
    if spoken.https {
        findings.push(http("https", address, tls(address)).await);
    }
    if spoken.amqps {
        findings.push(broker("broker, TLS", address, tls(address)).await);
    }
    findings
}

async fn http<S: AsyncRead + AsyncWrite + Unpin>(
    of: &'static str,
    address: SocketAddr,
    connected: impl Future<Output = std::io::Result<S>>,
) -> Finding {
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    match say(connected, request.as_bytes(), 12).await {
        Ok(said) if said.starts_with(b"HTTP/1.1 200") => passed(of, format!("{address} is ready")),
        Ok(said) => {
            let said = String::from_utf8_lossy(&said).into_owned();
            failed(of, format!("{address} answers {said:?}"), LOG)
        }
        Err(error) => failed(of, format!("{address}: {error}"), LOG),
    }
}

async fn broker<S: AsyncRead + AsyncWrite + Unpin>(
    of: &'static str,
    address: SocketAddr,
    connected: impl Future<Output = std::io::Result<S>>,
) -> Finding {
    match say(connected, b"AMQP\x00\x00\x09\x01", 11).await {
        Ok(said) if said.first() == Some(&1) => passed(of, format!("{address} greets")),
        Ok(_) => failed(of, format!("{address} answers, and is no broker"), LOG),
        Err(error) => failed(of, format!("{address}: {error}"), LOG),
    }
}

/// Sends `words` and reads the first bytes of the answer.
async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    connected: impl Future<Output = std::io::Result<S>>,
    words: &[u8],
    length: usize,
) -> std::io::Result<Vec<u8>> {
    timely(async {
        let mut stream = connected.await?;
        stream.write_all(words).await?;
        stream.flush().await?;
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    })
    .await
}

async fn timely<T>(done: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    tokio::time::timeout(PATIENCE, done).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Does a TLS handshake without verifying the certificate, which `certificate` checks.
async fn tls(address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::from(address.ip());
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

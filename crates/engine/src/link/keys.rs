//! The keys of one run, by which the engine and its nodes authenticate each other.
//!
//! The engine generates two key pairs when it starts: its own, which never leaves the process, and one for its nodes,
//! which goes into their configuration (mode 0600). Each side pins the SHA-256 of the other's certificate, so names
//! and dates in certificates mean nothing.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use serde::{Deserialize, Serialize};

/// Why keys can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("cannot make the keys of this run: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot use the keys of this run: {0}")]
    Use(#[from] rustls::Error),
    #[error("the keys of this run are damaged")]
    Damaged,
}

/// One side's key pair, and the fingerprint it expects of the other.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct LinkKeys {
    certificate: String,
    key: String,
    expects: String,
}

impl fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkKeys").field("expects", &self.expects).finish_non_exhaustive()
    }
}

/// Generates the keys of a run: the engine's and those of its nodes.
pub(crate) fn generate() -> Result<(LinkKeys, LinkKeys), KeyError> {
    let pair = || -> Result<_, KeyError> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        Ok((made.cert.der().to_vec(), made.signing_key.serialize_der()))
    };
    let (engine, nodes) = (pair()?, pair()?);
    let side = |(certificate, key): &(Vec<u8>, Vec<u8>), (other, _): &(Vec<u8>, Vec<u8>)| LinkKeys {
        certificate: hex(certificate),
        key: hex(key),
        expects: hex(&fingerprint(other)),
    };
    Ok((side(&engine, &nodes), side(&nodes, &engine)))
}

/// The name in the certificates; it means nothing.
const NAME: &str = "farcall";

pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("a valid name")
}

impl LinkKeys {
    pub(crate) fn server(&self) -> Result<ServerConfig, KeyError> {
        let (certificate, key, pin, provider) = self.decode()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(pin)
            .with_single_cert(vec![certificate], key.into())?;
        // A node connects once: session tickets would only take memory.
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    pub(crate) fn client(&self) -> Result<ClientConfig, KeyError> {
        let (certificate, key, pin, provider) = self.decode()?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(pin)
            .with_client_auth_cert(vec![certificate], key.into())?;
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    #[allow(clippy::type_complexity)] // four things that belong together for two callers
    fn decode(
        &self,
    ) -> Result<
        (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>, Arc<PinnedCertificate>, Arc<CryptoProvider>),
        KeyError,
    > {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let expects =
            unhex(&self.expects).and_then(|bytes| bytes.try_into().ok()).ok_or(KeyError::Damaged)?;
        let pin =
            Arc::new(PinnedCertificate { expects, algorithms: provider.signature_verification_algorithms });
        let certificate = unhex(&self.certificate).ok_or(KeyError::Damaged)?.into();
        let key = unhex(&self.key).ok_or(KeyError::Damaged)?.into();
        Ok((certificate, key, pin, provider))
    }
}

/// Accepts the certificate with this fingerprint, and no other.
#[derive(Debug)]
struct PinnedCertificate {
    expects: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedCertificate {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if fingerprint(certificate) == self.expects {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(certificate).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PinnedCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String can't fail
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16);
    digits.chunks_exact(2).map(|pair| u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    async fn talk(engine: &LinkKeys, node: &LinkKeys) -> std::io::Result<String> {
        let (here, there) = duplex(1 << 16);
        let acceptor = TlsAcceptor::from(Arc::new(engine.server().unwrap()));
        let connector = TlsConnector::from(Arc::new(node.client().unwrap()));
        let serve = async {
            let mut stream = acceptor.accept(here).await?;
            stream.write_all(b"hello").await?;
            stream.shutdown().await
        };
        let call = async {
            let mut stream = connector.connect(server_name(), there).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Ok(text)
        };
        let (served, text): (std::io::Result<()>, std::io::Result<String>) = tokio::join!(serve, call);
        served?;
        text
    }

    #[tokio::test]
    async fn only_keys_of_the_same_run_authenticate() {
        let (engine, node) = generate().unwrap();
        let (other_engine, other_node) = generate().unwrap();
        assert_eq!(talk(&engine, &node).await.unwrap(), "hello");
        assert!(talk(&other_engine, &node).await.is_err());
        assert!(talk(&engine, &other_node).await.is_err());
    }

    #[test]
    fn damaged_keys_are_errors() {
        let (engine, _) = generate().unwrap();
        for damage in ["", "zz", "0", "é0"] {
            assert!(LinkKeys { expects: damage.into(), ..engine.clone() }.server().is_err());
            assert!(LinkKeys { key: damage.into(), ..engine.clone() }.client().is_err());
        }
    }
}

//! The certificate authorities that the forwarder trusts: the system's, or only those in one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the authority's certificate in {}: {error}", .path.display())]
    Unreadable { path: PathBuf, error: String },
    #[error("{} holds no certificate of an authority in PEM form: give another file to --ca", .0.display())]
    NoCertificate(PathBuf),
    #[error("TLS can't be set up on this machine: {0}; name the service's authority with --ca FILE")]
    Unusable(String),
}

pub(super) fn configuration(authority: Option<&Path>) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |error: &dyn std::fmt::Display| TrustError::Unusable(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let Some(path) = authority else {
        let trusting = builder.with_platform_verifier().map_err(|error| unusable(&error))?;
        return Ok(trusting.with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    let read = CertificateDer::pem_file_iter(path)
        .map_err(|error| TrustError::Unreadable { path: path.to_owned(), error: error.to_string() })?;
    roots.add_parsable_certificates(read.filter_map(Result::ok));
    if roots.is_empty() {
        return Err(TrustError::NoCertificate(path.to_owned()));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| unusable(&error))?;
    Ok(builder.with_webpki_verifier(verifier).with_no_client_auth())
}

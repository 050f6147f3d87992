//! The service's TLS certificate. It is read again when its files change, and on SIGHUP.
//!
//! Open connections keep the old certificate; new ones get the new. If the new files can't be used, the old certificate stays
//! in use and the log says so: a failed renewal locks out nobody before the old certificate expires.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use daemon::stop::Stop;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::signal::unix::{SignalKind, signal};

/// How often the files are checked. A symbolic link that was changed is noticed, too.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: rustls::pki_types::pem::Error },
    #[error("{path} holds no certificate")]
    None { path: PathBuf },
    #[error("{certificate} and {key} cannot be used together: {error}")]
    KeyMismatch { certificate: PathBuf, key: PathBuf, error: rustls::Error },
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The two PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// Reads both, and makes sure that they belong together.
    pub fn read(&self) -> Result<CertifiedKey, CertificateError> {
        let read = |path: &Path| {
            let path = path.to_owned();
            move |error| CertificateError::Read { path, error }
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(read(&self.certificate))?;
        if chain.is_empty() {
            return Err(CertificateError::None { path: self.certificate.clone() });
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(read(&self.key))?;
        CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider()).map_err(|error| {
            CertificateError::KeyMismatch {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                error,
            }
        })
    }

    /// Identifies the contents of the files: it differs once they have been replaced.
    fn stamp(&self) -> [Option<(u64, u64, i64, i64)>; 2] {
        [&self.certificate, &self.key].map(|path| {
            let known = std::fs::metadata(path).ok()?;
            Some((known.ino(), known.len(), known.mtime(), known.mtime_nsec()))
        })
    }
}

/// The certificate in use. Clones share it.
#[derive(Clone, Debug)]
pub struct Certificates {
    files: Files,
    current: Arc<Current>,
    server: Arc<rustls::ServerConfig>,
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A panic while it was held cannot have left it half changed.
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Certificates {
    pub fn open(files: Files) -> Result<Certificates, CertificateError> {
        let current = Arc::new(Current(RwLock::new(Arc::new(files.read()?))));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        Ok(Certificates { files, current, server: Arc::new(server) })
    }

    pub fn server(&self) -> Arc<rustls::ServerConfig> {
        self.server.clone()
    }

    /// Uses what the files contain from the next handshake on. If that can't be used, keeps the old certificate.
    pub fn reload(&self) {
        let certificate = self.files.certificate.display();
        match self.files.read() {
            Ok(read) => {
                *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
                tracing::info!(%certificate, "reloaded the certificate");
            }
            Err(error) => tracing::error!(%error, "the new certificate can't be used: keeping the old one"),
        }
    }

    /// Reloads on SIGHUP and when the files change, until `stop` begins.
    pub async fn watch(&self, stop: Stop) {
        let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
        let mut known = self.files.stamp();
        loop {
            tokio::select! {
                () = stop.begun() => return,
                Some(()) = hangups.recv() => {
                    known = self.files.stamp();
                    self.reload();
                }
                () = tokio::time::sleep(LOOK) => {
                    let now = self.files.stamp();
                    if now != known {
                        known = now;
                        self.reload();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &Files, name: &str) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    }

    fn shown(certificates: &Certificates) -> Vec<u8> {
        certificates.current.0.read().unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_bad_new_one_keeps_the_old() {
        let directory = tempfile::tempdir().unwrap();
        let files =
            Files { certificate: directory.path().join("c.pem"), key: directory.path().join("k.pem") };
        assert!(matches!(Certificates::open(files.clone()), Err(CertificateError::Read { .. })));
        let first = write(&files, "one.example.org");
        let certificates = Certificates::open(files.clone()).unwrap();
        assert_eq!(shown(&certificates), first);
        let second = write(&files, "two.example.org");
        certificates.reload();
        assert_eq!(shown(&certificates), second);

        let other = rcgen::generate_simple_self_signed(vec!["three".to_owned()]).unwrap();
        for bad in ["", "no certificate", &other.cert.pem()] {
            std::fs::write(&files.certificate, bad).unwrap();
            assert!(files.read().is_err(), "{bad:?}");
            certificates.reload();
            assert_eq!(shown(&certificates), second);
        }
        std::fs::remove_file(&files.certificate).unwrap();
        certificates.reload();
        assert_eq!(shown(&certificates), second);
        let third = write(&files, "three.example.org");
        certificates.reload();
        assert_eq!(shown(&certificates), third);
    }
}

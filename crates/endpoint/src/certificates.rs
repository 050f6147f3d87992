//! Reads a file of certificates of authorities.

use std::path::Path;

use crate::exit::{Failure, status};

/// The PEM text of a file. A file without a certificate is refused here, because those who use the text would ignore it.
pub(crate) fn read_authorities(path: &Path) -> Result<String, Failure> {
    let bad = |why: String| Failure::new(status::CONFIG, format!("Error: {why}"));
    let pem = std::fs::read_to_string(path)
        .map_err(|error| bad(format!("the certificates in {}: {error}", path.display())))?;
    if pem.contains("-----BEGIN CERTIFICATE-----") {
        Ok(pem)
    } else {
        Err(bad(format!("{} holds no certificates in PEM form", path.display())))
    }
}

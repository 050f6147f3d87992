//! The site file, `/etc/farcall/endpoint.yaml`: an administrator's settings for all endpoints of a machine.

use std::path::PathBuf;

use super::BadConfig;
use super::fields::Fields;

/// The settings of the site file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) service_url: Option<String>,
    pub(crate) ca_certificates: Option<PathBuf>,
}

impl Site {
    /// Reads the file; a missing file sets nothing.
    pub(crate) fn load(path: &std::path::Path) -> Result<Self, BadConfig> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::read(&path.display().to_string(), &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(BadConfig(format!("{}: {error}", path.display()))),
        }
    }

    fn read(file: &str, text: &str) -> Result<Self, BadConfig> {
        let node = super::yaml::read(text).map_err(|error| BadConfig(format!("{file}: {error}")))?;
        if node.value == super::yaml::Value::Null {
            return Ok(Self::default());
        }
        let mut fields = Fields::of(&node)?;
        let site = Self {
            service_url: fields.text("service_url"),
            ca_certificates: fields.text("ca_certificates").map(PathBuf::from),
        };
        fields.finish("SiteFile", file, text, &["service_url", "ca_certificates"], |_| None)?;
        Ok(site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_says_where_its_service_is() {
        let site =
            Site::read("f", "service_url: https://compute.site.example\nca_certificates: /etc/ca.pem\n")
                .unwrap();
        assert_eq!(site.service_url.as_deref(), Some("https://compute.site.example"));
        assert_eq!(site.ca_certificates, Some(PathBuf::from("/etc/ca.pem")));
        assert_eq!(Site::read("f", "# nothing\n"), Ok(Site::default()));
        let bad = Site::read("f", "service-url: x\n").unwrap_err().0;
        assert!(bad.contains("extra fields not permitted") && bad.contains("service_url"), "{bad}");
        assert!(Site::read("f", "- a\n").is_err());
    }
}

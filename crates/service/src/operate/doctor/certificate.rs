//! Checks the certificate: its validity period, its names, and whether clients trust it, verified as they do.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CheckResult, Finding, chain, failed, passed, warning};
use crate::http::certificates::Files;

/// How long before its end a certificate gets a warning.
const SOON: SignedDuration = SignedDuration::from_hours(24 * 14);
/// Where distributions keep the system's trusted authorities.
const AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const OF: &str = "certificate";
const TRUST: &str = "trust";

/// Checks the certificate in `files`, for clients that use `names`. No part of it is called ok while another one fails.
pub(super) fn examine(
    files: &Files,
    names: &[String],
    authority: Option<&Path>,
    now: Timestamp,
) -> Vec<Finding> {
    // Files that can't be read are reported as a problem of the start.
    let Ok(read) = files.read() else { return Vec::new() };
    let Some((leaf, (begins, ends))) = read.cert.first().and_then(|leaf| Some((leaf, life(leaf)?))) else {
        return vec![failed(OF, "it cannot be read", "have it issued again")];
    };
    let shown = files.certificate.display();
    let mut findings = vec![match (begins, ends) {
        (_, ends) if ends <= now => failed(OF, format!("{shown} has ended, on {ends:.0}"), "renew it"),
        (begins, _) if begins > now => {
            let remedy = "wait until then; or this machine's clock is wrong";
            failed(OF, format!("{shown} is good from {begins:.0} on only"), remedy)
        }
        (_, ends) if ends <= now + SOON => warning(
            OF,
            format!("{shown} ends soon, on {ends:.0}"),
            "renew it; the service reads it anew by itself",
        ),
        (_, ends) => passed(OF, format!("{shown} is good until {ends:.0}")),
    }];
    if names.is_empty() {
        let remedy = "set amqp.public_host, which stands in the addresses that endpoints get";
        findings.push(warning(OF, "no public name is configured that it could be compared with", remedy));
    }
    for name in names {
        let covered = ParsedCertificate::try_from(leaf).is_ok_and(|leaf| {
            ServerName::try_from(name.trim_matches(['[', ']']))
                .is_ok_and(|name| verify_server_name(&leaf, &name).is_ok())
        });
        findings.push(match covered {
            true => passed(OF, format!("it is for {name}")),
            false => failed(OF, format!("it is not for {name}"), "have it issued for it, too"),
        });
    }
    findings.extend(trust(&read.cert, authority, now));
    if findings.iter().any(|finding| finding.result == CheckResult::Failed) {
        findings.retain(|finding| finding.result != CheckResult::Passed);
    }
    findings
}

fn life(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((at(read.validity().not_before)?, at(read.validity().not_after)?))
}

/// Whether clients trust the chain: with the system's authorities, or with those in the file `authority`.
fn trust(chain: &[CertificateDer<'_>], authority: Option<&Path>, now: Timestamp) -> Vec<Finding> {
    let public = || AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
    let Some(bundle) = authority.or_else(public) else {
        let seen = "no public authorities were found here to compare with";
        return vec![warning(TRUST, seen, "install ca-certificates")];
    };
    let whom = match authority {
        Some(file) => format!("the authority in {}", file.display()),
        None => "the public authorities".to_owned(),
    };
    let known: Vec<CertificateDer<'static>> = match CertificateDer::pem_file_iter(bundle) {
        Ok(read) => read.filter_map(Result::ok).collect(),
        Err(error) => {
            let seen = format!("{}: {error}", bundle.display());
            return vec![failed(TRUST, seen, "give another file to --ca")];
        }
    };
    let faults = faults(chain, &known);
    if !faults.is_empty() {
        let told = faults.into_iter().map(|fault| {
            let which = if fault.kind.strict() { " and have Python 3.13 or later" } else { "" };
            let seen = format!("clients that trust {whom}{which} refuse it: {fault}");
            failed(TRUST, seen, format!("have it issued with `{}`", fault.kind.remedy()))
        });
        return told.collect();
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(known);
    if roots.is_empty() {
        let seen = format!("{} holds no certificate of an authority", bundle.display());
        return vec![failed(TRUST, seen, "give another file to --ca")];
    }
    vec![match verify(chain, &roots, now) {
        Ok(()) => passed(TRUST, format!("clients that trust {whom} trust it")),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => match authority {
            Some(_) => failed(
                TRUST,
                format!("clients that trust {whom} do not trust it"),
                "have it issued by that authority, and see that tls.certificate holds the whole chain",
            ),
            None => warning(
                TRUST,
                format!("clients that trust {whom} do not trust it"),
                "with an authority of your own, clients need its certificate: `farcall connect URL --ca FILE` takes \
                 it, and `farcall doctor --ca FILE` says whether it fits; else the chain may lack what is between",
            ),
        },
        Err(error) => {
            failed(TRUST, format!("clients that trust {whom} refuse it: {error}"), "have it issued anew")
        }
    }]
}

/// What Python refuses on the path to one of `roots`.
fn faults(chain: &[CertificateDer<'_>], roots: &[CertificateDer<'_>]) -> Vec<chain::Fault> {
    fn parsed<'a>(all: &'a [CertificateDer<'_>]) -> Vec<X509Certificate<'a>> {
        all.iter().filter_map(|it| Some(X509Certificate::from_der(it).ok()?.1)).collect()
    }
    let (chain, roots) = (parsed(chain), parsed(roots));
    chain::path(&chain, &roots).map(|path| chain::faults(&path)).unwrap_or_default()
}

/// Verifies the chain as rustls does, except for the name.
fn verify(chain: &[CertificateDer<'_>], roots: &RootCertStore, now: Timestamp) -> Result<(), rustls::Error> {
    let Some((leaf, between)) = chain.split_first() else {
        return Err(CertificateError::BadEncoding.into());
    };
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let at =
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default()));
    let leaf = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&leaf, roots, between, at, algorithms.all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_certificate_and_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files { certificate: directory.path().join("c"), key: directory.path().join("k") };
        assert_eq!(examine(&files, &[], None, Timestamp::UNIX_EPOCH), [], "start_problems finds it");
        let made = rcgen::generate_simple_self_signed(vec!["compute.example.org".to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let (begins, ends) = life(made.cert.der()).unwrap();
        let (right, wrong) = ("compute.example.org".to_owned(), "other.example.org".to_owned());
        let own = Some(files.certificate.as_path());
        let says = |names: &[&String], at: Timestamp| -> Vec<(&'static str, CheckResult)> {
            let names: Vec<String> = names.iter().map(|name| (*name).clone()).collect();
            examine(&files, &names, own, at).iter().map(|finding| (finding.of, finding.result)).collect()
        };
        use CheckResult::{Failed, Passed, Warning};
        let good = ends - SignedDuration::from_hours(24 * 30);
        assert_eq!(says(&[&right], good), [(OF, Passed), (OF, Passed), (TRUST, Passed)]);
        let soon = ends - SignedDuration::from_hours(24);
        assert_eq!(says(&[&right], soon), [(OF, Warning), (OF, Passed), (TRUST, Passed)]);
        // What is refuted is not said.
        assert_eq!(says(&[&right, &wrong], good), [(OF, Failed)]);
        assert_eq!(says(&[&right, &wrong], soon), [(OF, Warning), (OF, Failed)]);
        let after = ends + SignedDuration::from_secs(1);
        assert_eq!(says(&[&right], after), [(OF, Failed), (TRUST, Failed)]);
        let early = begins - SignedDuration::from_hours(24);
        assert_eq!(says(&[&right], early), [(OF, Failed), (TRUST, Failed)]);
    }

    /// An authority, what it has issued, and what somebody of the same name has.
    #[test]
    fn a_chain_is_trusted_as_clients_do() {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let directory = tempfile::tempdir().unwrap();
        let now = clock::now();
        let authority = |file: &str| {
            let key = KeyPair::generate().unwrap();
            let mut parameters = CertificateParams::new(Vec::new()).unwrap();
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
            let path = directory.path().join(file);
            std::fs::write(&path, parameters.self_signed(&key).unwrap().pem()).unwrap();
            (path, Issuer::new(parameters, key))
        };
        let issue = |issuer: &Issuer<'static, KeyPair>, parameters: CertificateParams| {
            let key = KeyPair::generate().unwrap();
            let made = parameters.signed_by(&key, issuer).unwrap();
            (made.der().clone(), Issuer::new(parameters, key))
        };
        let named = || {
            let mut parameters = CertificateParams::new(vec!["compute.example.org".to_owned()]).unwrap();
            parameters.use_authority_key_identifier_extension = true;
            parameters
        };
        let ((ours, root), (other, namesake)) = (authority("ours"), authority("other"));
        let (leaf, _) = issue(&root, named());
        let (forged, _) = issue(&namesake, named());
        let mut middle = CertificateParams::new(Vec::new()).unwrap();
        middle.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        middle.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        middle.use_authority_key_identifier_extension = true;
        middle.distinguished_name.push(rcgen::DnType::CommonName, "between");
        let (between, middle) = issue(&root, middle);
        let (far, _) = issue(&middle, named());
        let empty = directory.path().join("empty");
        std::fs::write(&empty, "").unwrap();

        use CheckResult::{Failed, Passed, Warning};
        let says = |chain: &[CertificateDer<'static>], authority: Option<&Path>| {
            trust(chain, authority, now)[0].result
        };
        let leaf = std::slice::from_ref(&leaf);
        assert_eq!(says(leaf, Some(&ours)), Passed);
        assert_eq!(says(leaf, Some(&other)), Failed, "the name of the authority is not enough");
        assert_eq!(says(&[forged], Some(&ours)), Failed);
        assert_eq!(says(leaf, Some(&empty)), Failed);
        assert_eq!(says(leaf, Some(&directory.path().join("none"))), Failed);
        assert_eq!(says(leaf, None), Warning, "nobody trusts it without being told");
        assert_eq!(says(&[far.clone(), between], Some(&ours)), Passed);
        assert_eq!(says(&[far], Some(&ours)), Failed, "what is between is missing");
    }
}

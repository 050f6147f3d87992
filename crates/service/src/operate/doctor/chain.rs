//! Finds what OpenSSL, and so Python, refuses in a certificate chain that rustls accepts. Pure functions.
//!
//! Since 3.13 Python's usual context holds to RFC 5280 (`VERIFY_X509_STRICT`); what only that refuses is [`Kind::strict`].
//! `tests/e2e/test_doctor.py` compares every row with what Python says.

use std::fmt;

use x509_parser::prelude::{ParsedExtension, X509Certificate};

/// What is wrong with one certificate of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Whose certificate it is.
    pub(super) subject: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    NoNames,
    NotForServers,
    NotForHandshakes,
    NotAnAuthority,
    MayNotSign,
    AuthorityWithoutUsage,
    AuthorityNotCritical,
    SignsAsNoAuthority,
    NoIssuersKey,
    NoKeyIdentifier,
}

impl Kind {
    /// Whether only Python 3.13 and later refuse it.
    pub(super) fn strict(self) -> bool {
        match self {
            Kind::NoNames
            | Kind::NotForServers
            | Kind::NotForHandshakes
            | Kind::NotAnAuthority
            | Kind::MayNotSign => false,
            Kind::AuthorityWithoutUsage
            | Kind::AuthorityNotCritical
            | Kind::SignsAsNoAuthority
            | Kind::NoIssuersKey
            | Kind::NoKeyIdentifier => true,
        }
    }

    /// How it has to be issued, in the words of OpenSSL's configuration.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Kind::NoNames => "subjectAltName = DNS:NAME",
            Kind::NotForServers => "extendedKeyUsage = serverAuth",
            Kind::NotForHandshakes => "keyUsage = critical, digitalSignature",
            Kind::NotAnAuthority | Kind::AuthorityNotCritical => "basicConstraints = critical, CA:TRUE",
            Kind::MayNotSign | Kind::AuthorityWithoutUsage => "keyUsage = critical, keyCertSign, cRLSign",
            Kind::SignsAsNoAuthority => "keyUsage = critical, digitalSignature",
            Kind::NoIssuersKey => "authorityKeyIdentifier = keyid",
            Kind::NoKeyIdentifier => "subjectKeyIdentifier = hash",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = &self.subject;
        match self.kind {
            Kind::NoNames => write!(f, "{of} has no subjectAltName; the name in its subject does not count"),
            Kind::NotForServers => write!(f, "the extendedKeyUsage of {of} lacks serverAuth"),
            Kind::NotForHandshakes => {
                write!(f, "the keyUsage of {of} lacks digitalSignature, keyEncipherment and keyAgreement")
            }
            Kind::NotAnAuthority => write!(f, "{of} has signed, and its basicConstraints lack CA:TRUE"),
            Kind::MayNotSign => write!(f, "{of} has signed, and its keyUsage lacks keyCertSign"),
            Kind::AuthorityWithoutUsage => write!(f, "{of} is an authority and has no keyUsage"),
            Kind::AuthorityNotCritical => {
                write!(f, "{of} is an authority and its basicConstraints are not critical")
            }
            Kind::SignsAsNoAuthority => {
                write!(f, "the keyUsage of {of} has keyCertSign, and it is no authority")
            }
            Kind::NoIssuersKey => write!(f, "{of} has no authorityKeyIdentifier"),
            Kind::NoKeyIdentifier => write!(f, "{of} is an authority and has no subjectKeyIdentifier"),
        }
    }
}

/// The certificates from the first of `chain` to one of `roots`, by their names. None if the chain doesn't lead to a root.
pub(super) fn path<'a>(
    chain: &'a [X509Certificate<'a>],
    roots: &'a [X509Certificate<'a>],
) -> Option<Vec<&'a X509Certificate<'a>>> {
    let mut path = vec![chain.first()?];
    // Longer than any chain is, so that certificates that have signed each other come to an end.
    while path.len() <= chain.len() + 1 {
        let last = *path.last()?;
        if roots.iter().any(|root| same(root, last)) {
            return Some(path);
        }
        let mut issuers = roots.iter().chain(chain.iter().skip(1)).filter(|it| may_have_signed(it, last));
        path.push(issuers.next()?);
    }
    None
}

fn same(one: &X509Certificate<'_>, other: &X509Certificate<'_>) -> bool {
    one.subject() == other.subject() && one.public_key() == other.public_key()
}

fn may_have_signed(issuer: &X509Certificate<'_>, of: &X509Certificate<'_>) -> bool {
    let keys = (own_key(issuer), issuers_key(of));
    issuer.subject() == of.issuer()
        && !same(issuer, of)
        && !matches!(keys, (Some(one), Some(other)) if one != other)
}

fn own_key<'a>(of: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    of.extensions().iter().find_map(|it| match it.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0),
        _ => None,
    })
}

fn issuers_key<'a>(of: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    of.extensions().iter().find_map(|it| match it.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(known) => known.key_identifier.as_ref().map(|key| key.0),
        _ => None,
    })
}

/// All faults of a path from the service's certificate to a root.
pub(super) fn faults(path: &[&X509Certificate<'_>]) -> Vec<Fault> {
    let mut found = Vec::new();
    for (at, certificate) in path.iter().enumerate() {
        let mut has = |is: bool, kind| {
            if is {
                found.push(Fault { subject: certificate.subject().to_string(), kind });
            }
        };
        let usage = certificate.key_usage().ok().flatten();
        let signs = usage.as_ref().is_some_and(|usage| usage.value.key_cert_sign());
        let purposes = certificate.extended_key_usage().ok().flatten();
        let constraints = certificate.basic_constraints().ok().flatten();
        let authority = constraints.as_ref().is_some_and(|it| it.value.ca);
        let (leaf, root) = (at == 0, at + 1 == path.len());
        has(purposes.is_some_and(|it| !it.value.server_auth), Kind::NotForServers);
        if leaf {
            let names = certificate.subject_alternative_name().ok().flatten();
            has(names.is_none_or(|it| it.value.general_names.is_empty()), Kind::NoNames);
            let shakes = usage.as_ref().is_none_or(|it| {
                it.value.digital_signature() || it.value.key_encipherment() || it.value.key_agreement()
            });
            has(!shakes, Kind::NotForHandshakes);
        } else {
            has(!authority, Kind::NotAnAuthority);
            has(usage.is_some() && !signs, Kind::MayNotSign);
        }
        // RFC 5280 says nothing of a certificate that is trusted by itself.
        if path.len() > 1 {
            has(authority && usage.is_none(), Kind::AuthorityWithoutUsage);
            has(authority && constraints.is_some_and(|it| !it.critical), Kind::AuthorityNotCritical);
            has(!authority && signs, Kind::SignsAsNoAuthority);
            has(!root && issuers_key(certificate).is_none(), Kind::NoIssuersKey);
            has(authority && own_key(certificate).is_none(), Kind::NoKeyIdentifier);
        }
    }
    found
}

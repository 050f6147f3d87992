//! What may be wrong with an installation, looked for from its data directory; and how to mend it.
//!
//! It changes nothing, and it works whether the service runs or not. Each check says what it has seen; one that could
//! not look says that, rather than that all is well.

use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access, geteuid};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ambient;
use crate::certificates::Files;
use crate::client_environment::Reach;
use crate::config::Config;
use crate::doors::{self, Spoken};
use crate::serve::certificate_files;
use crate::store::Store;

/// Below this the next result may not fit.
const DISK_LOW: u64 = 256 << 20;
/// With fewer, large payloads soon find no place.
const FILES_LOW: u64 = 1_000;
/// Below this somebody should look.
const DISK_SHORT: u64 = 4 << 30;
/// 2025, in seconds: this program was written later.
const WRITTEN: i64 = 1_735_689_600;
/// How long before its end a certificate is worth a word.
const SOON: SignedDuration = SignedDuration::from_hours(24 * 14);
/// How long a door may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where distributions keep the authorities that everybody trusts.
const AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Well,
    /// It works, and may not for long; or it could not be looked at.
    Warning,
    Wrong,
}

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub of: &'static str,
    pub verdict: Verdict,
    pub seen: String,
    /// How to mend it.
    pub mend: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Well => "well   ",
            Verdict::Warning => "warning",
            Verdict::Wrong => "WRONG  ",
        };
        write!(f, "{verdict}  {}: {}", self.of, self.seen)?;
        match &self.mend {
            Some(mend) => write!(f, "\n         -> {mend}"),
            None => Ok(()),
        }
    }
}

fn well(of: &'static str, seen: impl Into<String>) -> Finding {
    Finding { of, verdict: Verdict::Well, seen: seen.into(), mend: None }
}

fn warning(of: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { of, verdict: Verdict::Warning, seen: seen.into(), mend: Some(mend.into()) }
}

fn wrong(of: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { of, verdict: Verdict::Wrong, seen: seen.into(), mend: Some(mend.into()) }
}

/// Looks at everything that `config` makes of the data directory `root`.
/// `authority`: the file whose certificates clients are told to trust, if they are told.
pub async fn examine(root: &Path, config: &Config, authority: Option<&Path>) -> Vec<Finding> {
    let mut findings = vec![directory(root)];
    findings.push(disk(root));
    findings.push(clock());
    findings.push(database(root).await);
    let running = runs(root);
    findings.push(match running {
        true => well("service", "it runs on this data directory"),
        false => well("service", "it does not run; its ports were tried instead of asked"),
    });
    for (address, spoken) in doors::plan(config) {
        if address.port() != 0 {
            findings.extend(door(address, spoken, running).await);
        }
    }
    if let Some(files) = certificate_files(&config.tls, root) {
        findings.extend(certificate(&files, &names(config), authority, ambient::now()));
    }
    findings.push(outside(config));
    findings
}

fn directory(root: &Path) -> Finding {
    const OF: &str = "data directory";
    let shown = root.display();
    let known = match std::fs::metadata(root) {
        Ok(known) => known,
        Err(error) => return wrong(OF, format!("{shown}: {error}"), "run this as the service's user"),
    };
    if access(root, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let mend = format!("chown -R it to the service's user, who is now {}", geteuid());
        return wrong(OF, format!("{shown} cannot be written by this user"), mend);
    }
    match known.mode() & 0o077 {
        0 => well(OF, format!("{shown}, for its owner only")),
        _ => wrong(OF, format!("{shown} is open to others"), format!("chmod 700 {shown}")),
    }
}

fn disk(root: &Path) -> Finding {
    const OF: &str = "disk";
    let there = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let Ok(known) = statvfs(there) else {
        return warning(OF, format!("{} could not be asked", there.display()), "look with `df`");
    };
    let free = known.blocks_available().saturating_mul(known.fragment_size());
    let files = (known.files() > 0).then(|| known.files_available());
    room(free, files, there)
}

/// Whether so many bytes, and so many files if those are limited, are enough.
fn room(free: u64, files: Option<u64>, there: &Path) -> Finding {
    const OF: &str = "disk";
    let shown = format!("{:.1} GB free below {}", free as f64 / 1e9, there.display());
    let mend = "make room, or shorten limits.result_days";
    if let Some(files) = files.filter(|files| *files < FILES_LOW) {
        return wrong(OF, format!("{files} files may still be made below {}", there.display()), mend);
    }
    match free {
        free if free < DISK_LOW => wrong(OF, shown, mend),
        free if free < DISK_SHORT => warning(OF, shown, mend),
        _ => well(OF, shown),
    }
}

/// Tokens, commands to managers and certificates all go by it.
fn clock() -> Finding {
    let keepers = [
        "/run/systemd/timesync/synchronized",
        "/run/chrony/chronyd.pid",
        "/run/chronyd.pid",
        "/run/ntpd.pid",
    ];
    time(ambient::now(), keepers.iter().any(|path| Path::new(path).exists()))
}

fn time(now: Timestamp, kept: bool) -> Finding {
    const OF: &str = "clock";
    let mend = "run a time service, such as chrony or systemd-timesyncd";
    // No copy of this program is older than itself.
    if now.as_second() < WRITTEN {
        return wrong(OF, format!("it says {now:.0}"), mend);
    }
    match kept {
        true => well(OF, format!("{now:.0}, kept by a time service")),
        false => warning(OF, format!("{now:.0}; no time service was found that keeps it"), mend),
    }
}

async fn database(root: &Path) -> Finding {
    const OF: &str = "database";
    let path = root.join("farcall.db");
    if !path.exists() {
        return well(OF, "there is none yet; the first start makes it");
    }
    match Store::inspect(&path).await {
        Ok(said) if said == "ok" => well(OF, format!("{} is whole", path.display())),
        Ok(said) => {
            let mend = "stop the service, keep a copy of the files, and restore the last backup";
            wrong(OF, format!("{}: {said}", path.display()), mend)
        }
        Err(error) => {
            wrong(OF, error.to_string(), "run this as the service's user, on the service's machine")
        }
    }
}

/// Whether a service holds the data directory.
fn runs(root: &Path) -> bool {
    let Ok(file) = std::fs::File::open(root.join("lock")) else { return false };
    matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
}

async fn door(address: SocketAddr, spoken: Spoken, running: bool) -> Vec<Finding> {
    if !running {
        return vec![free(address)];
    }
    let mut findings = Vec::new();
    if spoken.http {
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        findings.push(match ask(address, request.as_bytes(), 12).await {
            Ok(said) if said.starts_with(b"HTTP/1.1 200") => well("http", format!("{address} is ready")),
            Ok(said) => {
                let said = String::from_utf8_lossy(&said).into_owned();
                wrong("http", format!("{address} answers {said:?}"), "read the service's log")
            }
            Err(error) => wrong("http", format!("{address}: {error}"), "read the service's log"),
        });
    }
    if spoken.amqp {
        findings.push(match ask(address, b"AMQP\x00\x00\x09\x01", 11).await {
            Ok(said) if said.first() == Some(&1) => well("broker", format!("{address} greets")),
            Ok(_) => {
                wrong("broker", format!("{address} answers, and is no broker"), "read the service's log")
            }
            Err(error) => wrong("broker", format!("{address}: {error}"), "read the service's log"),
        });
    }
    if spoken.https || spoken.amqps {
        findings.push(match TcpStream::connect(address).await {
            Ok(_) => well("tls", format!("{address} accepts connections")),
            Err(error) => wrong("tls", format!("{address}: {error}"), "read the service's log"),
        });
    }
    findings
}

/// Whether the service could listen here.
fn free(address: SocketAddr) -> Finding {
    const OF: &str = "port";
    match TcpListener::bind(address) {
        Ok(_) => well(OF, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let mend = format!(
                "stop what listens there (`ss -ltnp sport = :{}`), or choose another",
                address.port()
            );
            wrong(OF, format!("{address} is in use"), mend)
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let mend = "ports below 1024 need CAP_NET_BIND_SERVICE (AmbientCapabilities= in the unit)";
            wrong(OF, format!("{address}: {error}"), mend)
        }
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            wrong(OF, format!("{address} is no address of this machine"), "see `ip address`, or use 0.0.0.0")
        }
        Err(error) => wrong(OF, format!("{address}: {error}"), "choose another address"),
    }
}

/// Says `words`, and reads the first bytes of the answer.
async fn ask(address: SocketAddr, words: &[u8], length: usize) -> std::io::Result<Vec<u8>> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(words).await?;
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// The names under which clients will look for the certificate.
fn names(config: &Config) -> Vec<String> {
    let public =
        config.http.public_names.iter().map(|name| name.rsplit_once(':').map_or(name.as_str(), |it| it.0));
    let mut names: Vec<String> =
        config.amqp.public_host.iter().map(String::as_str).chain(public).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn certificate(files: &Files, names: &[String], authority: Option<&Path>, now: Timestamp) -> Vec<Finding> {
    const OF: &str = "certificate";
    let chain = match files.read() {
        Ok(read) => read.cert,
        Err(error) => {
            let mend =
                "tls.certificate holds the chain, the service's own first; tls.key its key; both in PEM";
            return vec![wrong(OF, error.to_string(), mend)];
        }
    };
    let Some((leaf, ends)) = chain.first().and_then(|leaf| Some((leaf, ends(leaf)?))) else {
        return vec![wrong(OF, "it cannot be read", "have it issued again")];
    };
    let shown = files.certificate.display();
    let mut findings = vec![match ends {
        ends if ends <= now => wrong(OF, format!("{shown} has ended, on {ends:.0}"), "renew it"),
        ends if ends <= now + SOON => warning(
            OF,
            format!("{shown} ends soon, on {ends:.0}"),
            "renew it; the service reads it anew by itself",
        ),
        ends => well(OF, format!("{shown} is good until {ends:.0}")),
    }];
    if names.is_empty() {
        let mend = "set amqp.public_host, which stands in the addresses that endpoints get";
        findings.push(warning(OF, "no public name is configured that it could be compared with", mend));
    }
    for name in names {
        let covered = ParsedCertificate::try_from(leaf).is_ok_and(|leaf| {
            ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&leaf, &name).is_ok())
        });
        findings.push(match covered {
            true => well(OF, format!("it is for {name}")),
            false => wrong(OF, format!("it is not for {name}"), "have it issued for it, too"),
        });
    }
    findings.push(trust(&chain, authority, now));
    findings
}

fn ends(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(read.validity().not_after.timestamp()).ok()
}

/// Whether clients would trust the chain: those that trust what everybody does, or those that are told to trust what is
/// in the file `authority`.
fn trust(chain: &[CertificateDer<'_>], authority: Option<&Path>, now: Timestamp) -> Finding {
    const OF: &str = "trust";
    let public = || AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
    let Some(bundle) = authority.or_else(public) else {
        let seen = "no public authorities were found here to compare with";
        return warning(OF, seen, "install ca-certificates");
    };
    let whom = match authority {
        Some(file) => format!("the authority in {}", file.display()),
        None => "the public authorities".to_owned(),
    };
    let mut roots = RootCertStore::empty();
    match CertificateDer::pem_file_iter(bundle) {
        Ok(read) => drop(roots.add_parsable_certificates(read.filter_map(Result::ok))),
        Err(error) => {
            return wrong(OF, format!("{}: {error}", bundle.display()), "give another file to --ca");
        }
    }
    if roots.is_empty() {
        let seen = format!("{} holds no certificate of an authority", bundle.display());
        return wrong(OF, seen, "give another file to --ca");
    }
    match verify(chain, &roots, now) {
        Ok(()) => well(OF, format!("clients that trust {whom} trust it")),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => match authority {
            Some(_) => wrong(
                OF,
                format!("clients that trust {whom} do not trust it"),
                "have it issued by that authority, and see that tls.certificate holds the whole chain",
            ),
            None => warning(
                OF,
                format!("clients that trust {whom} do not trust it"),
                "with an authority of your own, clients need its certificate: `farcall connect URL --ca FILE` takes \
                 it, and `farcall doctor --ca FILE` says whether it fits; else the chain may lack what is between",
            ),
        },
        Err(error) => {
            wrong(OF, format!("clients that trust {whom} refuse it: {error}"), "have it issued anew")
        }
    }
}

/// As a client verifies it, but for the name.
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

/// Where clients and endpoints will be sent.
fn outside(config: &Config) -> Finding {
    const OF: &str = "clients";
    let reachable = |address: &SocketAddr| !address.ip().is_loopback();
    let open = |list: &[SocketAddr]| list.iter().any(reachable);
    let http = open(&config.http.listen.0) || open(&config.http.tls_listen.0);
    let amqp = open(&config.amqp.listen.0) || open(&config.amqp.tls_listen.0);
    match (http, amqp, &config.amqp.public_host) {
        (false, false, _) => {
            let env =
                Reach::parse("http://localhost:5000").map(|it| it.variables().script()).unwrap_or_default();
            let set = env.lines().filter(|line| line.starts_with("export")).collect::<Vec<_>>().join("; ");
            well(OF, format!("only this machine is served; clients set: {set}"))
        }
        (true, false, None) => warning(
            OF,
            "others reach HTTP, but not the broker",
            "set amqp.listen or amqp.tls_listen; behind a proxy or tunnel amqp.public_host and amqp.public_port",
        ),
        (_, _, None) => warning(
            OF,
            "the addresses of the broker follow from how each request arrives",
            "set amqp.public_host to the name by which others reach this machine",
        ),
        (_, _, Some(host)) => well(
            OF,
            format!("they find the broker at {host}; `farcall connect URL` leads them to the service"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Addresses;

    #[test]
    fn a_certificate_and_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files { certificate: directory.path().join("c"), key: directory.path().join("k") };
        let missing = certificate(&files, &[], None, Timestamp::UNIX_EPOCH);
        assert_eq!(missing[0].verdict, Verdict::Wrong);
        let made = rcgen::generate_simple_self_signed(vec!["compute.example.org".to_owned()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let ends = ends(made.cert.der()).unwrap();
        let names = ["compute.example.org".to_owned(), "other.example.org".to_owned()];
        let verdicts = |at: Timestamp| -> Vec<Verdict> {
            certificate(&files, &names, None, at).iter().take(3).map(|finding| finding.verdict).collect()
        };
        use Verdict::{Warning, Well, Wrong};
        assert_eq!(verdicts(ends - SignedDuration::from_hours(24 * 30)), [Well, Well, Wrong]);
        assert_eq!(verdicts(ends - SignedDuration::from_hours(24)), [Warning, Well, Wrong]);
        assert_eq!(verdicts(ends), [Wrong, Well, Wrong]);
    }

    /// An authority, what it has issued, and what somebody of the same name has.
    #[test]
    fn a_chain_is_trusted_as_clients_do() {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let directory = tempfile::tempdir().unwrap();
        let now = ambient::now();
        let authority = |file: &str| {
            let key = KeyPair::generate().unwrap();
            let mut parameters = CertificateParams::new(Vec::new()).unwrap();
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let path = directory.path().join(file);
            std::fs::write(&path, parameters.self_signed(&key).unwrap().pem()).unwrap();
            (path, Issuer::new(parameters, key))
        };
        let issue = |issuer: &Issuer<'static, KeyPair>, parameters: CertificateParams| {
            let key = KeyPair::generate().unwrap();
            let made = parameters.signed_by(&key, issuer).unwrap();
            (made.der().clone(), Issuer::new(parameters, key))
        };
        let named = || CertificateParams::new(vec!["compute.example.org".to_owned()]).unwrap();
        let ((ours, root), (other, namesake)) = (authority("ours"), authority("other"));
        let (leaf, _) = issue(&root, named());
        let (forged, _) = issue(&namesake, named());
        let mut middle = CertificateParams::new(Vec::new()).unwrap();
        middle.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        middle.distinguished_name.push(rcgen::DnType::CommonName, "between");
        let (between, middle) = issue(&root, middle);
        let (far, _) = issue(&middle, named());
        let empty = directory.path().join("empty");
        std::fs::write(&empty, "").unwrap();

        use Verdict::{Warning, Well, Wrong};
        let says = |chain: &[CertificateDer<'static>], authority: Option<&Path>| {
            trust(chain, authority, now).verdict
        };
        let leaf = std::slice::from_ref(&leaf);
        assert_eq!(says(leaf, Some(&ours)), Well);
        assert_eq!(says(leaf, Some(&other)), Wrong, "the name of the authority is not enough");
        assert_eq!(says(&[forged], Some(&ours)), Wrong);
        assert_eq!(says(leaf, Some(&empty)), Wrong);
        assert_eq!(says(leaf, Some(&directory.path().join("none"))), Wrong);
        assert_eq!(says(leaf, None), Warning, "nobody trusts it without being told");
        assert_eq!(says(&[far.clone(), between], Some(&ours)), Well);
        assert_eq!(says(&[far], Some(&ours)), Wrong, "what is between is missing");
    }

    #[test]
    fn disks_and_clocks() {
        use Verdict::{Warning, Well, Wrong};
        let room = |free, files| room(free, files, Path::new("/srv")).verdict;
        assert_eq!(room(100 << 30, None), Well);
        assert_eq!(room(100 << 30, Some(1 << 20)), Well);
        assert_eq!(room(100 << 30, Some(10)), Wrong, "files can run out before bytes do");
        assert_eq!(room(1 << 30, None), Warning);
        assert_eq!(room(1 << 20, None), Wrong);
        let now = Timestamp::from_second(WRITTEN).unwrap();
        assert_eq!(time(now, true).verdict, Well);
        assert_eq!(time(now, false).verdict, Warning);
        assert_eq!(time(Timestamp::UNIX_EPOCH, true).verdict, Wrong);
    }

    #[test]
    fn ports() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(free(address).verdict, Verdict::Wrong);
        drop(taken);
        assert_eq!(free(address).verdict, Verdict::Well);
        let elsewhere = free("192.0.2.1:4000".parse().unwrap());
        assert!(elsewhere.seen.contains("no address of this machine"), "{elsewhere}");
    }

    #[test]
    fn where_clients_are_sent() {
        let mut config = Config::default();
        assert_eq!(outside(&config).verdict, Verdict::Well);
        config.http.listen = Addresses(vec!["0.0.0.0:5000".parse().unwrap()]);
        assert_eq!(outside(&config).verdict, Verdict::Warning);
        config.amqp.listen = Addresses(vec!["0.0.0.0:5672".parse().unwrap()]);
        assert_eq!(outside(&config).verdict, Verdict::Warning);
        config.amqp.public_host = Some("compute.example.org".into());
        config.http.public_names = vec!["compute.example.org:443".into(), "[2001:db8::1]:443".into()];
        assert_eq!(outside(&config).verdict, Verdict::Well);
        assert_eq!(names(&config), ["[2001:db8::1]", "compute.example.org"]);
    }
}

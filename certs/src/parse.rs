//! Reading certificates: who a peer proved to be, and what `vecino certs show` prints.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::{CertsError, KeyId, Role, files};

/// Who the other side of a connection proved to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Hash of the key that the peer holds.
    pub key_id: KeyId,
    /// What its certificate entitles it to be.
    pub role: Role,
    /// Common name in its certificate, for logs.
    pub name: String,
    /// When its certificate expires.
    pub not_after: SystemTime,
}

/// What kind of certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKind {
    /// Signs other certificates.
    Authority,
    /// Belongs to a node or a client.
    Leaf(Role),
    /// None of this mesh's kinds.
    Other,
}

impl fmt::Display for CertificateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authority => "authority",
            Self::Leaf(role) => role.name(),
            Self::Other => "other",
        })
    }
}

/// One certificate in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// What kind it is.
    pub kind: CertificateKind,
    /// Common name.
    pub name: String,
    /// Whole subject.
    pub subject: String,
    /// Whole subject of the certificate that signed it.
    pub issuer: String,
    /// Id of the node that holds it; absent where the certificate is not a node's.
    pub key_id: Option<KeyId>,
    /// Serial number in hex.
    pub serial: String,
    /// Subject alternative names.
    pub sans: Vec<String>,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
}

impl CertificateInfo {
    /// Whether it is no longer valid at `now`.
    pub fn expired_at(&self, now: SystemTime) -> bool {
        now > self.not_after
    }
}

/// SHA-256 of a DER-encoded certificate, as `openssl x509 -fingerprint -sha256` computes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(certificate: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// The first 16 hex digits, which are enough to tell one certificate from another.
    pub fn short(&self) -> String {
        self.0[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Reads who a peer is from the chain that it presented. The chain must have been verified by TLS before.
///
/// # Errors
/// When the chain is empty, unreadable, or begins with neither a node's nor a client's certificate.
pub fn inspect_peer(chain: &[CertificateDer<'_>]) -> Result<PeerCertificate, CertsError> {
    const ORIGIN: &str = "certificate of the peer";
    let leaf = chain.first().ok_or_else(|| CertsError::certificate(ORIGIN, "it presented none"))?;
    let certificate = parse(leaf, ORIGIN)?;
    let info = describe(&certificate, leaf);
    let CertificateKind::Leaf(role) = info.kind else {
        return Err(CertsError::certificate(ORIGIN, format_args!("{} is neither a node nor a client", info.subject)));
    };
    Ok(PeerCertificate {
        key_id: KeyId::of_public_key(certificate.public_key().raw),
        role,
        name: info.name,
        not_after: info.not_after,
    })
}

/// Reads every certificate in a PEM file, or in the files `*.crt` of a folder, in the order of their names.
///
/// # Errors
/// When a file cannot be read or holds no certificate, or the folder holds no such file.
pub fn show(path: impl AsRef<Path>) -> Result<Vec<CertificateInfo>, CertsError> {
    let path = path.as_ref();
    if path.is_dir() {
        let files = files::certificate_files(path)?;
        if files.is_empty() {
            return Err(CertsError::NoCertificates { dir: path.to_owned() });
        }
        let shown = files.iter().map(show).collect::<Result<Vec<_>, _>>()?;
        return Ok(shown.into_iter().flatten().collect());
    }
    let origin = path.display().to_string();
    files::read_certificates(path)?.iter().map(|der| Ok(describe(&parse(der, &origin)?, der))).collect()
}

/// A time as RFC 3339 in UTC, to the second, as certificates keep it.
pub fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .replace_nanosecond(0)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "out of range".to_owned())
}

pub(crate) fn parse<'a>(der: &'a [u8], origin: &str) -> Result<X509Certificate<'a>, CertsError> {
    let (rest, certificate) = X509Certificate::from_der(der)
        .map_err(|error| CertsError::certificate(origin, format_args!("not a readable certificate: {error}")))?;
    if !rest.is_empty() {
        return Err(CertsError::certificate(
            origin,
            format_args!("{} bytes follow the end of the certificate", rest.len()),
        ));
    }
    Ok(certificate)
}

pub(crate) fn describe(certificate: &X509Certificate<'_>, der: &[u8]) -> CertificateInfo {
    let kind = kind(certificate);
    let name = certificate.subject().iter_common_name().next();
    let name = name.and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned();
    let sans = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().map(general_name).collect(),
        _ => Vec::new(),
    };
    CertificateInfo {
        kind,
        name,
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        key_id: (kind == CertificateKind::Leaf(Role::Node)).then(|| KeyId::of_public_key(certificate.public_key().raw)),
        serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        sans,
        not_before: system_time(certificate.validity().not_before.timestamp()),
        not_after: system_time(certificate.validity().not_after.timestamp()),
        fingerprint: Fingerprint::of(der),
    }
}

/// The role is what the extended key usage allows, exactly: anything more or less is no certificate of a mesh.
fn kind(certificate: &X509Certificate<'_>) -> CertificateKind {
    if certificate.is_ca() {
        return CertificateKind::Authority;
    }
    let Ok(Some(usage)) = certificate.extended_key_usage() else {
        return CertificateKind::Other;
    };
    match (usage.value.any, usage.value.server_auth, usage.value.client_auth) {
        (false, true, true) => CertificateKind::Leaf(Role::Node),
        (false, false, true) => CertificateKind::Leaf(Role::Client),
        _ => CertificateKind::Other,
    }
}

fn general_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(v4), _) => IpAddr::from(Ipv4Addr::from(v4)).to_string(),
            (_, Ok(v6)) => IpAddr::from(Ipv6Addr::from(v6)).to_string(),
            _ => name.to_string(),
        },
        _ => name.to_string(),
    }
}

fn system_time(unix_seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(unix_seconds.unsigned_abs());
    if unix_seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, IssueOptions};

    #[test]
    fn show_gives_the_fields_of_every_certificate_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::init(dir.path().join("ca"), "coast").unwrap();
        let sans = vec!["n1.example.org".to_owned(), "192.0.2.1".to_owned(), "2001:db8::1".to_owned()];
        let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let options = IssueOptions { sans, days: 30, not_before: Some(start), ..IssueOptions::new("n1", Role::Node) };
        let issued = authority.issue(&options).unwrap();
        issued.write(dir.path().join("n1")).unwrap();

        let shown = show(dir.path().join("n1/node.crt")).unwrap();
        let [info] = &shown[..] else { panic!("one certificate, not {shown:?}") };
        assert_eq!(info.kind, CertificateKind::Leaf(Role::Node));
        assert_eq!(info.name, "n1");
        assert_eq!(info.subject, "O=vecino node, CN=n1");
        assert_eq!(info.issuer, "O=vecino authority, CN=coast");
        assert_eq!(info.key_id, Some(issued.key_id()));
        assert_eq!(info.sans, ["node.vecino.internal", "n1.example.org", "192.0.2.1", "2001:db8::1"]);
        assert_eq!(rfc3339(info.not_before), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(info.not_after), "2023-12-14T22:13:20Z");
        assert!(info.expired_at(SystemTime::now()) && !info.expired_at(start));
        assert!(!info.serial.is_empty());

        let shown = show(dir.path().join("n1/ca.crt")).unwrap();
        assert_eq!((shown[0].kind, shown[0].key_id), (CertificateKind::Authority, None));
        assert_eq!(shown[0].fingerprint, authority.fingerprint());
        // A folder is shown file by file.
        let kinds: Vec<_> = show(dir.path().join("n1")).unwrap().iter().map(|info| info.kind).collect();
        assert_eq!(kinds, [CertificateKind::Authority, CertificateKind::Leaf(Role::Node)]);
        let error = show(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no certificate in the folder") && error.contains("ca.crt"), "{error}");
        assert!(show(dir.path().join("n1/node.key")).unwrap_err().to_string().contains("no CERTIFICATE section"));
    }

    /// The certificate was made once; the expected values were read from it with `openssl x509`, and the node id is
    /// the blake3 hash of the DER that `openssl pkey -pubin -outform DER` gave for its public key.
    #[test]
    fn a_certificate_made_long_ago_keeps_its_key_id() {
        let pem = include_str!("../testdata/node.crt");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("node.crt"), pem).unwrap();
        let info = show(dir.path().join("node.crt")).unwrap().swap_remove(0);
        assert_eq!(info.key_id.unwrap().to_string(), "8a461acf371ab26a03c9e9cbdbf15944");
        assert_eq!(info.fingerprint.to_string(), "6f1ceba4c0a3f228e324bfc94f5714be71c71b422612e97df90226fa1f96a184");
        assert_eq!(info.serial, "5b2aaf4024f74ddb41fb43d8937d2ca26ca4dfbf");
        assert_eq!(rfc3339(info.not_after), "2035-02-07T02:16:59Z");
    }
}

//! The mesh authority: it signs the certificate of every node and client of one mesh.
//!
//! An authority is a folder with `ca.crt` and `ca.key`. The key stays there: nodes and clients get `ca.crt` only.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::files::{self, AUTHORITY_CERTIFICATE, Access};
use crate::parse::{self, CertificateInfo, CertificateKind, Fingerprint};
use crate::{CertsError, Identity, KeyId, NODE_SERVER_NAME, Role};

/// How long an authority is valid.
pub const AUTHORITY_DAYS: u32 = 3650;
/// How long a node's or client's certificate is valid unless told otherwise.
pub const LEAF_DAYS_DEFAULT: u32 = 365;
/// Longest validity of a node's or client's certificate, in days.
pub const LEAF_DAYS_MAX: u32 = AUTHORITY_DAYS;
/// Longest name of an authority, node or client, in bytes (X.520 allows a common name no more).
pub const NAME_BYTES_MAX: usize = 64;
/// Most subject alternative names in one certificate.
pub const SANS_MAX: usize = 64;

/// Certificates are valid from a little before they are made, so that a machine whose clock is behind accepts them.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) const AUTHORITY_KEY: &str = "ca.key";

/// The certificate authority of one mesh.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    trusted: Trusted,
    info: CertificateInfo,
}

/// What is in `ca.crt`: the certificate of the authority, and after it those of others that the mesh still trusts while
/// one replaces another. Holders of issued certificates get all of it.
#[derive(Clone)]
struct Trusted {
    certificates: Vec<CertificateDer<'static>>,
    pem: String,
}

impl Authority {
    /// Makes an authority, valid for [`AUTHORITY_DAYS`], and keeps it in `dir`.
    ///
    /// # Errors
    /// When `dir` holds one already, `name` is not 1 to [`NAME_BYTES_MAX`] bytes of visible text, or a file cannot be
    /// written.
    pub fn init(dir: impl AsRef<Path>, name: &str) -> Result<Self, CertsError> {
        let dir = dir.as_ref();
        for file in [AUTHORITY_CERTIFICATE, AUTHORITY_KEY] {
            if dir.join(file).exists() {
                return Err(CertsError::AuthorityExists { path: dir.join(file) });
            }
        }
        let not_before = SystemTime::now() - CLOCK_SKEW;
        let mut params = params(name, "vecino authority", not_before, AUTHORITY_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        files::create_dir(dir)?;
        files::write_all_new(&[
            (dir.join(AUTHORITY_KEY), &key.serialize_pem(), Access::Secret),
            (dir.join(AUTHORITY_CERTIFICATE), &certificate.pem(), Access::Public),
        ])?;
        Self::open(dir)
    }

    /// Opens the authority in `dir`.
    ///
    /// # Errors
    /// When there is none, or its files do not belong together.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, CertsError> {
        let dir = dir.as_ref();
        for missing in [AUTHORITY_CERTIFICATE, AUTHORITY_KEY] {
            if !dir.join(missing).exists() {
                return Err(CertsError::AuthorityMissing { dir: dir.to_owned(), missing });
            }
        }
        let (certificate_path, key_path) = (dir.join(AUTHORITY_CERTIFICATE), dir.join(AUTHORITY_KEY));
        let (origin, key_origin) = (certificate_path.display().to_string(), key_path.display().to_string());
        let trusted = Trusted {
            certificates: files::read_certificates(&certificate_path)?,
            pem: String::from_utf8_lossy(&files::read(&certificate_path)?).into_owned(),
        };
        let certificate = &trusted.certificates[0];
        let key = KeyPair::try_from(&files::read_key(&key_path)?)
            .map_err(|error| CertsError::certificate(&key_origin, format_args!("not a usable key: {error}")))?;
        let (info, matches) = {
            let parsed = parse::parse(certificate, &origin)?;
            (parse::describe(&parsed, certificate), parsed.public_key().raw == key.subject_public_key_info())
        };
        if info.kind != CertificateKind::Authority {
            let reason = format_args!("this is the certificate of a {}, not of an authority", info.kind);
            return Err(CertsError::certificate(origin, reason));
        }
        if !matches {
            return Err(CertsError::KeyMismatch { certificate: origin, key: key_origin });
        }
        let issuer = Issuer::from_ca_cert_der(certificate, key)?;
        Ok(Self { issuer, trusted, info })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Hash of its certificate, by which people compare authorities.
    pub fn fingerprint(&self) -> Fingerprint {
        self.info.fingerprint
    }

    /// When it expires, and every certificate that it issued with it.
    pub fn not_after(&self) -> SystemTime {
        self.info.not_after
    }

    /// Makes a key and a certificate for a node or a client.
    ///
    /// # Errors
    /// When an option is out of its limits, or the certificate would outlive the authority.
    pub fn issue(&self, options: &IssueOptions) -> Result<Issued, CertsError> {
        let IssueOptions { name, role, sans, days, not_before } = options;
        let (role, not_before) = (*role, not_before.unwrap_or_else(|| SystemTime::now() - CLOCK_SKEW));
        if !(1..=LEAF_DAYS_MAX).contains(days) {
            return Err(invalid("days", days, format_args!("is not 1 to {LEAF_DAYS_MAX}")));
        }
        if not_before + DAY * *days > self.info.not_after {
            let end = parse::rfc3339(self.info.not_after);
            return Err(invalid("days", days, format_args!("would outlive the authority, which expires on {end}")));
        }
        let organisation = match role {
            Role::Node => "vecino node",
            Role::Client => "vecino client",
        };
        let mut params = params(name, organisation, not_before, *days)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match role {
            Role::Node => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.subject_alt_names = alternative_names(role, sans)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            role,
            key_id: KeyId::of_public_key(&key.subject_public_key_info()),
            trusted: self.trusted.clone(),
            certificate,
            key,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What a certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueOptions {
    /// Name of the node or client, for people: 1 to [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// What it may be.
    pub role: Role,
    /// Further DNS names and addresses; a node's certificate always carries [`NODE_SERVER_NAME`], which is the one
    /// that peers verify.
    pub sans: Vec<String>,
    /// How long it is valid, 1 to [`LEAF_DAYS_MAX`].
    pub days: u32,
    /// From when it is valid; absent means from now (an hour before, for clocks that are behind).
    pub not_before: Option<SystemTime>,
}

impl IssueOptions {
    /// A certificate with the usual validity and no further names.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role, sans: Vec::new(), days: LEAF_DAYS_DEFAULT, not_before: None }
    }
}

/// A key and its certificate, just issued.
pub struct Issued {
    role: Role,
    key_id: KeyId,
    trusted: Trusted,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Issued {
    /// Hash of its key: the node id, where it is a node's.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Writes `ca.crt`, and `node.crt` and `node.key` or `client.crt` and `client.key`, into `dir`, which is made if it
    /// is absent. The key is readable by its owner only. A folder may hold a node's and a client's files of one mesh.
    ///
    /// # Errors
    /// When one of the files exists (a `ca.crt` of the same authority is left as it is), when `dir` is an authority's
    /// folder, or when a file cannot be written. What was written until then is removed.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<(), CertsError> {
        let dir = dir.as_ref();
        if dir.join(AUTHORITY_KEY).exists() {
            return Err(CertsError::AuthorityKeyInFolder { dir: dir.to_owned() });
        }
        files::create_dir(dir)?;
        let authority_path = dir.join(AUTHORITY_CERTIFICATE);
        let authority_is_there = authority_path.exists();
        if authority_is_there && !files::read_certificates(&authority_path)?.contains(&self.trusted.certificates[0]) {
            return Err(CertsError::FileExists { path: authority_path });
        }
        let role = self.role;
        let (key, certificate) = (self.key.serialize_pem(), self.certificate.pem());
        let mut files = vec![
            (dir.join(format!("{role}.key")), key.as_str(), Access::Secret),
            (dir.join(format!("{role}.crt")), certificate.as_str(), Access::Public),
        ];
        if !authority_is_there {
            files.push((authority_path, self.trusted.pem.as_str(), Access::Public));
        }
        files::write_all_new(&files)
    }

    /// The identity, without a detour over files.
    ///
    /// # Errors
    /// When rustls refuses the key.
    pub fn identity(&self) -> Result<Identity, CertsError> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let chain = vec![self.certificate.der().clone()];
        Identity::assemble(self.trusted.certificates.clone(), chain, key, self.role, "issued")
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("role", &self.role).field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

fn params(name: &str, organisation: &str, not_before: SystemTime, days: u32) -> Result<CertificateParams, CertsError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(invalid("name", name, format_args!("is not 1 to {NAME_BYTES_MAX} bytes of visible text")));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organisation);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::from(not_before);
    params.not_after = OffsetDateTime::from(not_before + DAY * days);
    Ok(params)
}

fn alternative_names(role: Role, sans: &[String]) -> Result<Vec<SanType>, CertsError> {
    if sans.len() > SANS_MAX {
        return Err(invalid("san", sans.len(), format_args!("names are too many: at most {SANS_MAX}")));
    }
    let own = (role == Role::Node).then_some(NODE_SERVER_NAME);
    own.into_iter().chain(sans.iter().map(String::as_str)).map(alternative_name).collect()
}

fn alternative_name(san: &str) -> Result<SanType, CertsError> {
    if let Ok(address) = san.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let refused = || invalid("san", san, format_args!("is neither an IP address nor a DNS name"));
    rustls_pki_types::DnsName::try_from(san).map_err(|_| refused())?;
    Ok(SanType::DnsName(san.try_into().map_err(|_| refused())?))
}

fn invalid(field: &'static str, value: impl fmt::Display, limit: fmt::Arguments<'_>) -> CertsError {
    CertsError::Invalid { field, value: value.to_string(), limit: limit.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn authority() -> (tempfile::TempDir, Authority) {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::init(dir.path().join("ca"), "test mesh").unwrap();
        (dir, authority)
    }

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_readable_by_their_owner_only() {
        let (dir, authority) = authority();
        let out = dir.path().join("out");
        for role in [Role::Node, Role::Client] {
            authority.issue(&IssueOptions::new("a", role)).unwrap().write(&out).unwrap();
        }
        assert_eq!(mode(&dir.path().join("ca")), 0o700);
        assert_eq!(mode(&dir.path().join("ca/ca.key")), 0o600);
        assert_eq!(mode(&out), 0o700);
        assert_eq!(mode(&out.join("node.key")), 0o600);
        assert_eq!(mode(&out.join("client.key")), 0o600);
    }

    #[test]
    fn an_authority_is_never_overwritten() {
        let (dir, authority) = authority();
        let key = fs::read(dir.path().join("ca/ca.key")).unwrap();
        let error = Authority::init(dir.path().join("ca"), "another").unwrap_err();
        assert!(matches!(error, CertsError::AuthorityExists { .. }), "{error}");
        fs::remove_file(dir.path().join("ca/ca.crt")).unwrap();
        let error = Authority::init(dir.path().join("ca"), "another").unwrap_err();
        assert!(matches!(error, CertsError::AuthorityExists { .. }), "a key alone is in the way too: {error}");
        assert_eq!(fs::read(dir.path().join("ca/ca.key")).unwrap(), key);
        drop(authority);
    }

    #[test]
    fn issued_files_are_never_overwritten_and_none_is_left_half_written() {
        let (dir, authority) = authority();
        let out = dir.path().join("out");
        authority.issue(&IssueOptions::new("a", Role::Node)).unwrap().write(&out).unwrap();
        let before = fs::read(out.join("node.key")).unwrap();
        let again = authority.issue(&IssueOptions::new("b", Role::Node)).unwrap();
        assert!(matches!(again.write(&out).unwrap_err(), CertsError::FileExists { .. }));
        assert_eq!(fs::read(out.join("node.key")).unwrap(), before);

        fs::remove_file(out.join("node.key")).unwrap();
        let error = again.write(&out).unwrap_err();
        assert!(error.to_string().contains("node.crt"), "{error}");
        assert!(!out.join("node.key").exists(), "the key that was written before the failure is removed");
    }

    #[test]
    fn a_folder_of_another_mesh_is_refused() {
        let ((dir, ours), (_other, theirs)) = (authority(), authority());
        let out = dir.path().join("out");
        ours.issue(&IssueOptions::new("a", Role::Node)).unwrap().write(&out).unwrap();
        let error = theirs.issue(&IssueOptions::new("a", Role::Client)).unwrap().write(&out).unwrap_err();
        assert!(matches!(&error, CertsError::FileExists { path } if path.ends_with("ca.crt")), "{error}");
        assert!(!out.join("client.key").exists());
    }

    #[test]
    fn the_authority_key_never_lies_beside_what_it_issued() {
        let (dir, authority) = authority();
        let issued = authority.issue(&IssueOptions::new("a", Role::Node)).unwrap();
        let error = issued.write(dir.path().join("ca")).unwrap_err();
        assert!(matches!(error, CertsError::AuthorityKeyInFolder { .. }), "{error}");
        issued.write(dir.path().join("out")).unwrap();
        assert!(!dir.path().join("out/ca.key").exists());
    }

    #[test]
    fn a_reopened_authority_issues_for_the_same_mesh() {
        let (dir, authority) = authority();
        let fingerprint = authority.fingerprint();
        drop(authority);
        let reopened = Authority::open(dir.path().join("ca")).unwrap();
        assert_eq!((reopened.name(), reopened.fingerprint()), ("test mesh", fingerprint));
        let identity = reopened.issue(&IssueOptions::new("a", Role::Node)).unwrap().identity().unwrap();
        assert_eq!(identity.authority_fingerprint(), fingerprint);
    }

    #[test]
    fn an_authority_that_is_incomplete_or_mixed_up_is_refused_with_the_reason() {
        let ((dir, _ours), (other, _theirs)) = (authority(), authority());
        let error = Authority::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("ca.crt is missing; make one with `vecino certs init"), "{error}");
        fs::copy(other.path().join("ca/ca.key"), dir.path().join("ca/ca.key")).unwrap();
        let error = Authority::open(dir.path().join("ca")).unwrap_err();
        assert!(matches!(error, CertsError::KeyMismatch { .. }), "{error}");
        fs::remove_file(dir.path().join("ca/ca.key")).unwrap();
        let error = Authority::open(dir.path().join("ca")).unwrap_err();
        assert!(error.to_string().contains("ca.key is missing"), "{error}");
    }

    #[test]
    fn options_out_of_their_limits_are_refused_with_field_value_and_limit() {
        let (_dir, authority) = authority();
        let good = IssueOptions::new("a", Role::Node);
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        for (options, words) in [
            (IssueOptions { name: String::new(), ..good.clone() }, vec!["name", "1 to 64 bytes"]),
            (IssueOptions { name: long.clone(), ..good.clone() }, vec!["name", &*long, "1 to 64 bytes"]),
            (IssueOptions { name: "a\nb".into(), ..good.clone() }, vec!["name", "visible"]),
            (IssueOptions { days: 0, ..good.clone() }, vec!["days", "\"0\"", "1 to 3650"]),
            (IssueOptions { days: 3651, ..good.clone() }, vec!["days", "\"3651\"", "1 to 3650"]),
            (IssueOptions { sans: vec!["no spaces".into()], ..good.clone() }, vec!["san", "\"no spaces\"", "DNS"]),
            (IssueOptions { sans: vec!["x".into(); SANS_MAX + 1], ..good.clone() }, vec!["san", "\"65\"", "64"]),
            (
                IssueOptions { not_before: Some(SystemTime::now() + DAY), days: 3650, ..good.clone() },
                vec!["days", "outlive the authority"],
            ),
        ] {
            let error = authority.issue(&options).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error:?} lacks one of {words:?}");
        }
    }
}

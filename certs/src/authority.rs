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

use crate::files::{self, Access};
use crate::parse::{self, CertificateInfo, CertificateKind, Fingerprint};
use crate::{CertsError, Identity, NODE_SERVER_NAME, NodeId, Role};

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

pub(crate) const AUTHORITY_CERTIFICATE: &str = "ca.crt";
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
        files::write_new(&dir.join(AUTHORITY_KEY), &key.serialize_pem(), Access::Secret)?;
        files::write_new(&dir.join(AUTHORITY_CERTIFICATE), &certificate.pem(), Access::Public)?;
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
            node_id: NodeId::from_public_key(&key.subject_public_key_info()),
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
    node_id: NodeId,
    trusted: Trusted,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Issued {
    /// Hash of its key: the node id, where it is a node's.
    pub fn node_id(&self) -> NodeId {
        self.node_id
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
        let mut files = vec![
            (dir.join(format!("{role}.key")), self.key.serialize_pem(), Access::Secret),
            (dir.join(format!("{role}.crt")), self.certificate.pem(), Access::Public),
        ];
        if !authority_is_there {
            files.push((authority_path, self.trusted.pem.clone(), Access::Public));
        }
        for (index, (path, contents, access)) in files.iter().enumerate() {
            if let Err(error) = files::write_new(path, contents, *access) {
                for (written, ..) in &files[..index] {
                    let _ = std::fs::remove_file(written);
                }
                return Err(error);
            }
        }
        Ok(())
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
        f.debug_struct("Issued").field("role", &self.role).field("node_id", &self.node_id).finish_non_exhaustive()
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

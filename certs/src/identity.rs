//! Who a process is in its mesh: its certificate, its key, and the authority that it trusts.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::files::AUTHORITY_CERTIFICATE;
use crate::parse::{self, CertificateInfo, CertificateKind, Fingerprint};
use crate::provider::provider;
use crate::{CertsError, KeyId, Role, files};

/// Certificate, key and trusted authority of one node or client. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    role: Role,
    key_id: KeyId,
    info: CertificateInfo,
    authority_fingerprint: Fingerprint,
    authority_origin: String,
}

impl Identity {
    /// Loads the identity in `dir`: `ca.crt`, and `node.crt` and `node.key` or `client.crt` and `client.key`.
    ///
    /// `ca.crt` may hold several authorities, all of which are trusted, so that one can be replaced by another. An
    /// expired certificate is loaded, so that its holder can say so; peers refuse it.
    ///
    /// # Errors
    /// When a file is missing or unreadable, the certificate is not of this role, the key is not its key, or none of
    /// the authorities in `ca.crt` has signed it.
    pub fn load(dir: impl AsRef<Path>, role: Role) -> Result<Self, CertsError> {
        let dir = dir.as_ref();
        let paths = [dir.join(AUTHORITY_CERTIFICATE), dir.join(format!("{role}.crt")), dir.join(format!("{role}.key"))];
        if let Some(path) = paths.iter().find(|path| !path.exists()) {
            return Err(CertsError::Missing { path: path.clone(), role });
        }
        let [authority, certificate, key] = &paths;
        Self::assemble(
            files::read_certificates(authority)?,
            files::read_certificates(certificate)?,
            files::read_key(key)?,
            role,
            &dir.display().to_string(),
        )
    }

    /// The identity in three PEM texts, for example from a store of secrets: the authorities, the certificate and its key.
    ///
    /// # Errors
    /// As [`load`](Self::load); messages name the three as files in the folder `<memory>`.
    pub fn from_pem(authorities: &[u8], certificate: &[u8], key: &[u8], role: Role) -> Result<Self, CertsError> {
        let file = |name: String| Path::new(MEMORY).join(name);
        Self::assemble(
            files::certificates(authorities, &file(AUTHORITY_CERTIFICATE.to_owned()))?,
            files::certificates(certificate, &file(format!("{role}.crt")))?,
            files::key(key, &file(format!("{role}.key")))?,
            role,
            MEMORY,
        )
    }

    /// Hash of the key: the node's id, or for a client something that tells it from others.
    pub fn key_id(&self) -> KeyId {
        self.0.key_id
    }

    /// Common name in the certificate.
    pub fn name(&self) -> &str {
        &self.0.info.name
    }

    /// What the certificate entitles to.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// From when the certificate is valid.
    pub fn not_before(&self) -> SystemTime {
        self.0.info.not_before
    }

    /// When the certificate expires.
    pub fn not_after(&self) -> SystemTime {
        self.0.info.not_after
    }

    /// Fingerprint of the authority that signed the certificate; the same in the whole mesh.
    pub fn authority_fingerprint(&self) -> Fingerprint {
        self.0.authority_fingerprint
    }

    pub(crate) fn assemble(
        authorities: Vec<CertificateDer<'static>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        role: Role,
        folder: &str,
    ) -> Result<Self, CertsError> {
        let file = |name: &str| Path::new(folder).join(name).display().to_string();
        let origin = file(&format!("{role}.crt"));
        let leaf = chain.first().ok_or_else(|| CertsError::certificate(&origin, "there is no certificate in it"))?;
        let certificate = parse::parse(leaf, &origin)?;
        let info = parse::describe(&certificate, leaf);
        if info.kind != CertificateKind::Leaf(role) {
            let reason = format_args!("the certificate is of kind {:?}, needed is {role:?}", info.kind.to_string());
            return Err(CertsError::certificate(origin, reason));
        }
        let spki = certificate.public_key().raw;
        let signing_key = provider()
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(|error| CertsError::certificate(file(&format!("{role}.key")), error))?;
        if signing_key.public_key().is_none_or(|public| public.as_ref() != spki) {
            return Err(CertsError::KeyMismatch { certificate: origin, key: file(&format!("{role}.key")) });
        }
        let authority_origin = file(AUTHORITY_CERTIFICATE);
        let mut signer = None;
        for authority in &authorities {
            let parsed = parse::parse(authority, &authority_origin)?;
            if parsed.is_ca() && certificate.verify_signature(Some(parsed.public_key())).is_ok() {
                signer = Some(Fingerprint::of(authority));
                break;
            }
        }
        let Some(authority_fingerprint) = signer else {
            let issuer = info.issuer;
            return Err(CertsError::WrongAuthority { certificate: origin, issuer, authority: authority_origin });
        };
        let key_id = KeyId::of_public_key(spki);
        Ok(Self(Arc::new(Inner {
            authorities,
            chain,
            key,
            role,
            key_id,
            info,
            authority_fingerprint,
            authority_origin,
        })))
    }

    pub(crate) fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.0.authorities
    }

    /// The file that the trusted authorities were read from.
    pub(crate) fn authority_origin(&self) -> &str {
        &self.0.authority_origin
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.0.key.clone_key()
    }
}

/// Where an identity from memory says that it comes from.
const MEMORY: &str = "<memory>";

/// Never shows the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("role", &self.0.role)
            .field("key_id", &self.0.key_id)
            .field("name", &self.0.info.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Authority, IssueOptions};

    struct Folders {
        root: tempfile::TempDir,
    }

    impl Folders {
        /// `one/` and `two/` hold certificates of one authority, `other/` of another.
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let ours = Authority::init(root.path().join("ca"), "ours").unwrap();
            let theirs = Authority::init(root.path().join("other-ca"), "theirs").unwrap();
            for (authority, name) in [(&ours, "one"), (&ours, "two"), (&theirs, "other")] {
                for role in [Role::Node, Role::Client] {
                    authority.issue(&IssueOptions::new(name, role)).unwrap().write(root.path().join(name)).unwrap();
                }
            }
            Self { root }
        }

        fn copy(&self, from: &str, to: &str) {
            fs::copy(self.root.path().join(from), self.root.path().join(to)).unwrap();
        }

        fn load(&self, name: &str, role: Role) -> Result<Identity, CertsError> {
            Identity::load(self.root.path().join(name), role)
        }
    }

    #[test]
    fn what_was_issued_is_loaded_from_its_folder() {
        let folders = Folders::new();
        let node = folders.load("one", Role::Node).unwrap();
        let client = folders.load("one", Role::Client).unwrap();
        assert_eq!((node.name(), node.role(), client.role()), ("one", Role::Node, Role::Client));
        assert_ne!(node.key_id(), client.key_id());
        assert_eq!(node.authority_fingerprint(), client.authority_fingerprint());
        assert_eq!(node.not_after().duration_since(node.not_before()).unwrap().as_secs(), 365 * 24 * 3600);
        assert_eq!(node.key_id(), folders.load("one", Role::Node).unwrap().key_id(), "the id is the key's");
        assert_ne!(node.key_id(), folders.load("two", Role::Node).unwrap().key_id());
    }

    #[test]
    fn an_identity_from_memory_is_the_one_in_the_files() {
        let folders = Folders::new();
        let read = |name: &str| fs::read(folders.root.path().join("one").join(name)).unwrap();
        let (ca, certificate, key) = (read("ca.crt"), read("client.crt"), read("client.key"));
        let identity = Identity::from_pem(&ca, &certificate, &key, Role::Client).unwrap();
        assert_eq!(identity.key_id(), folders.load("one", Role::Client).unwrap().key_id());
        let error = Identity::from_pem(&ca, &certificate, &certificate, Role::Client).unwrap_err().to_string();
        assert!(error.contains("<memory>/client.key holds no private key"), "{error}");
        let error = Identity::from_pem(b"", &certificate, &key, Role::Client).unwrap_err().to_string();
        assert!(error.contains("<memory>/ca.crt holds no certificate"), "{error}");
        let other = fs::read(folders.root.path().join("two/client.key")).unwrap();
        let error = Identity::from_pem(&ca, &certificate, &other, Role::Client).unwrap_err();
        assert!(matches!(error, CertsError::KeyMismatch { .. }), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_with_that_reason() {
        let folders = Folders::new();
        folders.copy("two/node.key", "one/node.key");
        let error = folders.load("one", Role::Node).unwrap_err();
        assert!(matches!(error, CertsError::KeyMismatch { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("node.key is not the key of") && text.contains("node.crt"), "{text}");
    }

    #[test]
    fn a_certificate_of_another_authority_is_refused_with_that_reason() {
        let folders = Folders::new();
        folders.copy("other/ca.crt", "one/ca.crt");
        let error = folders.load("one", Role::Node).unwrap_err();
        assert!(matches!(error, CertsError::WrongAuthority { .. }), "{error}");
        assert!(error.to_string().contains("ours"), "{error}");
    }

    #[test]
    fn a_client_certificate_under_a_nodes_name_is_refused() {
        let folders = Folders::new();
        folders.copy("one/client.crt", "one/node.crt");
        folders.copy("one/client.key", "one/node.key");
        let error = folders.load("one", Role::Node).unwrap_err().to_string();
        assert!(error.contains("node.crt") && error.contains("\"client\"") && error.contains("Node"), "{error}");
    }

    #[test]
    fn a_missing_file_says_which_and_how_to_get_it() {
        let folders = Folders::new();
        fs::remove_file(folders.root.path().join("one/client.crt")).unwrap();
        let error = folders.load("one", Role::Client).unwrap_err().to_string();
        assert!(error.contains("client.crt is missing") && error.contains("--client"), "{error}");
        assert!(folders.load("nowhere", Role::Node).unwrap_err().to_string().contains("vecino certs issue"));
    }

    #[test]
    fn files_that_are_no_pem_are_refused_by_name() {
        let folders = Folders::new();
        for (file, words) in [("node.crt", "certificate"), ("node.key", "key"), ("ca.crt", "certificate")] {
            let path = folders.root.path().join("one").join(file);
            let kept = fs::read(&path).unwrap();
            for garbage in [&b""[..], b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA", &vec![b'x'; (1 << 20) + 1]] {
                fs::write(&path, garbage).unwrap();
                let error = folders.load("one", Role::Node).unwrap_err().to_string();
                assert!(error.contains(file) && error.contains(words), "{error}");
            }
            fs::write(&path, kept).unwrap();
        }
        folders.load("one", Role::Node).unwrap();
    }

    #[test]
    fn debug_output_holds_no_key() {
        let folders = Folders::new();
        let text = format!("{:?}", folders.load("one", Role::Node).unwrap());
        assert!(text.contains("key_id") && text.ends_with(".. }"), "{text}");
        let key = fs::read_to_string(folders.root.path().join("one/node.key")).unwrap();
        assert!(key.lines().all(|line| !text.contains(line)), "{text}");
        let fields: Vec<_> = text.matches(": ").collect();
        assert_eq!(fields.len(), 3, "role, key id and name, and nothing else: {text}");
    }
}

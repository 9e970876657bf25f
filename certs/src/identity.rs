//! Who a process is in its mesh: its certificate, its key, and the authority that it trusts.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::authority::AUTHORITY_CERTIFICATE;
use crate::parse::{self, CertificateInfo, CertificateKind, Fingerprint};
use crate::{CertsError, NodeId, Role, files, tls};

/// Certificate, key and trusted authority of one node or client. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    role: Role,
    node_id: NodeId,
    info: CertificateInfo,
    authority_fingerprint: Fingerprint,
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

    /// Hash of the key: the node's id, or for a client something that tells it from others.
    pub fn node_id(&self) -> NodeId {
        self.0.node_id
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
        let signing_key = tls::provider()
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
        let node_id = NodeId::from_public_key(spki);
        Ok(Self(Arc::new(Inner { authorities, chain, key, role, node_id, info, authority_fingerprint })))
    }

    pub(crate) fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.0.authorities
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.0.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.0.key.clone_key()
    }
}

/// Never shows the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("role", &self.0.role)
            .field("node_id", &self.0.node_id)
            .field("name", &self.0.info.name)
            .finish_non_exhaustive()
    }
}

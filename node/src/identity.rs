//! Where a node's certificate comes from.

use std::path::{Path, PathBuf};

use vecino_certs::{Authority, CertsError, Identity, IssueOptions, Role};

/// A node's identity, and what was made for it.
pub struct NodeIdentity {
    /// The identity.
    pub identity: Identity,
    /// Folder with a client certificate of the same authority, where this node made the authority.
    pub client_certs: Option<PathBuf>,
    /// Whether the authority was made just now.
    pub made_authority: bool,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A certificate cannot be read, made or written.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// A node that is to join others needs a certificate from their authority.
    #[error(
        "there is no certificate, and this node is to join others (--seed): get one from the authority of their mesh \
         with `vecino certs issue CA_DIR --name NAME --out DIR` and start this node with --certs DIR; the first node's \
         authority is in its data directory, in certs/authority"
    )]
    NoCertificate,
}

/// Loads the certificate from `certs`, or the one that the node made itself earlier; a node without seeds makes an
/// authority, a certificate for itself and one for clients in its data directory.
pub fn load_or_make(data: &Path, certs: Option<&Path>, has_seeds: bool) -> Result<NodeIdentity, IdentityError> {
    if let Some(certs) = certs {
        let identity = Identity::load(certs, Role::Node)?;
        return Ok(NodeIdentity { identity, client_certs: None, made_authority: false });
    }
    let folder = data.join("certs");
    let (authority, node, client) = (folder.join("authority"), folder.join("node"), folder.join("client"));
    // The client's certificate is made last: where it is there, everything is.
    let complete = client.join("client.crt").exists();
    if !complete && node.join("node.crt").exists() {
        let authority = Authority::open(&authority)?;
        authority.issue(&IssueOptions::new("local", Role::Client))?.write(&client)?;
    } else if !complete {
        if has_seeds {
            return Err(IdentityError::NoCertificate);
        }
        let made = if authority.join("ca.crt").exists() {
            Authority::open(&authority)?
        } else {
            Authority::init(&authority, "vecino")?
        };
        made.issue(&IssueOptions::new("first", Role::Node))?.write(&node)?;
        made.issue(&IssueOptions::new("local", Role::Client))?.write(&client)?;
    }
    let identity = Identity::load(&node, Role::Node)?;
    Ok(NodeIdentity { identity, client_certs: Some(client), made_authority: !complete })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_node_makes_its_authority_once_and_a_joining_one_says_how_to_get_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let Err(error) = load_or_make(folder.path(), None, true) else { panic!("there is no certificate") };
        assert!(error.to_string().contains("vecino certs issue"), "{error}");
        let first = load_or_make(folder.path(), None, false).unwrap();
        assert!(first.made_authority);
        let again = load_or_make(folder.path(), None, true).unwrap();
        assert_eq!(again.identity.key_id(), first.identity.key_id());
        assert!(!again.made_authority);
        let client = Identity::load(first.client_certs.unwrap(), Role::Client).unwrap();
        assert_eq!(client.authority_fingerprint(), first.identity.authority_fingerprint());
    }
}

//! Mesh authority, node and client identity, and the rustls configurations built from them.
//!
//! An [`Authority`] signs every certificate of one mesh. A node and a client each hold an [`Identity`]: the authority's
//! certificate, their own certificate, and its key. [`server_config`] and [`client_config`] turn an identity into TLS
//! 1.3 configurations in which both sides prove themselves; [`inspect_peer`] reads who the other side proved to be.
//!
//! What this crate does not do: it opens no socket, and it does not decide what a role may ask for. It installs no
//! process-wide crypto provider either; every configuration carries `ring` explicitly.

mod authority;
mod error;
mod files;
mod identity;
mod key_id;
mod parse;
mod tls;
mod verify;

pub use authority::{
    AUTHORITY_DAYS, Authority, IssueOptions, Issued, LEAF_DAYS_DEFAULT, LEAF_DAYS_MAX, NAME_BYTES_MAX, SANS_MAX,
};
pub use error::CertsError;
pub use identity::Identity;
pub use key_id::KeyId;
pub use parse::{CertificateInfo, CertificateKind, Fingerprint, PeerCertificate, inspect_peer, rfc3339, show};
pub use tls::{ALPN_CLIENT, ALPN_PEER, NODE_SERVER_NAME, client_config, server_config};
pub use verify::handshake_reason;

/// What a certificate entitles its holder to be.
///
/// It is read from the certificate itself: a node's may serve and dial (extended key usage `serverAuth` and
/// `clientAuth`), a client's may only dial (`clientAuth` alone), so a client can never pass for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A member of the mesh.
    Node,
    /// An application or a person.
    Client,
}

impl Role {
    /// Lower-case name; certificate and key files are called `NAME.crt` and `NAME.key`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Client => "client",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

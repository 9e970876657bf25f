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
mod provider;
mod role;
mod tls;
mod verify;

pub use authority::{
    AUTHORITY_DAYS, Authority, IssueOptions, Issued, LEAF_DAYS_DEFAULT, LEAF_DAYS_MAX, NAME_BYTES_MAX, SANS_MAX,
};
pub use error::CertsError;
pub use identity::Identity;
pub use key_id::KeyId;
pub use parse::{CertificateInfo, CertificateKind, Fingerprint, PeerCertificate, inspect_peer, rfc3339, show};
pub use role::{NODE_SERVER_NAME, Role};
pub use tls::{ALPN_CLIENT, ALPN_PEER, client_config, server_config};
pub use verify::handshake_reason;

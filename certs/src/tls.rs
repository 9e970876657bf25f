//! rustls configurations: TLS 1.3, both sides prove themselves, nothing is resumed.
//!
//! A resumed session would skip the certificates, and with them their expiry; 0-RTT data can be replayed. Neither is
//! offered.

use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::{CertsError, Identity};

/// ALPN of connections between nodes.
pub const ALPN_PEER: &[u8] = b"vecino-peer/1";
/// ALPN of connections from clients.
pub const ALPN_CLIENT: &[u8] = b"vecino-client/1";

/// The name that is in every node's certificate. Who dials a node verifies this name and never its address: that the
/// certificate is a node's of this mesh is what counts, and which node it is, the hash of its key says.
pub const NODE_SERVER_NAME: &str = "node.vecino.internal";

/// The configuration of an endpoint that accepts connections, for both ALPNs. Who connects must hold a certificate of
/// the authority. Which ALPN a role may use is for the caller to judge, with [`inspect_peer`](crate::inspect_peer).
///
/// # Errors
/// When rustls refuses the authority or the key.
pub fn server_config(identity: &Identity) -> Result<ServerConfig, CertsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(identity)?, provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![ALPN_PEER.to_vec(), ALPN_CLIENT.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The configuration of who dials a node with this ALPN. The node must hold a node's certificate of the authority.
///
/// # Errors
/// When rustls refuses the authority or the key.
pub fn client_config(identity: &Identity, alpn: &[u8]) -> Result<ClientConfig, CertsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(identity)?, provider()).build()?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, CertsError> {
    let mut roots = RootCertStore::empty();
    for authority in identity.authorities() {
        roots.add(authority.clone())?;
    }
    Ok(Arc::new(roots))
}

//! rustls configurations: TLS 1.3, both sides prove themselves, nothing is resumed.
//!
//! A resumed session would skip the certificates, and with them their expiry; 0-RTT data can be replayed. Neither is
//! offered.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::provider::provider;
use crate::verify::{CallerVerifier, NodeVerifier};
use crate::{CertsError, Identity};

/// ALPN of connections between nodes.
pub const ALPN_PEER: &[u8] = b"vecino-peer/1";
/// ALPN of connections from clients.
pub const ALPN_CLIENT: &[u8] = b"vecino-client/1";

/// The configuration of an endpoint that accepts connections, for both ALPNs. Whoever connects must hold a certificate
/// of the authority. Which ALPN a role may use is for the caller to judge, with [`inspect_peer`](crate::inspect_peer).
///
/// # Errors
/// When rustls refuses the authority or the key.
pub fn server_config(identity: &Identity) -> Result<ServerConfig, CertsError> {
    let verifier = Arc::new(CallerVerifier::new(identity, roots(identity)?)?);
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

/// The configuration of an endpoint that dials nodes with this ALPN. The node must hold a node's certificate of the authority.
///
/// # Errors
/// When rustls refuses the authority or the key.
pub fn client_config(identity: &Identity, alpn: &[u8]) -> Result<ClientConfig, CertsError> {
    let verifier = Arc::new(NodeVerifier::new(identity, roots(identity)?)?);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, CertsError> {
    let mut roots = RootCertStore::empty();
    for authority in identity.authorities() {
        roots.add(authority.clone())?;
    }
    Ok(Arc::new(roots))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rustls::{AlertDescription, ClientConnection, Error, ServerConnection};

    use super::*;
    use crate::{
        Authority, IssueOptions, KeyId, NODE_SERVER_NAME, PeerCertificate, Role, handshake_reason, inspect_peer,
    };

    /// What each side made of the other, or why it gave up.
    struct Outcome {
        client: Result<PeerCertificate, Error>,
        server: Result<PeerCertificate, Error>,
        alpn: Option<Vec<u8>>,
    }

    fn authority() -> (tempfile::TempDir, Authority) {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::init(dir.path(), "test mesh").unwrap();
        (dir, authority)
    }

    fn issue(authority: &Authority, role: Role) -> Identity {
        authority.issue(&IssueOptions::new("someone", role)).unwrap().identity().unwrap()
    }

    fn issue_expired(authority: &Authority, role: Role) -> Identity {
        let not_before = Some(SystemTime::now() - Duration::from_secs(48 * 3600));
        let options = IssueOptions { days: 1, not_before, ..IssueOptions::new("late", role) };
        authority.issue(&options).unwrap().identity().unwrap()
    }

    fn handshake(client: &Identity, server: &Identity, alpn: &[u8]) -> Outcome {
        let config = client_config(client, alpn).unwrap();
        let name = NODE_SERVER_NAME.try_into().unwrap();
        handshake_with(config, name, server)
    }

    /// Carries bytes between the two ends until neither has any left, in memory. A side that fails still sends its
    /// alert.
    fn handshake_with(config: ClientConfig, name: rustls_pki_types::ServerName<'static>, server: &Identity) -> Outcome {
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server_config(server).unwrap())).unwrap();
        let (mut client_error, mut server_error) = (None, None);
        while client.wants_write() || server.wants_write() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            if server_error.is_none() && !bytes.is_empty() {
                let mut bytes = &bytes[..];
                while !bytes.is_empty() && server_error.is_none() {
                    server.read_tls(&mut bytes).unwrap();
                    server_error = server.process_new_packets().err();
                }
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            if client_error.is_none() {
                let mut bytes = &bytes[..];
                while !bytes.is_empty() && client_error.is_none() {
                    client.read_tls(&mut bytes).unwrap();
                    client_error = client.process_new_packets().err();
                }
            }
        }
        let alpn = server.alpn_protocol().map(<[u8]>::to_vec);
        let judge = |error: Option<Error>, chain: Option<&[rustls_pki_types::CertificateDer<'static>]>| match error {
            Some(error) => Err(error),
            None => Ok(inspect_peer(chain.expect("a finished handshake has the peer's chain")).unwrap()),
        };
        Outcome {
            client: judge(client_error, client.peer_certificates()),
            server: judge(server_error, server.peer_certificates()),
            alpn,
        }
    }

    #[test]
    fn both_sides_learn_who_the_other_is() {
        let (_dir, authority) = authority();
        let (one, two) = (issue(&authority, Role::Node), issue(&authority, Role::Node));
        let outcome = handshake(&one, &two, ALPN_PEER);
        let (seen_by_client, seen_by_server) = (outcome.client.unwrap(), outcome.server.unwrap());
        assert_eq!((seen_by_client.key_id, seen_by_client.role), (two.key_id(), Role::Node));
        assert_eq!((seen_by_server.key_id, seen_by_server.role), (one.key_id(), Role::Node));
        assert_eq!(outcome.alpn.as_deref(), Some(ALPN_PEER));
        assert_ne!(one.key_id(), two.key_id());
        assert_eq!(seen_by_server.not_after, one.not_after());
        assert_eq!(seen_by_server.name, "someone");
    }

    #[test]
    fn a_client_is_told_from_a_node_by_its_certificate() {
        let (_dir, authority) = authority();
        let (client, node) = (issue(&authority, Role::Client), issue(&authority, Role::Node));
        let seen = handshake(&client, &node, ALPN_CLIENT).server.unwrap();
        assert_eq!((seen.role, seen.key_id), (Role::Client, client.key_id()));
        // Asking for the peers' ALPN does not make a node of it.
        assert_eq!(handshake(&client, &node, ALPN_PEER).server.unwrap().role, Role::Client);
    }

    #[test]
    fn a_client_certificate_cannot_serve() {
        let (_dir, authority) = authority();
        let (client, node) = (issue(&authority, Role::Client), issue(&authority, Role::Node));
        let error = handshake(&node, &client, ALPN_PEER).client.unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
        assert!(error.to_string().contains("the certificate of client \"someone\""), "{error}");
    }

    #[test]
    fn another_authority_is_refused_by_both_sides() {
        let ((_dir, ours), (_other_dir, theirs)) = (authority(), authority());
        let (node, stranger) = (issue(&ours, Role::Node), issue(&theirs, Role::Node));
        let error = handshake(&node, &stranger, ALPN_PEER).client.unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
        // Both authorities have one name, so this is a signature that does not fit.
        let reason = error.to_string();
        let reason = handshake_reason(&reason);
        let ours = ours.fingerprint().short();
        for word in ["the certificate of node \"someone\" (fingerprint ", "is not signed by", "ca.crt", ours.as_str()] {
            assert!(reason.contains(word), "{word} is not in {reason}");
        }
        assert!(reason.starts_with("the certificate") && !reason.contains("BadSignature"), "{reason}");

        // A stranger that trusts our authority too, but holds no certificate of it.
        let mut config = client_config(&node, ALPN_PEER).unwrap();
        config.client_auth_cert_resolver = client_config(&stranger, ALPN_PEER).unwrap().client_auth_cert_resolver;
        let outcome = handshake_with(config, NODE_SERVER_NAME.try_into().unwrap(), &node);
        let error = outcome.server.unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
        assert!(error.to_string().contains(&format!("(fingerprint {ours})")), "{error}");
        assert!(matches!(outcome.client.unwrap_err(), Error::AlertReceived(_)), "the other side is told");
    }

    #[test]
    fn an_expired_certificate_is_refused_with_that_reason() {
        let (_dir, authority) = authority();
        let node = issue(&authority, Role::Node);
        for role in [Role::Node, Role::Client] {
            let outcome = handshake(&issue_expired(&authority, role), &node, ALPN_CLIENT);
            let error = outcome.server.unwrap_err();
            assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
            let words = format!("the certificate of {role} \"late\"");
            let error = error.to_string();
            assert!(error.contains(&words) && error.contains("expired on 20") && error.contains("vecino certs issue"));
            assert_eq!(outcome.client.unwrap_err(), Error::AlertReceived(AlertDescription::CertificateUnknown));
        }
        let error = handshake(&node, &issue_expired(&authority, Role::Node), ALPN_PEER).client.unwrap_err();
        assert!(error.to_string().contains("expired"), "{error}");
    }

    #[test]
    fn who_holds_no_certificate_is_refused() {
        let (_dir, authority) = authority();
        let node = issue(&authority, Role::Node);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots(&node).unwrap())
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
        let outcome = handshake_with(config, NODE_SERVER_NAME.try_into().unwrap(), &node);
        assert_eq!(outcome.server.unwrap_err(), Error::NoCertificatesPresented);
    }

    #[test]
    fn an_unknown_alpn_is_refused() {
        let (_dir, authority) = authority();
        let node = issue(&authority, Role::Node);
        assert_eq!(handshake(&node, &node, b"h3").server.unwrap_err(), Error::NoApplicationProtocol);
    }

    #[test]
    fn a_node_has_the_mesh_name_and_the_names_it_asked_for_and_no_other() {
        let (_dir, authority) = authority();
        let sans = vec!["db.example.org".to_owned(), "192.0.2.7".to_owned()];
        let options = IssueOptions { sans, ..IssueOptions::new("named", Role::Node) };
        let node = authority.issue(&options).unwrap().identity().unwrap();
        for (name, accepted) in
            [(NODE_SERVER_NAME, true), ("db.example.org", true), ("192.0.2.7", true), ("192.0.2.8", false)]
        {
            let config = client_config(&node, ALPN_PEER).unwrap();
            let outcome = handshake_with(config, name.to_owned().try_into().unwrap(), &node);
            assert_eq!(outcome.client.is_ok(), accepted, "{name}: {:?}", outcome.client);
        }
    }

    #[test]
    fn nothing_is_resumed_and_no_early_data_is_taken() {
        let (_dir, authority) = authority();
        let node = issue(&authority, Role::Node);
        let server = server_config(&node).unwrap();
        assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
        assert!(!server.session_storage.can_cache());
        assert!(!server.ticketer.enabled());

        // Even a server that hands out tickets is met in full each time.
        let mut eager = server_config(&node).unwrap();
        eager.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
        eager.send_tls13_tickets = 2;
        let (server_config, config) = (Arc::new(eager), Arc::new(client_config(&node, ALPN_PEER).unwrap()));
        assert!(!config.enable_early_data);
        for _ in 0..2 {
            let mut client = ClientConnection::new(Arc::clone(&config), NODE_SERVER_NAME.try_into().unwrap()).unwrap();
            let mut server = ServerConnection::new(Arc::clone(&server_config)).unwrap();
            while client.wants_write() || server.wants_write() {
                let mut bytes = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut bytes).unwrap();
                }
                let mut bytes = &bytes[..];
                while !bytes.is_empty() {
                    server.read_tls(&mut bytes).unwrap();
                    server.process_new_packets().unwrap();
                }
                let mut bytes = Vec::new();
                while server.wants_write() {
                    server.write_tls(&mut bytes).unwrap();
                }
                let mut bytes = &bytes[..];
                while !bytes.is_empty() {
                    client.read_tls(&mut bytes).unwrap();
                    client.process_new_packets().unwrap();
                }
            }
            assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        }
    }

    #[test]
    fn a_mesh_that_changes_its_authority_trusts_both_meanwhile() {
        let ((old_dir, old), (new_dir, new)) = (authority(), authority());
        let pem = |dir: &tempfile::TempDir| std::fs::read_to_string(dir.path().join("ca.crt")).unwrap();
        let both = pem(&new_dir) + &pem(&old_dir);
        let old_node = tempfile::tempdir().unwrap();
        old.issue(&IssueOptions::new("old", Role::Node)).unwrap().write(old_node.path()).unwrap();
        std::fs::write(old_node.path().join("ca.crt"), &both).unwrap();
        std::fs::write(new_dir.path().join("ca.crt"), &both).unwrap();
        let new_node = issue(&Authority::open(new_dir.path()).unwrap(), Role::Node);
        let old_node = Identity::load(old_node.path(), Role::Node).unwrap();
        assert_eq!(old_node.authority_fingerprint(), old.fingerprint());
        assert_eq!(new_node.authority_fingerprint(), new.fingerprint());
        for (client, server) in [(&old_node, &new_node), (&new_node, &old_node)] {
            let outcome = handshake(client, server, ALPN_PEER);
            assert_eq!(outcome.client.unwrap().key_id, server.key_id());
            assert_eq!(outcome.server.unwrap().key_id, client.key_id());
        }
    }

    #[test]
    fn an_empty_chain_is_no_peer() {
        assert!(inspect_peer(&[]).unwrap_err().to_string().contains("presented none"));
        let garbage = rustls_pki_types::CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        assert!(inspect_peer(&[garbage]).unwrap_err().to_string().contains("not a readable certificate"));
        assert_ne!(KeyId::of_public_key(b"a"), KeyId::of_public_key(b"b"));
    }
}

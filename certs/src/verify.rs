//! Judging the certificate of the other side. rustls judges it; what is wrong with it is said here, in words that name
//! the certificate, the authority and what to do.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::parse::{self, CertificateInfo, CertificateKind};
use crate::provider::provider;
use crate::{CertsError, Identity};

/// What rustls writes before the reason for which it refuses a certificate.
const RUSTLS_PREFIX: &str = "invalid peer certificate: ";
/// What rustls writes around a reason that comes from a verifier: it shows the error by its `Debug`.
const RUSTLS_BRACKETS: (&str, &str) = ("Other(OtherError(", "))");

/// The reason for which a handshake failed, without what rustls puts around it.
pub fn handshake_reason(reason: &str) -> &str {
    let reason = reason.strip_prefix(RUSTLS_PREFIX).unwrap_or(reason);
    let (before, behind) = RUSTLS_BRACKETS;
    reason.strip_prefix(before).and_then(|reason| reason.strip_suffix(behind)).unwrap_or(reason)
}

/// Judges the certificates of nodes that are dialled.
#[derive(Debug)]
pub(crate) struct NodeVerifier {
    inner: Arc<WebPkiServerVerifier>,
    trusted: String,
}

/// Judges the certificates of nodes and clients that dial.
#[derive(Debug)]
pub(crate) struct CallerVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    trusted: String,
}

impl NodeVerifier {
    pub(crate) fn new(identity: &Identity, roots: Arc<RootCertStore>) -> Result<Self, CertsError> {
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?;
        Ok(Self { inner, trusted: trusted(identity) })
    }
}

impl CallerVerifier {
    pub(crate) fn new(identity: &Identity, roots: Arc<RootCertStore>) -> Result<Self, CertsError> {
        let inner = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
        Ok(Self { inner, trusted: trusted(identity) })
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        judged.map_err(|error| in_words(error, end_entity, &self.trusted))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ClientCertVerifier for CallerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let judged = self.inner.verify_client_cert(end_entity, intermediates, now);
        judged.map_err(|error| in_words(error, end_entity, &self.trusted))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The authority that an identity trusts: its file and its fingerprint.
fn trusted(identity: &Identity) -> String {
    let authority = format!("the authority in {}", identity.authority_origin());
    match identity.authorities() {
        [_] => format!("{authority} (fingerprint {})", identity.authority_fingerprint().short()),
        several => format!("any of the {} authorities in {}", several.len(), identity.authority_origin()),
    }
}

/// Why a certificate is refused, in words that reach a person on either side.
struct Refused(String);

/// Plain text too, because rustls shows it so.
impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// The verdict of rustls on a certificate in words; what is about no certificate stays as it is.
fn in_words(error: Error, certificate: &CertificateDer<'_>, trusted: &str) -> Error {
    let Error::InvalidCertificate(fault) = &error else { return error };
    let Ok(parsed) = parse::parse(certificate, "certificate of the peer") else { return error };
    match words(fault, &parse::describe(&parsed, certificate), trusted) {
        Some(words) => Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(words))))),
        None => error,
    }
}

fn words(fault: &CertificateError, info: &CertificateInfo, trusted: &str) -> Option<String> {
    let CertificateInfo { kind, name, not_before, not_after, fingerprint, .. } = info;
    let whose = match kind {
        CertificateKind::Leaf(role) => format!("the certificate of {role} {name:?}"),
        CertificateKind::Authority | CertificateKind::Other => format!("certificate {name:?}"),
    };
    let subject = format!("{whose} (fingerprint {})", fingerprint.short());
    Some(match fault {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "{subject} is not signed by {trusted}: use certificates of one authority on both sides; `vecino certs show \
             DIR` shows what is in a folder"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("{subject} expired on {}: issue a new one with `vecino certs issue`", parse::rfc3339(*not_after))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => format!(
            "{subject} is valid only from {} on: compare the clocks of both machines",
            parse::rfc3339(*not_before)
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("{subject} does not entitle its holder to answer as a node: issue one without --client")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("{subject} is not that of a node of a mesh: issue one with `vecino certs issue`")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_tls_library_are_left_out() {
        let refused = CertificateError::Other(OtherError(Arc::new(Refused("\"n1\" expired".into()))));
        assert_eq!(handshake_reason(&Error::InvalidCertificate(refused).to_string()), "\"n1\" expired");
        assert_eq!(handshake_reason("invalid peer certificate: BadEncoding"), "BadEncoding");
        assert_eq!(handshake_reason("peer is incompatible"), "peer is incompatible");
    }
}

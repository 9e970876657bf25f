//! What the parts of an endpoint say to and ask of quinn: close codes, who the other side proved to be, and why a connection
//! was lost, in words.

use std::any::Any;
use std::sync::Arc;

use quinn::{ConnectionError, VarInt};
use vecino_certs::{CertsError, PeerCertificate, inspect_peer};

/// Why a connection was closed, as QUIC application error codes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CloseCode {
    /// The endpoint is stopping.
    Stopping = 1,
    /// What came is not this protocol.
    Protocol = 2,
    /// The other side is not accepted.
    Refused = 3,
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code as u32)
    }
}

/// Why the other side's certificate tells nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// There is none.
    #[error("the other side has shown no certificate")]
    Absent,
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(Arc<CertsError>),
}

/// The certificate that the other side proved.
pub(crate) fn certificate(quic: &quinn::Connection) -> Result<PeerCertificate, CertificateError> {
    let chain = quic
        .peer_identity()
        .and_then(|identity: Box<dyn Any>| identity.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok())
        .ok_or(CertificateError::Absent)?;
    inspect_peer(&chain).map_err(|error| CertificateError::Unreadable(Arc::new(error)))
}

/// The protocol that both sides agreed on.
pub(crate) fn alpn(quic: &quinn::Connection) -> Vec<u8> {
    quic.handshake_data()
        .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
        .and_then(|data| data.protocol)
        .unwrap_or_default()
}

/// A lost connection in words.
pub(crate) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Reset => "the node was restarted since the connection was made".to_owned(),
        ConnectionError::TimedOut => "the node has been silent for the idle timeout".to_owned(),
        ConnectionError::ApplicationClosed(close) => format!("the node closed the connection: {close}"),
        ConnectionError::ConnectionClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            let reason = tls_reason(close.error_code, &reason).unwrap_or_else(|| close.to_string());
            format!("the other side refused the connection: {reason}")
        }
        ConnectionError::TransportError(error) => {
            tls_reason(error.code, &error.reason).unwrap_or_else(|| format!("the connection failed: {error}"))
        }
        ConnectionError::LocallyClosed => "this endpoint closed the connection".to_owned(),
        error => error.to_string(),
    }
}

/// Why TLS failed, in the words of the side that judged the certificate; `None` where something else failed.
fn tls_reason(code: quinn::TransportErrorCode, reason: &str) -> Option<String> {
    // RFC 9001, section 4.8: 0x100 and an alert of TLS.
    let is_tls = (0x100..0x200).contains(&u64::from(code));
    (is_tls && !reason.is_empty()).then(|| vecino_certs::handshake_reason(reason).to_owned())
}

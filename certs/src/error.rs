//! What making, reading and using certificates can fail with.

use std::io;
use std::path::PathBuf;

use crate::Role;

/// Why certificates could not be made, read or used. Each message names the file or field, what was wrong with it, and
/// what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// [`Authority::init`](crate::Authority::init) found one.
    #[error("{path} exists: an authority is never overwritten, for every certificate it issued would stop working; \
             choose another folder", path = path.display())]
    AuthorityExists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// There is no authority in the folder.
    #[error("there is no authority in {dir}: {missing} is missing; make one with `vecino certs init {dir}`",
            dir = dir.display())]
    AuthorityMissing {
        /// Where one was looked for.
        dir: PathBuf,
        /// The file that is not there.
        missing: &'static str,
    },
    /// A certificate or key file is there already.
    #[error("{path} exists and is not overwritten: choose another folder, or move it away first",
            path = path.display())]
    FileExists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// The folder to write to holds the key of an authority.
    #[error("{dir} holds an authority's key, which must not travel with the certificates that it issues: \
             choose another folder", dir = dir.display())]
    AuthorityKeyInFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// A folder of certificates lacks a file.
    #[error("{path} is missing: a {role} needs ca.crt, {role}.crt and {role}.key in one folder; issue them with \
             `vecino certs issue CA_DIR --name NAME --out {dir}{flag}`",
            path = path.display(), dir = path.parent().unwrap_or(path).display(),
            flag = match role { Role::Node => "", Role::Client => " --client" })]
    Missing {
        /// The file that is not there.
        path: PathBuf,
        /// Who needs it.
        role: Role,
    },
    /// A folder holds no certificate.
    #[error("there is no certificate in the folder {dir}: no file there ends with .crt, as ca.crt, node.crt and \
             client.crt do", dir = dir.display())]
    NoCertificates {
        /// The folder.
        dir: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is too large to be what it should be.
    #[error("{path} is no certificate or key file: it has more than {bytes_max} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// A file holds no PEM of the expected kind.
    #[error("{path} holds no {expected} in PEM form: {reason}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// A certificate cannot be read or is not of the kind that is needed.
    #[error("{origin}: {reason}")]
    Certificate {
        /// The file, or whose certificate it is.
        origin: String,
        /// What was wrong.
        reason: String,
    },
    /// A private key belongs to another certificate.
    #[error("{key} is not the key of {certificate}: put the two files that were issued together into one folder")]
    KeyMismatch {
        /// The certificate.
        certificate: String,
        /// The key.
        key: String,
    },
    /// A certificate was not signed by the authority beside it.
    #[error(
        "{certificate} was issued by {issuer:?}, not by the authority in {authority}: certificates of one mesh \
             come from one authority"
    )]
    WrongAuthority {
        /// The certificate.
        certificate: String,
        /// Who it says has signed it.
        issuer: String,
        /// The authority's certificate.
        authority: String,
    },
    /// An option has a value that it cannot have.
    #[error("{field} {value:?} {limit}")]
    Invalid {
        /// Which option.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        limit: String,
    },
    /// The certificate could not be made.
    #[error("cannot make the certificate")]
    Generate(#[from] rcgen::Error),
    /// rustls refused the identity.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// rustls refused the authority as a verifier of peers.
    #[error("cannot verify peers against this authority")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl CertsError {
    pub(crate) fn certificate(origin: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Certificate { origin: origin.into(), reason: reason.to_string() }
    }
}

//! Reading and writing PEM files: sizes are bounded, keys are readable by their owner only, nothing is overwritten.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::CertsError;

pub(crate) const AUTHORITY_CERTIFICATE: &str = "ca.crt";

/// Largest file that is read. A chain of a few certificates has a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Public,
    Secret,
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CertsError> {
    let io_error = |source| CertsError::Io { action: "read", path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(io_error)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(CertsError::TooLarge { path: path.to_owned(), bytes_max: FILE_BYTES_MAX });
    }
    Ok(bytes)
}

pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertsError> {
    certificates(&read(path)?, path)
}

/// The certificates in PEM bytes that are said to come from `path`.
pub(crate) fn certificates(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, CertsError> {
    let pem_error = |reason| CertsError::Pem { path: path.to_owned(), expected: "certificate", reason };
    let certificates = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_error(error.to_string()))?;
    if certificates.is_empty() {
        return Err(pem_error("there is no CERTIFICATE section in it".to_owned()));
    }
    Ok(certificates)
}

/// The files `*.crt` of a folder, in the order of their names.
pub(crate) fn certificate_files(dir: &Path) -> Result<Vec<PathBuf>, CertsError> {
    let io_error = |source| CertsError::Io { action: "read", path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        if path.extension().is_some_and(|extension| extension == "crt") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertsError> {
    key(&read(path)?, path)
}

/// The key in PEM bytes that are said to come from `path`.
pub(crate) fn key(bytes: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, CertsError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| CertsError::Pem {
        path: path.to_owned(),
        expected: "private key",
        reason: match error {
            pem::Error::NoItemsFound => "there is no PRIVATE KEY section in it".to_owned(),
            error => error.to_string(),
        },
    })
}

/// Makes a folder that only its owner may enter; one that exists is left as it is.
pub(crate) fn create_dir(dir: &Path) -> Result<(), CertsError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(dir).map_err(|source| CertsError::Io { action: "create", path: dir.to_owned(), source })
}

/// Writes files that are not there yet: all of them, or none.
pub(crate) fn write_all_new(files: &[(PathBuf, &str, Access)]) -> Result<(), CertsError> {
    for (index, (path, contents, access)) in files.iter().enumerate() {
        if let Err(error) = write_new(path, contents, *access) {
            for (written, ..) in &files[..index] {
                let _ = fs::remove_file(written);
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Writes a file that is not there yet. A secret is never readable by others, not even for a moment.
fn write_new(path: &Path, contents: &str, access: Access) -> Result<(), CertsError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(match access {
            Access::Public => 0o644,
            Access::Secret => 0o600,
        });
    }
    #[cfg(not(unix))]
    let _ = access;
    let mut file = options.open(path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CertsError::FileExists { path: path.to_owned() },
        _ => CertsError::Io { action: "create", path: path.to_owned(), source },
    })?;
    file.write_all(contents.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| {
        let _ = fs::remove_file(path);
        CertsError::Io { action: "write", path: path.to_owned(), source }
    })
}

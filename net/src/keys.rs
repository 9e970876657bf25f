//! The secrets that let a restarted endpoint recognise connections of its earlier life.
//!
//! A packet for an unknown connection is answered with a stateless reset (RFC 9000, section 10.3) only if its connection
//! id carries this endpoint's signature, and the reset is believed only if its token derives from the same key as
//! before. So both keys are kept: 64 bytes of HMAC key, then 8 bytes of connection-id key.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};

use crate::options::EndpointError;

/// File in the state directory.
pub const KEYS_FILE: &str = "transport.keys";
const RESET_KEY_BYTES: usize = 64;
const KEYS_BYTES: usize = RESET_KEY_BYTES + 8;

/// Keys of one endpoint.
pub(crate) struct TransportKeys([u8; KEYS_BYTES]);

impl TransportKeys {
    /// New ones, for an endpoint that keeps no state.
    pub(crate) fn random() -> io::Result<Self> {
        let mut keys = [0; KEYS_BYTES];
        SystemRandom::new().fill(&mut keys).map_err(|_| io::Error::other("the system has no random numbers"))?;
        Ok(Self(keys))
    }

    /// The ones in `dir`, made on first use.
    pub(crate) fn load_or_create(dir: &Path) -> Result<Self, EndpointError> {
        let path = dir.join(KEYS_FILE);
        let kept = || match fs::read(&path) {
            Ok(bytes) => match <[u8; KEYS_BYTES]>::try_from(bytes) {
                Ok(keys) => Ok(Self(keys)),
                Err(bytes) => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "the file has {} bytes instead of {KEYS_BYTES}: delete it to have new keys made",
                        bytes.len()
                    ),
                )),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(dir, &path),
            Err(error) => Err(error),
        };
        kept().map_err(|source| EndpointError::Keys { path: path.clone(), source })
    }

    pub(crate) fn reset_key(&self) -> ring::hmac::Key {
        ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.0[..RESET_KEY_BYTES])
    }

    pub(crate) fn connection_id_key(&self) -> u64 {
        let mut key = [0; 8];
        key.copy_from_slice(&self.0[RESET_KEY_BYTES..]);
        u64::from_le_bytes(key)
    }

    /// Writes beside and renames, so that a crash never leaves half a file.
    fn create(dir: &Path, path: &Path) -> io::Result<Self> {
        let keys = Self::random()?;
        fs::create_dir_all(dir)?;
        let draft = dir.join(format!("{KEYS_FILE}.new"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&draft)?;
        file.write_all(&keys.0)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        fs::File::open(dir)?.sync_all()?;
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_after_a_restart_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = TransportKeys::load_or_create(dir.path()).unwrap();
        let second = TransportKeys::load_or_create(dir.path()).unwrap();
        assert_eq!(first.0, second.0);
        assert_ne!(first.0, TransportKeys::random().unwrap().0);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(dir.path().join(KEYS_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEYS_FILE), b"short").unwrap();
        let error = TransportKeys::load_or_create(dir.path()).err().unwrap().to_string();
        assert!(error.contains(KEYS_FILE) && error.contains("5 bytes"), "{error}");
        assert_eq!(fs::read(dir.path().join(KEYS_FILE)).unwrap(), b"short");
    }
}

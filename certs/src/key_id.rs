//! The identity of a key: the hash of its public half.

use std::fmt;

/// First 16 bytes of the blake3 hash of the subject public key info (DER) of a certificate. A node's is its node id.
///
/// `Display` prints all 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// Derives the id from a DER-encoded `SubjectPublicKeyInfo`.
    pub fn of_public_key(spki_der: &[u8]) -> Self {
        let hash = blake3::hash(spki_der);
        let mut id = [0; 16];
        id.copy_from_slice(&hash.as_bytes()[..16]);
        Self(id)
    }

    /// The 16 raw bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first two official test vectors of blake3: no input, and one zero byte.
    #[test]
    fn the_hash_is_blake3() {
        assert_eq!(KeyId::of_public_key(&[]).to_string(), "af1349b9f5f9a1a6a0404dea36dcc949");
        assert_eq!(KeyId::of_public_key(&[0]).to_string(), "2d3adedff11b61f14c886e35afa03673");
        assert_eq!(KeyId::of_public_key(b"some key").to_bytes()[..], blake3::hash(b"some key").as_bytes()[..16]);
    }
}

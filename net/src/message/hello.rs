//! The first request on every connection.

use serde::{Deserialize, Serialize};
use vecino_model::{MeshId, NodeId};

/// First request on every connection: the caller says what it is.
///
/// A peer claims its node id here; the receiver compares it with the hash of the key that TLS proved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Set by nodes, absent for clients.
    pub peer: Option<PeerIdentity>,
    /// Version of the sender's software, for logs.
    pub software: String,
    /// What the connection is for.
    #[serde(default)]
    pub class: ConnectionClass,
    /// Whether the caller tells its wall clock to those that take it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tells_clock: bool,
}

/// What a connection is for. Two connections to a node keep what is small and urgent from waiting behind what is large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectionClass {
    /// Gossip, and requests with one answer.
    #[default]
    Ordinary,
    /// Scans, and whatever else moves much data.
    Bulk,
}

/// Who a node says that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// Must be the hash of the key in the node's certificate.
    pub node_id: NodeId,
    /// The mesh it belongs to; absent while it looks for one.
    pub mesh_id: Option<MeshId>,
    /// The address at which peers reach it, `host:port`.
    pub advertise: String,
}

/// Answer to [`Hello`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HelloReply {
    /// The answering node.
    pub identity: PeerIdentity,
    /// Version of its software.
    pub software: String,
    /// Whether requests may tell the caller's wall clock. Said only to callers that said that they do.
    #[serde(default, skip_serializing_if = "is_false")]
    pub takes_clock: bool,
}

impl HelloReply {
    /// The answer of this node to a hello.
    pub(crate) fn to(hello: &Hello, identity: PeerIdentity, software: String) -> Self {
        Self { identity, software, takes_clock: hello.tells_clock }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{decode, encode};

    /// What releases before this one say and are told has none of the fields of clocks.
    #[test]
    fn a_hello_and_its_answer_without_a_clock_are_what_they_were() {
        let hello = Hello { peer: None, software: "old".into(), class: ConnectionClass::Ordinary, tells_clock: false };
        let old = b"\x83\xa4peer\xc0\xa8software\xa3old\xa5class\xa8ordinary";
        assert_eq!(encode(&hello).unwrap(), old);
        assert!(!decode::<Hello>("Hello", old).unwrap().tells_clock);

        let identity = PeerIdentity { node_id: NodeId::from_bytes([1; 16]), mesh_id: None, advertise: "a:1".into() };
        let reply = HelloReply::to(&hello, identity.clone(), "new".into());
        let bytes = encode(&reply).unwrap();
        assert_eq!(bytes[0], 0x82, "two fields");
        assert!(!decode::<HelloReply>("HelloReply", &bytes).unwrap().takes_clock);
        let told = HelloReply::to(&Hello { tells_clock: true, ..hello }, identity, "new".into());
        assert!(decode::<HelloReply>("HelloReply", &encode(&told).unwrap()).unwrap().takes_clock);
    }
}

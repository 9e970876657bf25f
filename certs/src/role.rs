//! What a certificate entitles its holder to be, and the name that every node is called by in TLS.

/// The name that is in every node's certificate. The dialling side verifies this name and never the address, because what
/// counts is that the certificate is that of a node of this mesh; the hash of its key says which node it is.
pub const NODE_SERVER_NAME: &str = "node.vecino.internal";

/// What a certificate entitles its holder to be.
///
/// It is read from the certificate itself: a node's may serve and dial (extended key usage `serverAuth` and
/// `clientAuth`), a client's may only dial (`clientAuth` alone), so a client can never pass for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A member of the mesh.
    Node,
    /// An application or a person.
    Client,
}

impl Role {
    /// Lower-case name; certificate and key files are called `NAME.crt` and `NAME.key`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Client => "client",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

//! How a client is made: addresses, identity, patience.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tracing::warn;
use vecino_certs::{Identity, Role};
use vecino_net::endpoint::{Endpoint, EndpointOptions};

use crate::client::Client;
use crate::error::ClientError;

/// Port of a node, where an address names none.
pub const DEFAULT_PORT: u16 = 7400;
/// The node that is asked where no address was given.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:7400";
/// How long a request may take, all attempts together, unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most addresses of one client, after names are resolved.
pub const ADDRESSES_MAX: usize = 256;

/// Makes a [`Client`]; begin with [`Client::builder`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ClientBuilder {
    addresses: Vec<String>,
    certificates: Option<Certificates>,
    timeout: Option<Duration>,
}

/// Where the client's identity comes from.
#[derive(Clone)]
enum Certificates {
    Folder(PathBuf),
    Pem { authorities: Vec<u8>, certificate: Vec<u8>, key: Vec<u8> },
    Loaded(Identity),
}

impl Client {
    /// Begins making a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

impl ClientBuilder {
    /// Adds the address of a node, `HOST:PORT` or `HOST`. Any node serves any request; with several addresses the
    /// client goes on to the next one when a node fails. Without any it asks [`DEFAULT_ADDRESS`].
    pub fn connect(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Takes `ca.crt`, `client.crt` and `client.key` from this folder. Of several calls that say where the certificates
    /// are, the last one counts.
    pub fn certs(mut self, dir: impl Into<PathBuf>) -> Self {
        self.certificates = Some(Certificates::Folder(dir.into()));
        self
    }

    /// Takes the contents of `ca.crt`, `client.crt` and `client.key`, for example from a store of secrets.
    pub fn certs_pem(
        mut self,
        authorities: impl Into<Vec<u8>>,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        let (authorities, certificate, key) = (authorities.into(), certificate.into(), key.into());
        self.certificates = Some(Certificates::Pem { authorities, certificate, key });
        self
    }

    /// Takes an identity that was loaded before.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.certificates = Some(Certificates::Loaded(identity));
        self
    }

    /// How long a request may take, all attempts together; [`DEFAULT_TIMEOUT`] unless set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Makes the client. Names are resolved now; connections are made when they are needed.
    ///
    /// # Errors
    /// When an address is malformed, none of the names resolves, or the certificates or the socket cannot be used.
    pub async fn build(self) -> Result<Client, ClientError> {
        let Self { mut addresses, certificates, timeout } = self;
        let identity = match certificates {
            Some(Certificates::Loaded(identity)) => identity,
            Some(Certificates::Folder(dir)) => Identity::load(dir, Role::Client)?,
            Some(Certificates::Pem { authorities, certificate, key }) => {
                Identity::from_pem(&authorities, &certificate, &key, Role::Client)?
            }
            None => return Err(ClientError::NoIdentity),
        };
        if addresses.is_empty() {
            addresses.push(DEFAULT_ADDRESS.to_owned());
        }
        let (mut nodes, mut unresolved) = (Vec::new(), None);
        for address in addresses {
            match resolve(&address).await {
                Ok(resolved) => {
                    for node in resolved {
                        if !nodes.contains(&node) {
                            nodes.push(node);
                        }
                    }
                }
                Err(source) if source.kind() == io::ErrorKind::InvalidInput => {
                    return Err(ClientError::Address { address, source });
                }
                Err(source) => {
                    warn!(address, %source, "the name of a node does not resolve");
                    unresolved.get_or_insert(ClientError::Address { address, source });
                }
            }
        }
        if let (true, Some(error)) = (nodes.is_empty(), unresolved) {
            return Err(error);
        }
        if !(1..=ADDRESSES_MAX).contains(&nodes.len()) {
            return Err(ClientError::AddressCount { count: nodes.len(), max: ADDRESSES_MAX });
        }
        let endpoint = Endpoint::client(&identity, EndpointOptions::default())?;
        Ok(Client::new(endpoint, nodes, timeout.unwrap_or(DEFAULT_TIMEOUT)))
    }
}

/// Never shows a key.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(dir) => f.debug_tuple("Folder").field(dir).finish(),
            Self::Pem { .. } => f.debug_struct("Pem").finish_non_exhaustive(),
            Self::Loaded(identity) => f.debug_tuple("Loaded").field(identity).finish(),
        }
    }
}

async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    if let Ok(host) = address.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(host, DEFAULT_PORT)]);
    }
    let resolved: Vec<_> = if address.contains(':') {
        tokio::net::lookup_host(address).await?.collect()
    } else {
        tokio::net::lookup_host((address, DEFAULT_PORT)).await?.collect()
    };
    if resolved.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(resolved) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_may_leave_out_the_port() {
        for (text, expected) in [
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("127.0.0.1", "127.0.0.1:7400"),
            ("::1", "[::1]:7400"),
            ("[::1]", "[::1]:7400"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(resolve(text).await.unwrap(), [expected.parse::<SocketAddr>().unwrap()], "{text}");
        }
        assert!(resolve("127.0.0.1:port").await.is_err());
        assert!(resolve("localhost").await.unwrap().iter().all(|node| node.port() == DEFAULT_PORT));
        assert!(resolve("localhost:9").await.unwrap().iter().all(|node| node.port() == 9 && node.ip().is_loopback()));
    }

    #[tokio::test]
    async fn one_name_that_does_not_resolve_is_passed_over_but_not_a_malformed_address() {
        let dir = tempfile::tempdir().unwrap();
        let authority = vecino_certs::Authority::init(dir.path(), "test").unwrap();
        let issued = authority.issue(&vecino_certs::IssueOptions::new("me", Role::Client)).unwrap();
        let builder = Client::builder().identity(issued.identity().unwrap());
        // RFC 6761 reserves the domain: it never resolves.
        let (unknown, malformed) = ("nobody.invalid:7400", "127.0.0.1:port");
        let client = builder.clone().connect(unknown).connect("127.0.0.1:9").connect("127.0.0.1:9").build().await;
        assert_eq!(client.unwrap().nodes(), ["127.0.0.1:9".parse().unwrap()]);
        for address in [unknown, malformed] {
            let error = builder.clone().connect(address).build().await.unwrap_err();
            assert!(error.to_string().contains(address), "{error}");
        }
        let error = builder.connect("127.0.0.1:9").connect(malformed).build().await.unwrap_err();
        assert!(matches!(&error, ClientError::Address { address, .. } if address == malformed), "{error}");
        let many = (1..=257).fold(Client::builder().identity(issued.identity().unwrap()), |builder, port| {
            builder.connect(format!("127.0.0.1:{port}"))
        });
        assert!(many.build().await.unwrap_err().to_string().contains("257 addresses"));
    }

    #[tokio::test]
    async fn a_client_is_made_of_certificates_in_memory_and_never_shows_their_key() {
        let dir = tempfile::tempdir().unwrap();
        let authority = vecino_certs::Authority::init(dir.path().join("ca"), "test").unwrap();
        let issued = authority.issue(&vecino_certs::IssueOptions::new("me", Role::Client)).unwrap();
        issued.write(dir.path().join("me")).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join("me").join(name)).unwrap();
        let key = read("client.key");
        let builder = Client::builder().connect("127.0.0.1:9").certs_pem(read("ca.crt"), read("client.crt"), &*key);
        let shown = format!("{builder:?}");
        assert!(shown.contains("Pem"), "{shown}");
        assert!(key.lines().all(|line| !shown.contains(line)), "{shown}");
        builder.build().await.unwrap();
        let error = Client::builder().certs_pem("no", "PEM", "at all").build().await.unwrap_err().to_string();
        assert!(error.contains("<memory>/ca.crt"), "{error}");
    }

    #[tokio::test]
    async fn a_client_without_certificates_is_told_how_to_get_some() {
        let error = Client::builder().build().await.unwrap_err();
        assert!(matches!(error, ClientError::NoIdentity));
        assert!(error.to_string().contains("vecino certs issue"), "{error}");
        let error = Client::builder().certs("/nonexistent").build().await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ca.crt is missing"), "{error}");
    }
}

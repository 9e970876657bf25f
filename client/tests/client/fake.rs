//! Clients of fake nodes.

use std::net::SocketAddr;

use vecino_certs::Role;
use vecino_client::{Client, ClientBuilder};
pub use vecino_net::testing::{Asked, FakeMesh, FakeNode, reply};

/// What makes clients of a mesh of fakes.
pub trait Clients {
    /// A client of these nodes, in this order, before it is made.
    fn builder(&self, addresses: &[SocketAddr]) -> ClientBuilder;

    /// A client of these nodes, in this order.
    async fn client(&self, addresses: &[SocketAddr]) -> Client {
        self.builder(addresses).build().await.unwrap()
    }
}

impl Clients for FakeMesh {
    fn builder(&self, addresses: &[SocketAddr]) -> ClientBuilder {
        let builder = Client::builder().identity(self.identity(Role::Client));
        addresses.iter().fold(builder, |builder, address| builder.connect(address.to_string()))
    }
}

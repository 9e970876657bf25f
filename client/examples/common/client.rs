//! The client of the examples: of the node that `vecino node` starts in this folder, unless `VECINO_CONNECT` and
//! `VECINO_CERTS` name others.

use std::env;

use vecino_client::{Client, ClientError};

/// Makes the client. Nothing is sent yet.
pub async fn client() -> Result<Client, ClientError> {
    let connect = env::var("VECINO_CONNECT").unwrap_or_else(|_| "127.0.0.1:7400".to_owned());
    let certs = env::var("VECINO_CERTS").unwrap_or_else(|_| "vecino-data/certs/client".to_owned());
    let builder = connect.split(',').fold(Client::builder(), |builder, address| builder.connect(address));
    builder.certs(certs).build().await
}

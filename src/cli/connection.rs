//! Reaching a mesh: which addresses, which certificate.

use std::path::{Path, PathBuf};

use vecino_client::Client;

use super::args::ConnectArgs;
use super::failure::Failure;

/// Makes a client for the addresses, in their order. Nothing is sent yet.
pub async fn connect(args: &ConnectArgs) -> Result<Client, Failure> {
    connect_from(args, 0).await
}

/// As [`connect`], with the address of this number (modulo their count) first, so that several clients spread over the
/// nodes.
pub async fn connect_from(args: &ConnectArgs, first: usize) -> Result<Client, Failure> {
    let certs = certs_dir(args.certs.as_deref(), Path::new(DEFAULT_CERTS))?;
    let mut addresses = args.connect.clone();
    addresses.rotate_left(first % args.connect.len().max(1));
    let builder = addresses.into_iter().fold(Client::builder(), |builder, address| builder.connect(address));
    Ok(builder.certs(certs).timeout(args.timeout).build().await?)
}

fn certs_dir(named: Option<&Path>, default: &Path) -> Result<PathBuf, Failure> {
    match named {
        Some(dir) => Ok(dir.to_owned()),
        None if default.is_dir() => Ok(default.to_owned()),
        None => Err(Failure::new(
            "certificates",
            format!(
                "a client certificate is needed, and there is none in ./{}: name its folder with --certs DIR or \
                 VECINO_CERTS; a node that was started without certificates made one and printed its folder, and \
                 `vecino certs issue CA_DIR --name NAME --out DIR --client` makes one",
                default.display()
            ),
        )),
    }
}

/// Where `vecino node`, started without arguments in this folder, puts a client's certificate.
const DEFAULT_CERTS: &str = "vecino-data/certs/client";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_comes_before_the_default_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(certs_dir(Some(Path::new("x")), dir.path()).unwrap(), Path::new("x"));
        assert_eq!(certs_dir(None, dir.path()).unwrap(), dir.path());
    }

    #[test]
    fn who_has_no_certificate_is_told_how_to_get_one() {
        let error = certs_dir(None, Path::new("absent/client")).unwrap_err().render(false);
        for word in ["./absent/client", "--certs DIR", "VECINO_CERTS", "vecino certs issue CA_DIR"] {
            assert!(error.contains(word), "{error}");
        }
    }
}

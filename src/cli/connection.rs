//! Reaching a mesh: which addresses, which certificate, and whether anything listens there.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vecino_client::Client;

use super::args::ConnectArgs;
use super::failure::Failure;

/// Makes a client for the addresses, in their order. Nothing is sent yet, and nothing needs to listen there: this is
/// for commands that wait for a mesh.
pub async fn connect(args: &ConnectArgs) -> Result<Client, Failure> {
    connect_to(args, args.connect.clone()).await
}

/// Makes a client for commands that need a running node. Addresses of this machine where nothing listens are left out;
/// where no other address remains, that is the failure, at once and without the attempts of the client.
pub async fn connect_running(args: &ConnectArgs) -> Result<Client, Failure> {
    connect_to(args, running(&args.connect)?).await
}

/// As [`connect_running`], with the address of this number (modulo their count) first, so that several clients spread
/// over the nodes.
pub async fn connect_from(args: &ConnectArgs, first: usize) -> Result<Client, Failure> {
    let mut addresses = running(&args.connect)?;
    let first = first % addresses.len().max(1);
    addresses.rotate_left(first);
    connect_to(args, addresses).await
}

async fn connect_to(args: &ConnectArgs, addresses: Vec<String>) -> Result<Client, Failure> {
    let certs = certs_dir(args.certs.as_deref(), Path::new(DEFAULT_CERTS))?;
    let builder = addresses.into_iter().fold(Client::builder(), |builder, address| builder.connect(address));
    Ok(builder.certs(certs).timeout(args.timeout).build().await?)
}

/// The addresses at which a node may run.
fn running(addresses: &[String]) -> Result<Vec<String>, Failure> {
    let (idle, running): (Vec<_>, Vec<_>) = addresses.iter().cloned().partition(|address| is_idle(address));
    if !running.is_empty() || idle.is_empty() {
        return Ok(running);
    }
    let message = format!(
        "no node runs at {}: start one with `vecino node`, or name another address with --connect or VECINO_CONNECT",
        idle.join(", ")
    );
    Err(Failure::new("connection", message).safe_to_retry())
}

/// Whether an address is one of this machine where surely nothing listens. What does not resolve, and what is elsewhere,
/// is left to the client.
fn is_idle(address: &str) -> bool {
    let resolved: Vec<SocketAddr> = address.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    !resolved.is_empty() && resolved.into_iter().all(|address| is_refused(address).unwrap_or(false))
}

/// Sends an empty datagram, which a node ignores, to an address of this machine; where nothing listens, the system
/// answers at once that the port is unreachable, which only a connected socket is told.
fn is_refused(address: SocketAddr) -> io::Result<bool> {
    if !address.ip().is_loopback() {
        return Ok(false);
    }
    let socket = UdpSocket::bind(SocketAddr::new(address.ip(), 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PROBE_WAIT))?;
    let answer = socket.send(&[]).and_then(|_| socket.recv(&mut [0]));
    Ok(answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
}

/// How long the system may take to say that a port of this machine is unreachable. It says so while the datagram is
/// sent; only a node that runs makes the command wait so long.
const PROBE_WAIT: Duration = Duration::from_millis(2);

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
    fn where_nothing_listens_on_this_machine_the_command_fails_at_once() {
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (live, dead) = (here.local_addr().unwrap().to_string(), gone.local_addr().unwrap().to_string());
        drop(gone);
        assert_eq!(running(&[dead.clone(), live.clone()]).unwrap(), [live.as_str()], "the others are asked");
        let failure = running(std::slice::from_ref(&dead)).unwrap_err().render(false);
        assert_eq!(
            failure,
            format!(
                "error: no node runs at {dead}: start one with `vecino node`, or name another address with --connect \
                 or VECINO_CONNECT"
            )
        );
        // Another machine, and what is no address, are the client's to judge.
        for elsewhere in ["192.0.2.1:7400", "no such name"] {
            assert_eq!(running(&[elsewhere.into()]).unwrap(), [elsewhere]);
        }
    }

    #[test]
    fn who_has_no_certificate_is_told_how_to_get_one() {
        let error = certs_dir(None, Path::new("absent/client")).unwrap_err().render(false);
        for word in ["./absent/client", "--certs DIR", "VECINO_CERTS", "vecino certs issue CA_DIR"] {
            assert!(error.contains(word), "{error}");
        }
    }
}

//! `vecino certs`: makes an authority, issues certificates, shows them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Subcommand;
use serde_json::json;
use vecino_certs::{
    Authority, CertificateInfo, CertificateKind, IssueOptions, LEAF_DAYS_DEFAULT, LEAF_DAYS_MAX, Role, rfc3339,
};

/// What to do with certificates.
#[derive(Clone, Debug, Subcommand)]
pub enum CertsCommand {
    /// Make the authority of a mesh: one key that signs the certificate of every node and client.
    Init {
        /// Folder for the authority; keep it away from the nodes, because anyone with its key can join the mesh.
        #[arg(value_name = "CA_DIR")]
        dir: PathBuf,
        /// Name of the authority, for people.
        #[arg(long, default_value = "vecino")]
        name: String,
    },
    /// Issue a certificate and its key to a node, or with --client to a client.
    Issue {
        /// Folder of the authority; a first node keeps the one that it made in its data folder, in certs/authority.
        ca_dir: PathBuf,
        /// Name of the node or client, for people.
        #[arg(long)]
        name: String,
        /// Folder to write ca.crt, the certificate and the key to; give it to the node as --certs.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// DNS name or IP address to name in the certificate; repeatable. Nodes need none to find each other.
        #[arg(long)]
        san: Vec<String>,
        /// Issue to a client, which may ask nodes but never be one.
        #[arg(long)]
        client: bool,
        /// How many days the certificate is valid.
        #[arg(long, default_value_t = LEAF_DAYS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(LEAF_DAYS_MAX)))]
        days: u32,
    },
    /// Show the certificates in a file or a folder.
    Show {
        /// A file of one or more certificates, such as node.crt, or a folder with such files.
        path: PathBuf,
    },
}

/// Carries out `command` and prints what it did, as JSON where `json` says so.
///
/// # Errors
/// When the certificates cannot be made or read, or the output cannot be written.
pub fn run(command: CertsCommand, json: bool) -> anyhow::Result<()> {
    run_to(command, json, &mut io::stdout().lock())
}

fn run_to(command: CertsCommand, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        CertsCommand::Init { dir, name } => {
            let authority = Authority::init(&dir, &name)?;
            let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
            if json {
                let answer = json!({
                    "authority": name,
                    "fingerprint": authority.fingerprint().to_string(),
                    "certificate": certificate,
                    "key": key,
                    "not_after": rfc3339(authority.not_after()),
                });
                writeln!(out, "{answer}")?;
            } else {
                writeln!(out, "made the authority {name:?}, valid until {}", rfc3339(authority.not_after()))?;
                writeln!(out, "  certificate  {}", certificate.display())?;
                writeln!(out, "  key          {}  (keep it secret, and off the nodes)", key.display())?;
                writeln!(out, "  fingerprint  {}", authority.fingerprint())?;
                writeln!(out, "next: vecino certs issue {} --name n1 --out n1-certs", dir.display())?;
            }
        }
        CertsCommand::Issue { ca_dir, name, out: folder, san, client, days } => {
            let role = if client { Role::Client } else { Role::Node };
            let options = IssueOptions { sans: san, days, ..IssueOptions::new(name.as_str(), role) };
            let issued = Authority::open(&ca_dir)?.issue(&options)?;
            let identity = issued.identity()?;
            issued.write(&folder)?;
            let not_after = rfc3339(identity.not_after());
            if json {
                let answer = json!({
                    "name": name,
                    "role": role.name(),
                    "node_id": (!client).then(|| identity.key_id().to_string()),
                    "certificate": folder.join(format!("{role}.crt")),
                    "key": folder.join(format!("{role}.key")),
                    "not_after": not_after,
                });
                writeln!(out, "{answer}")?;
            } else {
                let dir = folder.display();
                writeln!(out, "issued a {role} certificate to {name:?}, valid until {not_after}")?;
                if !client {
                    writeln!(out, "  node id  {}", identity.key_id())?;
                }
                writeln!(out, "  files    {dir}/ca.crt, {dir}/{role}.crt, {dir}/{role}.key")?;
                match role {
                    Role::Node => writeln!(out, "next: vecino node --certs {dir} --data DATA_DIR --listen ADDR")?,
                    Role::Client => writeln!(out, "next: vecino status --certs {dir} --connect ADDR")?,
                }
            }
        }
        CertsCommand::Show { path } => {
            let (now, certificates) = (SystemTime::now(), vecino_certs::show(&path)?);
            if json {
                let certificates: Vec<_> = certificates.iter().map(|info| to_json(info, now)).collect();
                writeln!(out, "{}", json!({ "certificates": certificates }))?;
            } else {
                for info in &certificates {
                    write_text(info, now, out)?;
                }
            }
        }
    }
    Ok(())
}

fn to_json(info: &CertificateInfo, now: SystemTime) -> serde_json::Value {
    let CertificateInfo { kind, name, subject, issuer, key_id, serial, sans, not_before, not_after, fingerprint } =
        info;
    json!({
        "kind": kind.to_string(),
        "name": name,
        "node_id": key_id.map(|id| id.to_string()),
        "subject": subject,
        "issuer": issuer,
        "serial": serial,
        "sans": sans,
        "not_before": rfc3339(*not_before),
        "not_after": rfc3339(*not_after),
        "expired": info.expired_at(now),
        "fingerprint": fingerprint.to_string(),
    })
}

fn write_text(info: &CertificateInfo, now: SystemTime, out: &mut impl Write) -> io::Result<()> {
    let CertificateInfo { kind, name, subject, issuer, key_id, serial, sans, not_before, not_after, fingerprint } =
        info;
    let heading = match kind {
        CertificateKind::Authority => "authority",
        CertificateKind::Leaf(Role::Node) => "node",
        CertificateKind::Leaf(Role::Client) => "client",
        CertificateKind::Other => "certificate of no vecino mesh",
    };
    writeln!(out, "{heading} {name:?}")?;
    if let Some(id) = key_id {
        writeln!(out, "  node id      {id}")?;
    }
    writeln!(out, "  subject      {}", subject.escape_debug())?;
    writeln!(out, "  issuer       {}", issuer.escape_debug())?;
    writeln!(out, "  serial       {serial}")?;
    if !sans.is_empty() {
        writeln!(out, "  names        {}", sans.join(", ").escape_debug())?;
    }
    let (from, until) = (rfc3339(*not_before), rfc3339(*not_after));
    let remark = if info.expired_at(now) { "  (expired)" } else { "" };
    writeln!(out, "  valid        {from} to {until}{remark}")?;
    writeln!(out, "  fingerprint  {fingerprint}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: CertsCommand,
    }

    fn run_line(line: &[&str], json: bool) -> anyhow::Result<String> {
        let line = Line::try_parse_from([&["certs"], line].concat())?;
        let mut out = Vec::new();
        run_to(line.command, json, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn path(&self, name: &str) -> String {
            self.0.path().join(name).to_str().unwrap().to_owned()
        }
    }

    #[test]
    fn an_authority_issues_what_show_reads_back() {
        let folder = Folder(tempfile::tempdir().unwrap());
        let (ca, out) = (folder.path("ca"), folder.path("n1"));
        let text = run_line(&["init", &ca, "--name", "coast"], false).unwrap();
        assert!(text.contains("\"coast\"") && text.contains(&format!("vecino certs issue {ca}")), "{text}");

        let line = ["issue", &ca, "--name", "n1", "--out", &out, "--san", "n1.example.org", "--san", "192.0.2.1"];
        let issued: Value = serde_json::from_str(&run_line(&line, true).unwrap()).unwrap();
        let shown = run_line(&["show", issued["certificate"].as_str().unwrap()], true).unwrap();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let shown = &shown["certificates"][0];
        assert_eq!(shown["node_id"], issued["node_id"]);
        assert_eq!(shown["not_after"], issued["not_after"]);
        assert_eq!((&shown["kind"], &shown["expired"]), (&json!("node"), &json!(false)));
        assert_eq!(shown["sans"], json!(["node.vecino.internal", "n1.example.org", "192.0.2.1"]));
        assert!(shown["issuer"].as_str().unwrap().contains("coast"));

        let text = run_line(&["show", &folder.path("n1/node.crt")], false).unwrap();
        for word in ["node \"n1\"", issued["node_id"].as_str().unwrap(), "n1.example.org", "fingerprint"] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
        assert!(!text.contains("expired"), "{text}");
    }

    #[test]
    fn a_client_gets_a_client_certificate() {
        let folder = Folder(tempfile::tempdir().unwrap());
        let (ca, out) = (folder.path("ca"), folder.path("me"));
        run_line(&["init", &ca], true).unwrap();
        let issued = run_line(&["issue", &ca, "--name", "me", "--out", &out, "--client", "--days", "7"], true).unwrap();
        let issued: Value = serde_json::from_str(&issued).unwrap();
        assert_eq!((&issued["role"], &issued["node_id"]), (&json!("client"), &Value::Null));
        let text = run_line(&["show", issued["certificate"].as_str().unwrap()], false).unwrap();
        assert!(text.starts_with("client \"me\"\n") && !text.contains("node id"), "{text}");
    }

    #[test]
    fn bad_options_are_refused_before_anything_is_written() {
        let folder = Folder(tempfile::tempdir().unwrap());
        let (ca, out) = (folder.path("ca"), folder.path("n1"));
        run_line(&["init", &ca], false).unwrap();
        for (extra, word) in [(["--days", "0"], "1..=3650"), (["--days", "x"], "invalid"), (["--san", "a b"], "a b")] {
            let line = [&["issue", &ca, "--name", "n1", "--out", &out][..], &extra[..]].concat();
            let error = run_line(&line, false).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            assert!(!folder.0.path().join("n1").exists());
        }
        assert!(run_line(&["init", &ca], false).unwrap_err().to_string().contains("exists"));
        let text = run_line(&["show", &ca], false).unwrap();
        assert!(text.starts_with("authority \"vecino\"\n"), "a folder is shown file by file: {text}");
        let missing = folder.path("nothing.crt");
        assert!(run_line(&["show", &missing], false).unwrap_err().to_string().contains("nothing.crt"));
    }
}

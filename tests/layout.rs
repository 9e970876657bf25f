//! The house is as it is drawn: which crate may know which, and that ARCHITECTURE.md names what exists.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn dependencies_run_in_one_direction() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = |package: &serde_json::Value| -> BTreeSet<String> {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        // Tests may use more than what is tested.
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        let ours = normal.filter_map(|dependency| dependency["name"].as_str()?.strip_prefix("vecino-"));
        ours.map(str::to_owned).collect()
    };
    let packages = metadata["packages"].as_array().unwrap().iter();
    let found: BTreeMap<&str, BTreeSet<String>> =
        packages.map(|package| (package["name"].as_str().unwrap(), names(package))).collect();
    let drawn = [
        ("vecino", vec!["certs", "client", "engine", "mesh", "model", "net", "node", "storage"]),
        ("vecino-certs", vec![]),
        ("vecino-client", vec!["certs", "model", "net"]),
        ("vecino-engine", vec!["index", "model", "storage", "supervise"]),
        ("vecino-index", vec![]),
        ("vecino-mesh", vec!["model"]),
        ("vecino-model", vec![]),
        ("vecino-net", vec!["certs", "model", "supervise"]),
        ("vecino-node", vec!["certs", "engine", "mesh", "model", "net", "storage", "supervise"]),
        ("vecino-storage", vec![]),
        ("vecino-supervise", vec![]),
    ];
    let drawn: BTreeMap<&str, BTreeSet<String>> =
        drawn.into_iter().map(|(name, uses)| (name, uses.into_iter().map(str::to_owned).collect())).collect();
    assert_eq!(found, drawn);
}

#[test]
fn every_path_that_the_documents_name_exists() {
    for document in ["ARCHITECTURE.md", "README.md", "docs/backup.md", "docs/disk.md", "docs/wire.md"] {
        let text = std::fs::read_to_string(Path::new(ROOT).join(document)).unwrap();
        let quoted = text.split('`').skip(1).step_by(2);
        let roots = [
            "src/", "model/", "mesh/", "net/", "storage/", "index/", "certs/", "engine/", "node/", "client/", "tests/",
            "docs/", "data/", ".ci/",
        ];
        let paths: Vec<&str> = quoted.filter(|code| roots.iter().any(|root| code.starts_with(root))).collect();
        assert!(!paths.is_empty() || document == "README.md", "{document} names nothing");
        for path in paths {
            assert!(Path::new(ROOT).join(path).exists(), "{document} names {path}, which does not exist");
        }
    }
}

//! The house is as it is drawn: which crate may know which, and that ARCHITECTURE.md names what exists.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

#[path = "layout/modules.rs"]
mod modules;

use modules::Modules;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The crates, by the folder of their source.
const CRATES: [&str; 12] = [
    "src",
    "model/src",
    "index/src",
    "storage/src",
    "certs/src",
    "mesh/src",
    "net/src",
    "engine/src",
    "node/src",
    "client/src",
    "supervise/src",
    "simulation/src",
];
/// Most lines of one file of Rust.
const FILE_LINES_MAX: usize = 600;

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
        ("vecino-client", vec!["certs", "mesh", "model", "net"]),
        ("vecino-engine", vec!["index", "model", "storage", "supervise"]),
        ("vecino-index", vec![]),
        ("vecino-mesh", vec!["model"]),
        ("vecino-model", vec![]),
        ("vecino-net", vec!["certs", "model", "supervise"]),
        ("vecino-node", vec!["certs", "engine", "mesh", "model", "net", "storage", "supervise"]),
        ("vecino-simulation", vec!["engine", "mesh", "model", "net", "storage"]),
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
            "src/",
            "model/",
            "mesh/",
            "net/",
            "storage/",
            "index/",
            "certs/",
            "engine/",
            "node/",
            "client/",
            "supervise/",
            "simulation/",
            "tests/",
            "docs/",
            "data/",
            ".ci/",
        ];
        let paths: Vec<&str> = quoted.filter(|code| roots.iter().any(|root| code.starts_with(root))).collect();
        assert!(!paths.is_empty() || document == "README.md", "{document} names nothing");
        for path in paths {
            assert!(Path::new(ROOT).join(path).exists(), "{document} names {path}, which does not exist");
        }
    }
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("docs/guarantees.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let quoted = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let named: BTreeSet<&str> = quoted.filter(|code| code.matches('_').count() >= 3).collect();
    assert!(named.len() >= 20, "the tables name tests: {named:?}");
    let mut missing = named.clone();
    walk(Path::new(ROOT), &mut |path| {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(path).unwrap();
            missing.retain(|name| !source.contains(&format!("fn {name}(")));
        }
    });
    assert!(missing.is_empty(), "docs/guarantees.md names tests that do not exist: {missing:?}");
}

#[test]
fn no_modules_of_a_crate_use_each_other_in_a_circle() {
    let circles = CRATES.iter().flat_map(|folder| {
        let circles = Modules::read(&Path::new(ROOT).join(folder)).circles();
        circles.into_iter().map(move |files| format!("{folder}: {}", files.join(" -> ")))
    });
    let circles: Vec<String> = circles.collect();
    assert!(circles.is_empty(), "these files use each other:\n{}", circles.join("\n"));
}

/// What depends on a machine, or differs between two runs of the same events.
const IMPURE: [&str; 8] =
    ["tokio", "thread::", "Instant", "SystemTime", "HashMap", "HashSet", "std::net::Udp", "std::fs"];

#[test]
fn what_decides_knows_no_clock_thread_or_chance_of_its_own() {
    let mut found = Vec::new();
    walk(&Path::new(ROOT).join("mesh/src"), &mut |path| {
        let source = std::fs::read_to_string(path).unwrap();
        // A generator with a seed is chance that replays.
        let source = source.replace("fastrand::Rng", "");
        let names = IMPURE.iter().chain(&["fastrand::"]).filter(|name| source.contains(**name));
        found.extend(names.map(|name| format!("{} names {name}", path.display())));
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_file_is_longer_than_can_be_kept_in_mind() {
    let mut long = Vec::new();
    walk(Path::new(ROOT), &mut |path| {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let lines = std::fs::read_to_string(path).unwrap().lines().count();
            if lines > FILE_LINES_MAX {
                long.push(format!("{}: {lines} lines", path.display()));
            }
        }
    });
    assert!(long.is_empty(), "more than {FILE_LINES_MAX} lines:\n{}", long.join("\n"));
}

#[test]
fn the_code_map_names_every_folder_of_code() {
    let map = std::fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    let mut missing = BTreeSet::new();
    for folder in CRATES {
        walk(&Path::new(ROOT).join(folder), &mut |path| {
            if path.file_name().is_some_and(|name| name == "tests.rs") {
                return;
            }
            let parent = path.parent().unwrap().strip_prefix(ROOT).unwrap().display().to_string();
            // A crate is named by its own folder; tests of a module lie beside it.
            let name = if CRATES.contains(&parent.as_str()) { parent.trim_end_matches("/src") } else { &parent };
            if !map.contains(&format!("`{name}/`")) && !name.ends_with("tests") && name != "src" {
                missing.insert(name.to_owned());
            }
        });
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name {missing:?}");
}

/// Calls for every file below a folder that git would keep.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "target" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() { walk(&path, visit) } else { visit(&path) }
    }
}

//! The demonstration shows what it says.

use crate::lab::{Lab, run};

#[test]
fn the_demonstration_runs_and_its_searches_agree() {
    let lab = Lab::new();
    let ran = run(lab.folder.path(), &["demo", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let steps: Vec<serde_json::Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let step =
        |name: &str| steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("no {name}: {ran:?}"));
    let first = &step("search")["ids"];
    assert_eq!(first[0], "tomato", "{first}");
    for again in ["search_unnoticed", "search_down"] {
        assert_eq!(&step(again)["ids"], first, "{again}");
        assert_eq!(step(again)["coverage"], 1.0, "{again}");
    }
    // What was put meanwhile is near, and is found through the node that was away.
    assert!(step("search_restarted")["ids"].as_array().unwrap().contains(&"terracotta".into()), "{ran:?}");
    let caught_up = steps.iter().any(|step| step["step"] == "caught_up");
    assert!(caught_up || step("not_caught_up")["missing"] == 1 && step("read")["found"] == true, "{ran:?}");
}

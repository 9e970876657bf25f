//! Readers of the log of changes: entries, changes, states, and what was promised.

use std::collections::BTreeMap;
use std::sync::Arc;

use vecino_mesh::changes::{
    Change, EncodedChange, Entry, LayoutNode, Newcomer, State, decode_acceptor, encode_acceptor,
};
use vecino_mesh::register::{Acceptor, Ballot};
use vecino_model::{CollectionId, CollectionSchema, DiskId, FieldSchema, Fsync, MeshId, Metric, NodeId};

use crate::fuzz;
use crate::mutate::mutate;

fn entries() -> Vec<Entry> {
    let node = |number: u8| NodeId::from_bytes([number; 16]);
    let newcomer = |number: u8| Newcomer {
        disk: DiskId([number; 16]),
        place: LayoutNode { zone: "here".into(), tokens: vec![u64::from(number), 77] },
    };
    let members = (1..4).map(|number| (node(number), newcomer(number))).collect();
    let acceptors = (1..4).map(|number| (node(number), DiskId([number; 16]))).collect();
    let field = FieldSchema { dim: 3, metric: Metric::Dot, m: 8, ef_construction: 40, profile: Default::default() };
    let fields = BTreeMap::from([(String::new(), field)]);
    let schema = CollectionSchema { fields, replication_factor: 2, fsync: Fsync::EveryMs(9) };
    let create = |number: u8| Change::Create {
        id: CollectionId([number; 16]),
        name: format!("c{number}"),
        schema: schema.clone(),
        restoring: None,
    };
    let entry = |changes: &[Change]| Entry {
        changes: changes.iter().map(|change| EncodedChange::new(change).unwrap()).collect(),
    };
    vec![
        entry(&[Change::Form { mesh: MeshId([1; 16]), members, acceptors }]),
        entry(&[create(1), create(2), Change::Join { node: node(9), newcomer: newcomer(9), after: 1 }]),
        entry(&[Change::ReplaceDisk { node: node(2), was: DiskId([2; 16]), disk: DiskId([20; 16]) }]),
    ]
}

#[test]
fn the_readers_of_the_log_of_changes() {
    let entries = entries();
    let (mut state, _) = State::begin(&entries[0]).unwrap();
    entries[1..].iter().for_each(|entry| drop(state.apply(entry).unwrap()));
    let ballot = |round| Ballot { round, node: NodeId::from_bytes([3; 16]) };
    let accepted = Some((ballot(4), Arc::new(entries[1].clone())));
    let acceptor = encode_acceptor(4, &Acceptor { promised: Some(ballot(7)), accepted });
    fuzz("log of changes", 20_000, |random| match random.u8(..4) {
        0 => {
            let mut bytes = entries[random.usize(..entries.len())].encode();
            mutate(&mut bytes, random);
            if let Ok(entry) = Entry::decode(&bytes) {
                let before = state.clone();
                let mut after = state.clone();
                if after.apply(&entry).is_err() {
                    assert_eq!(after, before, "what cannot be read is not half applied");
                }
                let _ = State::begin(&entry);
            }
        }
        1 => {
            let mut bytes = state.encode();
            mutate(&mut bytes, random);
            if let Ok(mut state) = State::decode(&bytes) {
                entries.iter().for_each(|entry| drop(state.apply(entry)));
            }
        }
        2 => {
            let mut bytes = acceptor.clone();
            mutate(&mut bytes, random);
            let _ = decode_acceptor(&bytes);
        }
        _ => {
            let changes = &entries[random.usize(..entries.len())].changes;
            let mut change = changes[random.usize(..changes.len())].clone();
            change.kind = random.u16(..24);
            mutate(&mut change.body, random);
            let _ = change.decode();
        }
    });
}

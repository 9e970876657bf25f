//! Decoders of what comes over the wire, stands in records, and in backups.

use std::collections::BTreeMap;

use fastrand::Rng;
use vecino::backup::manifest::{CollectionManifest, PageRef};
use vecino::backup::page::{self, PageName};
use vecino::backup::{BackupName, Manifest};
use vecino_engine::record;
use vecino_model::{
    CatalogEntry, CollectionId, CollectionSchema, FieldSchema, Fields, Fsync, Level, LiveCollection, MeshId, Metric,
    NodeId, Payload, Point, Record, RecordValue, Value, Vector, Version,
};
use vecino_net::frame::{ReplyHeader, RequestHeader};
use vecino_net::message::{CatalogApply, Put, ReplicaApply, ReplicaSearch, Rpc, Search, StatusReply};
use vecino_net::rpc::{self, TraceId};

use crate::fuzz;
use crate::mutate::{mend_hashed, mutate};

fn schema() -> CollectionSchema {
    let field =
        FieldSchema { dim: 4, metric: Metric::Cosine, m: 16, ef_construction: 200, profile: Default::default() };
    CollectionSchema {
        fields: BTreeMap::from([("image".into(), field)]),
        replication_factor: 3,
        fsync: Fsync::EveryMs(5),
    }
}

fn version() -> Version {
    Version { time: 1 << 40, node: NodeId::from_bytes([7; 16]) }
}

fn a_record() -> Record {
    let vectors = Fields::from([("image".into(), Vector(vec![0.5, -1.0, 2.0, 3.0]))]);
    let value = RecordValue { vectors, payload: rmp_serde::to_vec_named(&payload()).unwrap() };
    Record { id: "a text for an id".into(), version: version(), value: Some(value) }
}

fn payload() -> Payload {
    let list = Value::List(vec![Value::Int(-3), Value::Float(0.5), Value::Bool(true), Value::Null]);
    Payload::from([("list".to_owned(), list), ("text".to_owned(), Value::Text("blue".to_owned()))])
}

fn a_point() -> Point {
    let vectors = Fields::from([("image".into(), Vector(vec![0.5, -1.0, 2.0, 3.0]))]);
    Point { id: 17u64.into(), vectors, payload: payload() }
}

#[test]
fn the_record_codec() {
    let live = record::encode(&a_record());
    let tombstone = record::encode(&Record { value: None, ..a_record() });
    fuzz("records", 60_000, |random| {
        let mut bytes = if random.bool() { live.clone() } else { tombstone.clone() };
        mutate(&mut bytes, random);
        if let Ok(record) = record::decode(&bytes) {
            // What was understood can be said again.
            let again = record::encode(&record);
            assert_eq!(record::encode(&record::decode(&again).unwrap()), again);
        }
        let _ = record::decode_entry(&bytes);
    });
}

#[test]
fn backups() {
    let mut one_page = Vec::new();
    page::append(&mut one_page, a_point());
    page::append(&mut one_page, a_point());
    let name = BackupName::at(std::time::SystemTime::UNIX_EPOCH);
    let pages = vec![PageRef { name: PageName::of(&one_page), bytes: one_page.len() as u64, points: 2 }; 3];
    let collection = CollectionManifest { name: "films".into(), id: CollectionId([1; 16]), schema: schema(), pages };
    let manifest = Manifest { mesh: MeshId([2; 16]), level: Level::Quorum, collections: vec![collection] };
    let real = manifest.encode();
    fuzz("backup manifests and pages", 30_000, |random| {
        let mut bytes = real.clone();
        mutate(&mut bytes, random);
        let is_mended = random.u8(0..4) > 0;
        if is_mended {
            mend_hashed(&mut bytes);
        }
        if let Ok(read) = Manifest::decode(&name, &bytes) {
            assert!(is_mended || read == manifest);
            assert_eq!(Manifest::decode(&name, &read.encode()).unwrap(), read);
        }
        let mut bytes = one_page.clone();
        mutate(&mut bytes, random);
        let _ = page::decode(&bytes);
    });
}

/// Decodes bytes as the body of one kind of request, and says again what was understood.
fn body<R: Rpc>(bytes: &[u8]) {
    if let Ok(request) = rpc::decode::<R>(R::NAME, bytes) {
        let again = rpc::encode(&request).unwrap();
        assert!(rpc::decode::<R>(R::NAME, &again).is_ok(), "what was understood cannot be read again");
    }
}

#[test]
fn frames_and_bodies() {
    let request = RequestHeader { kind: 3, body_bytes: 100, deadline_ms: 5_000, trace: TraceId::random() }.encode();
    let reply = ReplyHeader { kind: 3, error: true, body_bytes: 100 }.encode();
    let live =
        LiveCollection { schema: schema(), placement: BTreeMap::from([(NodeId::from_bytes([7; 16]), vec![1, 2])]) };
    let entry = CatalogEntry { name: "films".into(), version: version(), id: CollectionId([1; 16]), live: Some(live) };
    let search = ReplicaSearch {
        collection: CollectionId([1; 16]),
        field: "image".into(),
        vector: Vector(vec![0.5; 4]),
        k: 10,
        ef: 100,
        threshold: Some(0.5),
        with_payload: true,
        with_vectors: false,
        exact: false,
    };
    let put = Put { collection: "films".into(), points: vec![a_point(); 3], level: Level::All };
    let bodies = [
        rpc::encode(&put).unwrap(),
        rpc::encode(&search).unwrap(),
        rpc::encode(&ReplicaApply { collection: CollectionId([1; 16]), records: vec![a_record(); 3] }).unwrap(),
        rpc::encode(&CatalogApply { entry }).unwrap(),
    ];
    fuzz("frames and bodies", 40_000, |random| {
        let mut header = if random.bool() { request.to_vec() } else { reply.to_vec() };
        mutate(&mut header, random);
        if let Ok(read) = RequestHeader::decode(&header) {
            assert_eq!(RequestHeader::decode(&read.encode()), Ok(read));
        }
        if let Ok(read) = ReplyHeader::decode(&header) {
            assert_eq!(ReplyHeader::decode(&read.encode()), Ok(read));
        }
        let mut bytes: Vec<u8> = bodies[random.usize(..bodies.len())].clone();
        mutate(&mut bytes, random);
        body::<Put>(&bytes);
        body::<Search>(&bytes);
        body::<ReplicaSearch>(&bytes);
        body::<ReplicaApply>(&bytes);
        body::<CatalogApply>(&bytes);
        let _ = rpc::decode::<StatusReply>("status", &bytes);
    });
}

/// Nesting is what decoders of maps and lists fall over.
#[test]
fn a_body_that_is_nested_without_end_is_refused() {
    let mut random = Rng::with_seed(4);
    for depth in [10, 1_000, 100_000, 1_000_000] {
        for open in [0x91u8, 0x81, 0xdd, 0xdf] {
            let mut bytes = vec![0x81, 0xa7];
            bytes.extend(b"payload");
            bytes.extend(std::iter::repeat_n(open, depth));
            mutate(&mut bytes, &mut random);
            body::<Put>(&bytes);
            let _ = rmp_serde::from_slice::<Payload>(&bytes);
            let _ = record::decode(&bytes);
        }
    }
}

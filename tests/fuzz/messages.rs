//! Decoders of what comes over the wire, stands in records, and in backups.

use std::collections::BTreeMap;

use vecino::backup::Manifest;
use vecino::backup::manifest::{CollectionManifest, PageRef};
use vecino::backup::page::{self, PageName};
use vecino_engine::record;
use vecino_model::{
    CatalogEntry, CollectionId, CollectionSchema, FieldSchema, Fields, Fsync, Level, LiveCollection, MeshId, Metric,
    NodeId, Payload, PointId, RawHit, RawPayload, RawPoint, RawStoredPoint, Record, RecordValue, ScanCursor, Value,
    Vector, Version, validate,
};
use vecino_net::frame::{Part, ReplyHeader, RequestHeader, StreamKind};
use vecino_net::message::{
    CatalogApply, ConnectionClass, Delete, Hello, Members, MembersReply, PeerIdentity, Put, ReplicaApply, ReplicaHits,
    ReplicaSearch, Rpc, Scan, ScanReply, ScanStream, Search, Stamp, Stamped, StatusReply,
};
use vecino_net::rpc::{self, TraceId};

use crate::fuzz;
use crate::memory::held_by;
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
    Version { time: 1 << 40, node: NodeId::from_bytes([7; 16]), seq: 0 }
}

fn a_record() -> Record {
    let vectors = Fields::from([("image".into(), Vector(vec![0.5, -1.0, 2.0, 3.0]))]);
    let value = RecordValue { vectors, payload: payload().into() };
    Record { id: "a text for an id".into(), version: version(), value: Some(value) }
}

fn payload() -> Payload {
    let list = Value::List(vec![Value::Int(-3), Value::Float(0.5), Value::Bool(true), Value::Null]);
    Payload::from([("list".to_owned(), list), ("text".to_owned(), Value::Text("blue".to_owned()))])
}

fn a_point() -> RawPoint {
    let vectors = Fields::from([("image".into(), Vector(vec![0.5, -1.0, 2.0, 3.0]))]);
    RawPoint { id: 17u64.into(), vectors, payload: payload().into() }
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
        if let Ok(read) = Manifest::decode(&bytes) {
            assert!(is_mended || read == manifest);
            assert_eq!(Manifest::decode(&read.encode()).unwrap(), read);
        }
        let mut bytes = one_page.clone();
        mutate(&mut bytes, random);
        let _ = page::decode(&bytes);
    });
}

#[test]
fn payloads() {
    let real = rmp_serde::to_vec_named(&payload()).unwrap();
    fuzz("payloads", 100_000, |random| {
        let mut bytes = real.clone();
        mutate(&mut bytes, random);
        let raw = RawPayload::from_bytes(bytes);
        // What is let through can be decoded, and encoded again.
        if raw.check().is_ok() {
            assert_eq!(RawPayload::from(raw.decode().unwrap()).check(), Ok(()));
        }
    });
}

/// Decodes bytes as the body of one kind of request, and says again what was understood.
fn body<R: Rpc>(bytes: &[u8]) {
    if let Ok(request) = rpc::decode::<R>(R::NAME, bytes) {
        let again = rpc::encode(&request).unwrap();
        assert!(rpc::decode::<R>(R::NAME, &again).is_ok(), "what was understood cannot be read again");
    }
}

fn a_hello() -> Hello {
    let (node_id, mesh_id) = (NodeId::from_bytes([7; 16]), Some(MeshId([2; 16])));
    let peer = Some(PeerIdentity { node_id, mesh_id, advertise: "127.0.0.1:7450".into() });
    Hello { peer, software: "vecino".into(), class: ConnectionClass::Bulk, tells_clock: true }
}

fn a_scan() -> ScanStream {
    let after = Some(ScanCursor { position: 1 << 50, id: "a text".into() });
    let (level, with_vectors, with_payload) = (Level::Quorum, true, false);
    ScanStream { scan: Scan { collection: "films".into(), after, limit: 500, level, with_vectors, with_payload } }
}

fn a_page() -> ScanReply {
    let RawPoint { id, vectors, payload } = a_point();
    let next = Some(ScanCursor { position: 3, id: 17.into() });
    ScanReply { points: vec![RawStoredPoint { id, vectors, payload, version: version() }; 2], next }
}

#[test]
fn frames_and_bodies() {
    let mut request = RequestHeader::new(14, 100, 5_000, TraceId::random());
    (request.stream, request.clock, request.epoch) = (StreamKind::Chunks, 1 << 30, 1 << 40);
    let request = request.encode();
    let parts = [Part::Reply, Part::Error, Part::Chunk, Part::End].map(|part| ReplyHeader::new(14, part, 100).encode());
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
    let stamps = vec![version(); 3];
    let stamp = Stamp { collection: "films".into(), ids: vec![17.into(), "a text".into()], level: Level::Quorum };
    let stamped = vec![Stamped::Version(version()), Stamped::Refused("no".into()), Stamped::Unavailable("down".into())];
    let put = Put { collection: "films".into(), points: vec![a_point(); 3], level: Level::All, stamps };
    let hit = RawHit { id: 7.into(), score: 0.5, version: version(), payload: None, vectors: a_point().vectors };
    let hits = ReplicaHits { hits: vec![hit; 2], horizon: Some(0.25) };
    let bodies = [
        rpc::encode(&put).unwrap(),
        rpc::encode(&search).unwrap(),
        rpc::encode(&ReplicaApply { collection: CollectionId([1; 16]), records: vec![a_record(); 3] }).unwrap(),
        rpc::encode(&CatalogApply { entry }).unwrap(),
        rpc::encode(&a_hello()).unwrap(),
        rpc::encode(&a_scan()).unwrap(),
        rpc::encode(&a_page()).unwrap(),
        rpc::encode(&stamp).unwrap(),
        rpc::encode(&stamped).unwrap(),
        rpc::encode(&hits).unwrap(),
        rpc::encode(&MembersReply::new(vec!["127.0.0.1:7450".into()])).unwrap(),
    ];
    fuzz("frames and bodies", 40_000, |random| {
        let mut header = if random.bool() { request.to_vec() } else { parts[random.usize(..parts.len())].to_vec() };
        mutate(&mut header, random);
        if let Ok(read) = RequestHeader::decode(&header) {
            // Every byte means something, or must be zero.
            assert_eq!(read.encode()[..], header[..read.encode().len()]);
        }
        if let Ok(read) = ReplyHeader::decode(&header) {
            assert_eq!(read.encode()[..], header[..read.encode().len()]);
        }
        let mut bytes: Vec<u8> = bodies[random.usize(..bodies.len())].clone();
        mutate(&mut bytes, random);
        body::<Put>(&bytes);
        body::<Search>(&bytes);
        body::<ReplicaSearch>(&bytes);
        body::<ReplicaApply>(&bytes);
        body::<CatalogApply>(&bytes);
        body::<Hello>(&bytes);
        body::<ScanStream>(&bytes);
        body::<Stamp>(&bytes);
        body::<Delete>(&bytes);
        let _ = rpc::decode::<Vec<Stamped>>(Stamp::NAME, &bytes);
        let _ = rpc::decode::<ReplicaHits>(ReplicaSearch::NAME, &bytes);
        let _ = rpc::decode::<MembersReply>(Members::NAME, &bytes);
        if let Ok(page) = rpc::decode::<ScanReply>(ScanStream::NAME, &bytes) {
            assert!(rpc::decode::<ScanReply>(ScanStream::NAME, &rpc::encode(&page).unwrap()).is_ok());
        }
        let _ = rpc::decode::<StatusReply>("status", &bytes);
    });
}

/// The body of a put of one point with a payload, which is given as it stands in the body.
fn put_body(payload: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&[0xa0 | text.len() as u8][..], text.as_bytes()].concat();
    let vectors = rmp_serde::to_vec_named(&a_point().vectors).unwrap();
    let point = [&[0x83], &text("id")[..], &[17], &text("vectors"), &vectors, &text("payload"), payload].concat();
    [&[0x82], &text("collection")[..], &text("films"), &text("points"), &[0x91], &point].concat()
}

/// A payload with `nil` again and again inside this many lists, as large as that makes it.
fn nested_payload(levels: usize, nils: u32) -> Vec<u8> {
    let mut payload = vec![0x81, 0xa1, b'a'];
    payload.extend(std::iter::repeat_n(0x91, levels));
    payload.push(0xdd);
    payload.extend(nils.to_be_bytes());
    payload.extend(std::iter::repeat_n(0xc0, nils as usize));
    payload
}

/// Bytes as a MessagePack `bin`.
fn bin(bytes: &[u8]) -> Vec<u8> {
    [&[0xc6][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// Once every level of a payload held a copy of what was inside: a put of 1 MB with 100 levels took 650 MB.
#[test]
fn a_deeply_nested_payload_takes_no_more_than_a_few_times_its_size() {
    for levels in [100, 1_000] {
        let payload = nested_payload(levels, 1_000_000);
        // As it travels, and as a map in place, which is how it travelled once.
        for body in [put_body(&bin(&payload)), put_body(&payload)] {
            let (refused, held) = held_by(|| match rpc::decode::<Put>(Put::NAME, &body) {
                Ok(put) => validate::point(&schema(), &put.points[0]).unwrap_err().to_string(),
                Err(error) => error.to_string(),
            });
            assert!(held < 3 * body.len(), "{held} bytes for a body of {} bytes: {refused}", body.len());
        }
        // As a client or a tool decodes it, checked or not.
        let (_, held) = held_by(|| RawPayload::from_bytes(payload.clone()).decode().unwrap_err());
        assert!(held < 3 * payload.len(), "{held}");
        let (_, held) = held_by(|| rmp_serde::from_slice::<Payload>(&payload).unwrap_err());
        assert!(held < payload.len() / 100, "{held}");
        // A list where an id should be is no id, and nobody needs to know what is in it.
        let (_, held) = held_by(|| rmp_serde::from_slice::<PointId>(&payload[3..]).unwrap_err());
        assert!(held < payload.len() / 100, "{held}");
    }
}

/// Nesting is what decoders of maps and lists fall over.
#[test]
fn a_body_that_is_nested_without_end_is_refused() {
    for depth in [17, 1_000, 100_000, 1_000_000] {
        for open in [&[0x91][..], &[0x81, 0xa1, b'k'], &[0xdd, 0, 0, 0, 1], &[0xdf, 0, 0, 0, 1, 0xa1, b'k']] {
            let nested = [&[0x81, 0xa1, b'a'], &open.repeat(depth)[..], &[0xc0]].concat();
            // In place of the payload …
            assert!(rpc::decode::<Put>(Put::NAME, &put_body(&nested)).is_err());
            // … and as the payload.
            let put = rpc::decode::<Put>(Put::NAME, &put_body(&bin(&nested))).unwrap();
            let refused = validate::point(&schema(), &put.points[0]).unwrap_err().to_string();
            let reason = if depth == 17 { "deeper than 16 levels" } else { "payload" };
            assert!(refused.contains(reason), "{refused}");
            assert!(rmp_serde::from_slice::<Payload>(&nested).is_err());
            assert!(record::decode(&nested).is_err());
            // In place of a field that nobody knows.
            let unknown = [&[0x83, 0xa1, b'x'], &nested[..], &put_body(&bin(&[0x80]))[1..]].concat();
            assert_eq!(rpc::decode::<Put>(Put::NAME, &unknown).is_ok(), depth < 100_000, "{depth}");
        }
    }
}

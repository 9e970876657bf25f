//! Holds `docs/wire.md` to the code.

use vecino_model::limits::FRAME_BYTES_MAX;
use vecino_net::frame::{MAGIC, PROTOCOL_VERSION, Part, REPLY_HEADER_BYTES, REQUEST_HEADER_BYTES, ReplyHeader};
use vecino_net::frame::{RequestHeader, StreamKind};
use vecino_net::gossip::GOSSIP_BYTES_MAX;
use vecino_net::message::KINDS;
use vecino_net::rpc::TraceId;

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire.md")).unwrap()
}

#[test]
fn the_document_lists_every_kind_and_the_sizes() {
    let document = document();
    let listed: Vec<(u16, &str)> = document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            Some((cells.next()?.parse().ok()?, cells.next()?.trim_matches('`')))
        })
        .collect();
    assert_eq!(listed, KINDS.iter().map(|kind| (kind.number, kind.name)).collect::<Vec<_>>());
    let in_chunks: Vec<_> = KINDS.iter().filter(|kind| kind.stream == StreamKind::Chunks).collect();
    assert!(matches!(&in_chunks[..], [kind] if kind.name == "ScanStream"), "the document names the only one");
    let with_features = KINDS.iter().filter(|kind| kind.features != 0);
    let with_features: Vec<_> = with_features.map(|kind| (kind.name, kind.features)).collect();
    assert_eq!(with_features, [("Put", 1), ("Delete", 1)], "the document names those that have one");
    let magic = String::from_utf8(MAGIC.to_vec()).unwrap();
    for fact in [
        format!("`{magic}`"),
        format!("version {PROTOCOL_VERSION}"),
        format!("{REQUEST_HEADER_BYTES} bytes"),
        format!("{REPLY_HEADER_BYTES} bytes"),
        format!("{FRAME_BYTES_MAX} bytes"),
        format!("{GOSSIP_BYTES_MAX} bytes"),
    ] {
        assert!(document.contains(&fact), "{fact:?} is not in the document");
    }
}

/// A column of the drawing: offset, size and meaning of each field.
fn drawn(document: &str, column: std::ops::Range<usize>) -> Vec<(usize, Option<usize>, String)> {
    let drawing = document.split("```text").nth(1).unwrap().split("```").next().unwrap();
    let cells = drawing.lines().skip(3).filter_map(|line| line.get(column.start..line.len().min(column.end)));
    let fields = cells.filter_map(|cell| {
        let mut words = cell.split_whitespace();
        let offset = words.next()?.parse().ok()?;
        let rest: Vec<_> = words.collect();
        let size = rest.first().and_then(|word| word.parse().ok());
        Some((offset, size, rest[usize::from(size.is_some())..].join(" ")))
    });
    fields.collect()
}

/// Bytes that the code writes, against the bytes that the drawing gives each field.
fn compare(fields: &[(usize, Option<usize>, String)], bytes: &[u8], values: &[(&str, &[u8])]) {
    let mut next = 0;
    for (offset, size, meaning) in fields {
        assert_eq!(*offset, next, "{meaning} begins where the field before ends");
        let Some(size) = size else { continue };
        next += size;
        if meaning == "reserved: 0" {
            assert!(bytes[*offset..next].iter().all(|byte| *byte == 0), "{offset}");
            continue;
        }
        let expected = values.iter().find(|(name, _)| meaning.starts_with(name));
        let (_, expected) = expected.unwrap_or_else(|| panic!("{meaning:?} is drawn and not in the code"));
        assert_eq!(&bytes[*offset..next], *expected, "{meaning}");
    }
    assert_eq!(next, bytes.len(), "the drawing covers every byte");
}

#[test]
fn every_byte_of_the_headers_is_where_the_document_draws_it() {
    let document = document();
    let mut request = RequestHeader::new(0x0102, 0x0003_0405, 0x0607_0809, TraceId::from_bytes([0xee; 16]));
    (request.stream, request.features, request.epoch) = (StreamKind::OneWay, 0x0a0b, 0x1112_1314_1516_1718);
    request.clock = 0x191a_1b1c;
    let request_values: [(&str, &[u8]); 10] = [
        ("magic", b"VCNO"),
        ("protocol version: 2", &[2, 0]),
        ("kind of stream", &[2]),
        ("kind", &[2, 1]),
        ("features", &[0x0b, 0x0a]),
        ("size", &[5, 4, 3, 0]),
        ("deadline", &[9, 8, 7, 6]),
        ("clock", &[0x1c, 0x1b, 0x1a, 0x19]),
        ("epoch", &[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]),
        ("trace id", &[0xee; 16]),
    ];
    compare(&drawn(&document, 0..50), &request.encode(), &request_values);

    let reply = ReplyHeader::new(0x0102, Part::End, 0x0003_0405);
    let reply_values: [(&str, &[u8]); 5] = [
        ("magic", b"VCNO"),
        ("protocol version: 2", &[2, 0]),
        ("kind of the request", &[2, 1]),
        ("part", &[3]),
        ("size", &[5, 4, 3, 0]),
    ];
    compare(&drawn(&document, 50..usize::MAX), &reply.encode(), &reply_values);
}

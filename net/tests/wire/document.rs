//! Holds `docs/wire.md` to the code.

use vecino_model::limits::FRAME_BYTES_MAX;
use vecino_net::frame::{MAGIC, PROTOCOL_VERSION, REPLY_HEADER_BYTES, REQUEST_HEADER_BYTES};
use vecino_net::gossip::GOSSIP_BYTES_MAX;
use vecino_net::message::KINDS;

#[test]
fn the_document_lists_every_kind_and_the_sizes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire.md");
    let document = std::fs::read_to_string(path).unwrap();
    let listed: Vec<(u16, &str)> = document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            Some((cells.next()?.parse().ok()?, cells.next()?.trim_matches('`')))
        })
        .collect();
    assert_eq!(listed, KINDS);
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

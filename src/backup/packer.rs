//! Cutting a collection into pages, so that a change moves only the borders beside it. Pure.
//!
//! A point is the last of its page by lot: the lower half of its ring position, which is a hash, is drawn against its
//! share of a page's bytes. So pages have the wanted size on average, and where one ends depends on that one point and on
//! no other (content-defined chunking, Muthitacharoen, Chen and Mazières 2001, with the hash that the ring has anyway).

use vecino_client::RawPoint;
use vecino_model::{CollectionId, position};

use super::page::{self, PageName};

/// Bytes of a page on average.
pub const PAGE_BYTES: usize = 1 << 20;

/// A page is ended before it has more than this many times the average; one larger point is a page of its own.
const LARGEST_PAGE: usize = 4;

/// Points of one collection on their way into pages.
#[derive(Debug)]
pub struct Packer {
    collection: CollectionId,
    page_bytes: usize,
    bytes: Vec<u8>,
    points: u32,
}

/// A page that is complete.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Its name.
    pub name: PageName,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// How many points that is.
    pub points: u32,
}

impl Packer {
    /// Packs points of this collection into pages of this many bytes on average.
    pub fn new(collection: CollectionId, page_bytes: usize) -> Self {
        Self { collection, page_bytes: page_bytes.max(1), bytes: Vec::new(), points: 0 }
    }

    /// Takes the next point in ring order, and gives the pages that it completes: at most two.
    pub fn push(&mut self, point: RawPoint) -> Vec<Page> {
        let mut complete = Vec::new();
        let lot = position(self.collection, &point.id) & u64::from(u32::MAX);
        let before = self.bytes.len();
        let bytes = page::append(&mut self.bytes, point);
        if before > 0 && self.bytes.len() > LARGEST_PAGE * self.page_bytes {
            let last = self.bytes.split_off(before);
            complete.extend(self.finish());
            self.bytes = last;
        }
        self.points += 1;
        // The chance that a lot of 32 bits is below bytes / page_bytes.
        if u128::from(lot) * (self.page_bytes as u128) < (bytes as u128) << 32 {
            complete.extend(self.finish());
        }
        complete
    }

    /// What is left, where anything is.
    pub fn finish(&mut self) -> Option<Page> {
        if self.points == 0 {
            return None;
        }
        let bytes = std::mem::take(&mut self.bytes);
        Some(Page { name: PageName::of(&bytes), bytes, points: std::mem::take(&mut self.points) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use vecino_client::{Payload, point};

    use super::*;

    const COLLECTION: CollectionId = CollectionId([3; 16]);

    fn pack(mut points: Vec<RawPoint>, page_bytes: usize) -> Vec<Page> {
        points.sort_by_key(|point| position(COLLECTION, &point.id));
        let mut packer = Packer::new(COLLECTION, page_bytes);
        let mut pages: Vec<_> = points.into_iter().flat_map(|point| packer.push(point)).collect();
        pages.extend(packer.finish());
        pages
    }

    fn points(ids: impl Iterator<Item = u64>) -> Vec<RawPoint> {
        ids.map(|id| point(id, vec![id as f32; 32], Payload::new()).into()).collect()
    }

    #[test]
    fn pages_have_the_wanted_size_on_average_and_never_much_more() {
        let pages = pack(points(0..20_000), 16 << 10);
        let total: usize = pages.iter().map(|page| page.bytes.len()).sum();
        let average = total / pages.len();
        assert!((12 << 10..20 << 10).contains(&average), "{average} bytes in {} pages", pages.len());
        assert!(pages.iter().all(|page| page.bytes.len() <= 64 << 10));
        assert_eq!(pages.iter().map(|page| page.points).sum::<u32>(), 20_000);
    }

    #[test]
    fn a_change_changes_the_pages_beside_it_and_no_others() {
        let names = |points| pack(points, 16 << 10).into_iter().map(|page| page.name).collect::<BTreeSet<_>>();
        let before = names(points(0..20_000));
        let mut changed = points(0..20_000);
        changed[777].vectors = [(String::new(), vec![0.5; 32].into())].into();
        for (what, after) in [
            ("overwritten", names(changed)),
            ("added", names(points(0..20_001))),
            ("deleted", names(points((0..20_000).filter(|id| *id != 4_711)))),
        ] {
            let new = after.difference(&before).count();
            // A page of the largest size does not end by lot, so the border behind it moves along until one does.
            assert!((1..=4).contains(&new), "{new} of {} pages are new when a point is {what}", after.len());
        }
    }

    #[test]
    fn points_larger_than_a_page_have_pages_of_their_own() {
        let pages = pack(points(0..50), 10);
        assert_eq!(pages.len(), 50);
        assert!(pages.iter().all(|page| page.points == 1));
        assert!(pack(Vec::new(), 10).is_empty());
    }
}

//! What is to be linked, and a bounded part of the work. Whoever has the time does it: the threads of
//! [`indexers`](crate::indexers), a writer that they do not keep up with, the owner of a collection without threads.

use vecino_index::Index;
use vecino_supervise::Panicked;

/// Something that has slots to link.
pub trait Linkable: Send + Sync + 'static {
    /// Its indexes; none where nothing is to be linked any more.
    fn indexes(&self) -> Vec<&Index>;

    /// Called whenever some of what waited was linked.
    fn progressed(&self) {}

    /// Called when linking its slots panicked.
    fn panicked(&self, _panic: &Panicked) {}
}

/// Links up to `limit` slots of each index, makes the codes of as many that were loaded, and looks at as many to take
/// what is buried out of the graph; true if there may be more.
pub fn link_some(linkable: &dyn Linkable, limit: usize) -> bool {
    let mut more = false;
    for index in linkable.indexes() {
        let linked = std::iter::from_fn(|| index.next_unlinked()).take(limit).inspect(|slot| index.link(*slot)).count();
        more |= linked == limit;
        more |= index.warm(limit);
        more |= index.consolidate(limit);
    }
    linkable.progressed();
    more
}

//! Making tables and indexes of what a snapshot holds.

use std::io;

use vecino_index::{ArenaPieces, ArenaSource, Slot};
use vecino_model::{CollectionId, CollectionSchema, FieldSchema};
use vecino_storage::{ArenaPages, PAGE_BYTES, Snapshot};

use crate::fields::{FieldIndex, FieldIndexes};
use crate::memory::Account;
use crate::persist::errors::LoadError;
use crate::persist::layout::{FORMAT, META, Meta, field_arena};
use crate::persist::points;
use crate::progress::{Phase, Progress};
use crate::tables::Tables;

/// A snapshot of no more bytes is read by one thread.
const SMALL_BYTES: u64 = 1024 * 1024;

struct FieldSource<'s> {
    snapshot: &'s Snapshot,
    number: usize,
    progress: &'s Progress,
}

/// One arena of a field, page by page.
struct FieldPages<'s> {
    pages: ArenaPages<'s>,
    progress: &'s Progress,
}

impl ArenaSource for FieldSource<'_> {
    fn open<'s>(&'s self, arena: &str) -> io::Result<Option<Box<dyn ArenaPieces + 's>>> {
        let pages = self.snapshot.pages(&field_arena(self.number, arena));
        let pages = pages.map(|pages| FieldPages { pages, progress: self.progress });
        Ok(pages.map(|pages| Box::new(pages) as Box<dyn ArenaPieces + 's>))
    }
}

/// What the indexes of a snapshot will take at least. Codes come later, if there is room.
fn index_bytes(snapshot: &Snapshot, id: CollectionId, schema: &CollectionSchema) -> Result<u64, LoadError> {
    let empty = FieldIndexes::new(id, schema).map_err(vecino_index::LoadError::Index)?;
    let bytes = |(number, index): (usize, &FieldIndex)| {
        index.loaded_bytes(|arena| {
            let arena = snapshot.open_arena(&field_arena(number, arena))?;
            Ok(arena.map_or(0, |arena| arena.len()))
        })
    };
    empty.all().enumerate().map(bytes).sum()
}

impl ArenaPieces for FieldPages<'_> {
    fn bytes(&self) -> u64 {
        self.pages.bytes()
    }

    fn piece_bytes(&self) -> usize {
        PAGE_BYTES
    }

    fn read(&self, piece: u64, into: &mut Vec<u8>) -> io::Result<()> {
        self.pages.read(piece as usize, into)?;
        self.progress.add(into.len() as u64);
        Ok(())
    }
}

/// Loads the tables and the indexes of a snapshot, if it is of this collection and there is memory for it.
pub(crate) fn load(
    snapshot: &Snapshot,
    id: CollectionId,
    schema: &CollectionSchema,
    account: &Account,
    progress: &Progress,
) -> Result<(Tables, FieldIndexes), LoadError> {
    progress.begin(Phase::Snapshot, snapshot.bytes());
    let meta = Meta::decode(&points::first(snapshot, META)?);
    let Meta { format, collection, fields } =
        meta.map_err(|error| LoadError::Decode { arena: META, reason: error.to_string() })?;
    if format > FORMAT {
        return Err(LoadError::Newer { found: format });
    }
    if collection != id || !fields.iter().eq(schema.fields.keys()) {
        return Err(LoadError::Foreign(format!("collection {collection} with fields {fields:?}")));
    }

    // Known before anything large is read, so that what does not fit costs little to find out, again and again.
    let index_bytes = index_bytes(snapshot, id, schema)?;
    account.open_with(index_bytes)?;
    let load_tables =
        || points::load(snapshot, id, progress, &|bytes: usize| account.open_with(index_bytes + bytes as u64));
    let load_index = |number: usize, field: &FieldSchema| -> Result<FieldIndex, LoadError> {
        Ok(FieldIndex::load(id, number, field, &FieldSource { snapshot, number, progress })?)
    };
    let load_indexes = || FieldIndexes::made(schema, load_index);
    let (mut tables, indexes) = if snapshot.bytes() <= SMALL_BYTES {
        (load_tables()?, load_indexes()?)
    } else {
        // Tables and indexes are in different arenas: each is made while the other is read.
        let (tables, indexes) = std::thread::scope(|scope| {
            let tables = scope.spawn(load_tables);
            let indexes = load_indexes();
            (tables.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), indexes)
        });
        (tables?, indexes?)
    };
    for slot in (0..indexes.slots() as Slot).filter(|slot| tables.in_slot(*slot).is_none()) {
        indexes.mark_deleted(slot);
    }
    tables.skip_slots_below(indexes.slots());
    Ok((tables, indexes))
}

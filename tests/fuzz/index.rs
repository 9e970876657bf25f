//! The loader of dumped indexes.

use std::collections::BTreeMap;
use std::io;
use std::sync::LazyLock;

use fastrand::Rng;
use vecino_index::{
    ArenaPieces, ArenaSink, ArenaSource, Index, Metric, PIECE_MULTIPLE, Params, Profile, SearchOptions,
};

use crate::fuzz;
use crate::mutate::mutate;

#[derive(Clone, Default)]
struct Arenas {
    arenas: BTreeMap<String, Vec<u8>>,
    last: String,
}

struct Pieces<'s>(&'s [u8]);

impl ArenaSink for Arenas {
    fn begin(&mut self, arena: &str) -> io::Result<()> {
        self.last = arena.to_owned();
        self.arenas.insert(arena.to_owned(), Vec::new());
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.arenas.get_mut(&self.last).unwrap().extend(bytes);
        Ok(())
    }
}

impl ArenaSource for Arenas {
    fn open<'s>(&'s self, arena: &str) -> io::Result<Option<Box<dyn ArenaPieces + 's>>> {
        Ok(self.arenas.get(arena).map(|bytes| Box::new(Pieces(bytes)) as Box<dyn ArenaPieces>))
    }
}

impl ArenaPieces for Pieces<'_> {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn piece_bytes(&self) -> usize {
        PIECE_MULTIPLE * 16
    }

    fn read(&self, piece: u64, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        into.extend(self.0.chunks(PIECE_MULTIPLE * 16).nth(piece as usize).unwrap_or_default());
        Ok(())
    }
}

fn params(profile: Profile) -> Params {
    Params { m: 4, ef_construction: 20, profile, ..Params::new(5, Metric::Cosine) }
}

fn dump(profile: Profile) -> Arenas {
    let index = Index::new(params(profile)).unwrap();
    let mut random = Rng::with_seed(3);
    for slot in 0..1_200 {
        let vector: Vec<f32> = (0..5).map(|_| random.f32() - 0.5).collect();
        index.store(slot, &vector).unwrap();
    }
    while let Some(slot) = index.next_unlinked() {
        index.link(slot);
    }
    index.mark_deleted(7);
    index.store(1_210, &[1.0; 5]).unwrap();
    let mut arenas = Arenas::default();
    index.dump(&mut arenas).unwrap();
    arenas
}

#[test]
fn the_loader_of_dumped_indexes() {
    static REAL: LazyLock<[(Profile, Arenas); 3]> =
        LazyLock::new(|| Profile::ALL.map(|profile| (profile, dump(profile))));
    fuzz("index dump", 1_500, |random| {
        let (profile, mut arenas) = REAL[random.usize(..3)].clone();
        let which = random.usize(..arenas.arenas.len());
        mutate(arenas.arenas.values_mut().nth(which).unwrap(), random);
        let Ok(index) = Index::load(params(profile), &arenas) else { return };
        if random.u8(0..4) == 0 {
            while index.warm(64) {}
            while let Some(slot) = index.next_unlinked() {
                index.link(slot);
            }
        }
        let hits = index.search(&[0.5; 5], &SearchOptions::new(10, 20)).unwrap();
        assert!(hits.iter().all(|hit| index.is_live(hit.slot) && hit.score.is_finite()));
    });
}

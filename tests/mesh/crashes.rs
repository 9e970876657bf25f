//! A node that is killed a hundred times under load, with a checker that knows what was promised and what was tried.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vecino_client::{Client, Outcome, StoredPoint, Value, WriteReport};

use crate::lab::{FILMS, Lab, create_films, film, get, nearest, vector};

const ROUNDS: u64 = 100;
/// Writers that write at the same time, each its own films.
const WRITERS: u64 = 2;
/// Films of each writer.
const FILMS_EACH: u64 = 150;
/// Films in one batch.
const BATCH: u64 = 25;
/// One batch in so many is a delete.
const DELETES: u64 = 6;

/// What may be read of one film.
#[derive(Clone, Debug, Default)]
struct Promise {
    /// The last write that was acknowledged or seen: the time of a put, or nothing.
    last: Option<u64>,
    /// What was sent since and not acknowledged: each may be there or not.
    open: Vec<Option<u64>>,
}

/// What is promised of every film, and the time of the next write.
#[derive(Debug, Default)]
struct Promises {
    films: BTreeMap<u64, Promise>,
    time: u64,
    acknowledged: u64,
}

impl Promises {
    /// A batch is about to be sent: each of its films may change from now on.
    fn send(&mut self, ids: &[u64], is_delete: bool) -> u64 {
        self.time += 1;
        for id in ids {
            self.films.entry(*id).or_default().open.push((!is_delete).then_some(self.time));
        }
        self.time
    }

    fn acknowledge(&mut self, id: u64, written: Option<u64>) {
        self.films.insert(id, Promise { last: written, open: Vec::new() });
        self.acknowledged += 1;
    }

    /// What was read is one of the writes that are possible, whole, and from now on the only one.
    fn check(&mut self, id: u64, found: Option<StoredPoint>) {
        let promise = self.films.get(&id).cloned().unwrap_or_default();
        let time = found.map(|found| {
            let Value::Int(time) = found.payload["time"] else { panic!("film {id} has no time: {found:?}") };
            assert_eq!(found.vectors[""].0, vector(id, time as u64), "film {id} has the vector of another write");
            time as u64
        });
        let is_possible = time == promise.last || promise.open.contains(&time);
        assert!(is_possible, "film {id} is as of time {time:?}, and {promise:?} is promised");
        self.films.insert(id, Promise { last: time, open: Vec::new() });
    }
}

async fn write_without_end(client: Client, promises: Arc<Mutex<Promises>>, writer: u64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let films = client.collection(FILMS);
    loop {
        let first = writer * FILMS_EACH + random.u64(0..=FILMS_EACH - BATCH);
        let ids: Vec<u64> = (first..first + BATCH).collect();
        let is_delete = random.u64(0..DELETES) == 0;
        let time = promises.lock().unwrap().send(&ids, is_delete);
        let outcomes = if is_delete {
            films.delete(ids.iter().copied()).each().await
        } else {
            films.put(ids.iter().map(|id| film(*id, time))).each().await
        };
        let Ok(outcomes) = outcomes.map(WriteReport::into_outcomes) else { return };
        let mut promises = promises.lock().unwrap();
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Written(_) => promises.acknowledge(id, (!is_delete).then_some(time)),
                Outcome::Unavailable(_) | Outcome::Unknown(_) => {}
                Outcome::Refused(reason) => panic!("{reason}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_kills_under_load_lose_nothing_and_leave_nothing_half_written() {
    let seed = std::env::var("VECINO_CRASH_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("VECINO_CRASH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let lab = Lab::new();
    let mut node = lab.node("n1", &[]).start().await.unwrap();
    create_films(&lab.client(&node).await, 1).await;
    let promises = Arc::new(Mutex::new(Promises::default()));
    let everything: Vec<u64> = (0..WRITERS * FILMS_EACH).collect();
    for round in 0..ROUNDS {
        let client = lab.client(&node).await;
        let before = promises.lock().unwrap().acknowledged;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write_without_end(client.clone(), Arc::clone(&promises), writer, random.u64(..)));
        }
        // It is under load once something of this round was acknowledged, and dies at any moment after.
        while promises.lock().unwrap().acknowledged == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if round % 4 == 0 {
            let client = client.clone();
            writers.spawn(async move { drop(client.snapshot().await) });
        }
        tokio::time::sleep(Duration::from_micros(random.u64(0..60_000))).await;
        let command = node.kill().await.unwrap();
        writers.shutdown().await;
        node = command.start().await.unwrap();
        let client = lab.client(&node).await;
        let found = get(&client, &everything, vecino_client::Level::Quorum).await;
        let searched = {
            let mut promises = promises.lock().unwrap();
            everything.iter().zip(found).for_each(|(id, found)| promises.check(*id, found));
            let live: Vec<_> = promises.films.iter().filter_map(|(id, film)| Some((*id, film.last?))).collect();
            random.choice(live)
        };
        if let Some((id, time)) = searched {
            assert_eq!(nearest(&client, id, time).await, (id.into(), 0.0), "round {round}");
        }
    }
    let promises = promises.lock().unwrap();
    println!("{} writes were acknowledged in {ROUNDS} lives", promises.acknowledged);
}

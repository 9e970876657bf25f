//! A disk in memory that can lose power: what was flushed survives, and of the rest an adversarial mix.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;

use super::{Disk, DiskFile, check, check_not_root, join, split};

/// A disk in memory. Clones are handles to the same disk.
///
/// [`MemDisk::crash`] is what it is for: it plays a power cut. Handles opened before fail afterwards.
#[derive(Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

/// What a power cut did to what had not been flushed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CrashReport {
    /// Sectors whose new contents reached the disk.
    pub sectors_kept: u64,
    /// Sectors whose new contents did not.
    pub sectors_lost: u64,
    /// Changes of names that reached the disk.
    pub names_kept: u64,
    /// Changes of names that did not.
    pub names_lost: u64,
}

impl MemDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power. Flushed bytes and names stay; of what was not flushed each sector of 512 bytes, each change of
    /// length and each change of a name is kept or lost, and a lost sector behind the flushed end may hold anything.
    /// The same seed on the same history gives the same disk.
    pub fn crash(&self, seed: u64) -> CrashReport {
        let mut state = self.lock();
        let mut rng = Rng::with_seed(seed);
        // Some crashes keep nearly all, some nearly nothing: an even coin alone would hardly ever make either.
        let chance = [0.0, 0.1, 0.5, 0.9, 1.0][rng.usize(..5)];
        let mut report = CrashReport::default();
        state.power_cuts += 1;
        for dir in state.dirs.values_mut() {
            for changes in std::mem::take(&mut dir.pending) {
                if rng.f64() < chance {
                    report.names_kept += 1;
                    changes.into_iter().for_each(|(name, node)| set(&mut dir.durable, name, node));
                } else {
                    report.names_lost += 1;
                }
            }
            dir.visible = dir.durable.clone();
            for node in dir.durable.values() {
                lock_node(node).crash(&mut rng, chance, &mut report);
            }
        }
        report
    }

    /// Changes one byte of a file, as rot does: flushed, behind everyone's back. Returns whether the byte exists.
    pub fn flip(&self, path: &str, offset: u64, mask: u8) -> bool {
        let Ok(node) = self.lock().node(path) else { return false };
        let mut node = lock_node(&node);
        let Ok(index) = usize::try_from(offset) else { return false };
        let Some(byte) = node.bytes.get_mut(index) else { return false };
        *byte ^= mask;
        if let Some(byte) = node.durable.get_mut(index) {
            *byte ^= mask;
        }
        true
    }

    /// Makes the `n`th flush of a file from now on (1 is the next) fail as real ones do: what it should have written is
    /// still seen, but is no longer waiting to be written, so the next flush says that all is well and the next power cut
    /// takes it.
    pub fn fail_flush(&self, n: u64) {
        self.lock().flushes_until_failure = Some(n);
    }

    /// A copy of the disk as it is now, with a history of its own from here on.
    pub fn fork(&self) -> MemDisk {
        let state = self.lock();
        let mut copies: Vec<(*const Mutex<Node>, NodeRef)> = Vec::new();
        let mut copy = |node: &NodeRef| {
            let known = Arc::as_ptr(node);
            if let Some((_, copy)) = copies.iter().find(|(old, _)| *old == known) {
                return copy.clone();
            }
            let made = Arc::new(Mutex::new(lock_node(node).clone()));
            copies.push((known, made.clone()));
            made
        };
        let mut dirs = BTreeMap::new();
        for (path, dir) in &state.dirs {
            let mut names =
                |from: &Names| from.iter().map(|(name, node)| (name.clone(), copy(node))).collect::<Names>();
            let (visible, durable) = (names(&dir.visible), names(&dir.durable));
            let pending = dir
                .pending
                .iter()
                .map(|changes| changes.iter().map(|(n, node)| (n.clone(), node.as_ref().map(&mut copy))).collect())
                .collect();
            dirs.insert(path.clone(), Dir { visible, durable, pending });
        }
        MemDisk {
            state: Arc::new(Mutex::new(State { dirs, power_cuts: state.power_cuts, flushes_until_failure: None })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn handle(&self, state: &State, node: NodeRef, writable: bool) -> Box<dyn DiskFile> {
        Box::new(MemFile { disk: self.clone(), node, writable, opened_after: state.power_cuts })
    }
}

type NodeRef = Arc<Mutex<Node>>;
type Names = BTreeMap<String, NodeRef>;

struct State {
    dirs: BTreeMap<String, Dir>,
    power_cuts: u64,
    flushes_until_failure: Option<u64>,
}

impl Default for State {
    fn default() -> Self {
        let dirs = BTreeMap::from([(String::new(), Dir::default())]);
        Self { dirs, power_cuts: 0, flushes_until_failure: None }
    }
}

impl State {
    fn dir(&mut self, path: &str) -> io::Result<&mut Dir> {
        check(path)?;
        self.dirs.get_mut(path).ok_or_else(|| absent(path))
    }

    fn counts_down_to_failure(&mut self) -> bool {
        match &mut self.flushes_until_failure {
            Some(1) => {
                self.flushes_until_failure = None;
                true
            }
            Some(n) => {
                *n -= 1;
                false
            }
            None => false,
        }
    }

    fn node(&mut self, path: &str) -> io::Result<NodeRef> {
        check(path)?;
        let (dir, name) = split(path);
        let dir = self.dirs.get(dir).ok_or_else(|| absent(path))?;
        dir.visible.get(name).cloned().ok_or_else(|| absent(path))
    }
}

/// A directory: what is seen, what would survive, and the changes between them, each kept or lost as one.
#[derive(Default)]
struct Dir {
    visible: Names,
    durable: Names,
    pending: Vec<Vec<(String, Option<NodeRef>)>>,
}

impl Dir {
    fn change(&mut self, changes: Vec<(String, Option<NodeRef>)>) {
        changes.iter().cloned().for_each(|(name, node)| set(&mut self.visible, name, node));
        self.pending.push(changes);
    }
}

fn set(names: &mut Names, name: String, node: Option<NodeRef>) {
    match node {
        Some(node) => names.insert(name, node),
        None => names.remove(&name),
    };
}

/// A file: what is seen, what would survive, and the changes between them.
#[derive(Clone, Default)]
struct Node {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Node {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.bytes, offset, bytes);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    fn set_len(&mut self, len: usize) {
        self.bytes.resize(len, 0);
        self.pending.push(Change::Length(len));
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
                Change::Length(len) => self.durable.resize(len, 0),
            }
        }
    }

    fn crash(&mut self, rng: &mut Rng, chance: f64, report: &mut CrashReport) {
        let flushed = self.durable.len();
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Length(len) => {
                    if rng.f64() < chance {
                        self.durable.resize(len, 0);
                    }
                }
                Change::Write { offset, bytes } => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let start = offset + at;
                        let end = bytes.len().min(at + SECTOR_BYTES - start % SECTOR_BYTES);
                        if rng.f64() < chance {
                            report.sectors_kept += 1;
                            put(&mut self.durable, start, &bytes[at..end]);
                        } else {
                            report.sectors_lost += 1;
                            // A sector that was never flushed may hold what some other file left there. One that holds
                            // flushed bytes is written as a whole or not at all.
                            let fresh = start / SECTOR_BYTES * SECTOR_BYTES >= flushed;
                            if fresh && rng.u8(..) < 64 {
                                let noise: Vec<u8> = (at..end).map(|_| rng.u8(..)).collect();
                                put(&mut self.durable, start, &noise);
                            }
                        }
                        at = end;
                    }
                }
            }
        }
        self.bytes = self.durable.clone();
    }
}

fn put(target: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    target[offset..end].copy_from_slice(bytes);
}

fn lock_node(node: &NodeRef) -> MutexGuard<'_, Node> {
    node.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn absent(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{path:?} does not exist"))
}

impl Disk for MemDisk {
    fn open_read(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        let node = state.node(path)?;
        Ok(self.handle(&state, node, false))
    }

    fn open_write(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        let node = state.node(path)?;
        Ok(self.handle(&state, node, true))
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        check(path)?;
        let mut state = self.lock();
        let node = match state.node(path) {
            Ok(node) => {
                lock_node(&node).set_len(0);
                node
            }
            Err(_) if state.dirs.contains_key(path) => {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{path:?} is a directory")));
            }
            Err(_) => {
                let (dir, name) = split(path);
                let node = NodeRef::default();
                state.dir(dir)?.change(vec![(name.to_owned(), Some(node.clone()))]);
                node
            }
        };
        Ok(self.handle(&state, node, true))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let node = state.node(from)?;
        check(to)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        let (gone, here) = ((from_name.to_owned(), None), (to_name.to_owned(), Some(node)));
        if from == to {
            return Ok(());
        }
        if from_dir == to_dir {
            state.dir(from_dir)?.change(vec![gone, here]);
        } else {
            state.dir(to_dir)?.change(vec![here]);
            state.dir(from_dir)?.change(vec![gone]);
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.node(path)?;
        let (dir, name) = split(path);
        state.dir(dir)?.change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        check(path)?;
        check_not_root(path)?;
        let below = format!("{path}/");
        self.lock().dirs.retain(|dir, _| dir != path && !dir.starts_with(&below));
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        let mut names: Vec<String> = state.dir(dir)?.visible.keys().cloned().collect();
        let here = state.dirs.keys().filter(|path| !path.is_empty() && split(path).0 == dir);
        names.extend(here.map(|path| split(path).1.to_owned()));
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        check(dir)?;
        let mut state = self.lock();
        let mut path = String::new();
        for part in dir.split('/').filter(|part| !part.is_empty()) {
            path = join(&path, part);
            if state.node(&path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{path:?} is a file")));
            }
            state.dirs.entry(path.clone()).or_default();
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.lock();
        let dir = state.dir(dir)?;
        dir.pending.clear();
        dir.durable = dir.visible.clone();
        Ok(())
    }
}

struct MemFile {
    disk: MemDisk,
    node: NodeRef,
    writable: bool,
    opened_after: u64,
}

impl MemFile {
    fn node(&self) -> io::Result<MutexGuard<'_, Node>> {
        // The order of locks is disk, then file, everywhere.
        let state = self.disk.lock();
        if state.power_cuts != self.opened_after {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the power was cut since this file was opened"));
        }
        Ok(lock_node(&self.node))
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, Node>> {
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file was opened for reading"));
        }
        self.node()
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let node = self.node()?;
        let start = (offset as usize).min(node.bytes.len());
        let read = buffer.len().min(node.bytes.len() - start);
        buffer[..read].copy_from_slice(&node.bytes[start..start + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.writable()?.write(offset as usize, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let fails = self.disk.lock().counts_down_to_failure();
        let mut node = self.node()?;
        if fails {
            node.pending.clear();
            return Err(io::Error::other(
                "injected fault: the flush failed, and what it should have written is dropped",
            ));
        }
        node.sync();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.node()?.bytes.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.writable()?.set_len(len as usize);
        Ok(())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut node = self.writable()?;
        if node.bytes.len() < len as usize {
            node.set_len(len as usize);
        }
        Ok(())
    }
}

/// What a disk writes as one: all of it or nothing.
const SECTOR_BYTES: usize = 512;

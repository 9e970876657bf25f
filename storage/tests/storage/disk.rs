//! One conformance suite, run on every implementation of `Disk`.

use std::io::ErrorKind;
use std::sync::Arc;

use vecino_storage::{Disk, Fault, FaultyDisk, MemDisk, RealDisk};

fn read(disk: &dyn Disk, path: &str) -> Vec<u8> {
    let file = disk.open_read(path).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().expect("this has to fail").kind()
}

fn files_hold_what_is_written(disk: &dyn Disk) {
    let file = disk.create("a").unwrap();
    assert!(file.is_empty().unwrap());
    file.write_at(b"hello", 0).unwrap();
    file.write_at(b"J", 0).unwrap();
    file.write_at(b"!", 7).unwrap();
    file.sync().unwrap();
    assert_eq!(read(disk, "a"), b"Jello\0\0!");
    let mut buffer = [9; 6];
    assert_eq!(file.read_at(&mut buffer, 5).unwrap(), 3);
    assert_eq!(buffer, [0, 0, b'!', 9, 9, 9]);
    assert_eq!(file.read_at(&mut buffer, 8).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, 800).unwrap(), 0);
    drop(file);
    let again = disk.open_write("a").unwrap();
    again.write_at(b"y", 0).unwrap();
    assert_eq!(read(disk, "a"), b"yello\0\0!");
    assert_eq!(disk.create("a").unwrap().len().unwrap(), 0);
}

fn lengths_change(disk: &dyn Disk) {
    let file = disk.create("b").unwrap();
    file.write_at(&[7; 100], 0).unwrap();
    file.truncate(10).unwrap();
    assert_eq!(read(disk, "b"), [7; 10]);
    file.truncate(12).unwrap();
    assert_eq!(read(disk, "b"), [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0]);
    file.preallocate(4096).unwrap();
    let bytes = read(disk, "b");
    assert!(bytes.len() == 4096 || bytes.len() == 12, "{}", bytes.len());
    assert!(bytes[..10].iter().all(|b| *b == 7) && bytes[10..].iter().all(|b| *b == 0));
    let len = file.len().unwrap();
    file.preallocate(5).unwrap();
    assert_eq!(file.len().unwrap(), len, "reserving less never cuts");
    file.sync().unwrap();
}

fn names_move(disk: &dyn Disk) {
    disk.create_dir_all("x/y").unwrap();
    disk.create_dir_all("x/y").unwrap();
    disk.create("x/y/one").unwrap().write_at(b"1", 0).unwrap();
    disk.create("x/y/two").unwrap().write_at(b"2", 0).unwrap();
    disk.create("x/top").unwrap();
    assert_eq!(disk.list("x/y").unwrap(), ["one", "two"]);
    assert_eq!(disk.list("x").unwrap(), ["top", "y"]);
    disk.rename("x/y/one", "x/y/two").unwrap();
    disk.sync_dir("x/y").unwrap();
    assert_eq!(disk.list("x/y").unwrap(), ["two"]);
    assert_eq!(read(disk, "x/y/two"), b"1");
    disk.rename("x/y/two", "x/moved").unwrap();
    assert_eq!(read(disk, "x/moved"), b"1");
    disk.remove("x/moved").unwrap();
    assert_eq!(kind(disk.open_read("x/moved")), ErrorKind::NotFound);
    disk.remove_dir_all("x").unwrap();
    disk.remove_dir_all("x").unwrap();
    assert_eq!(kind(disk.list("x")), ErrorKind::NotFound);
}

fn what_is_wrong_is_refused(disk: &dyn Disk) {
    for path in ["/etc/passwd", "../up", "a/../../up", "a//b", "a/", ".", "a\0b", "a\\b"] {
        assert_eq!(kind(disk.create(path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(disk.open_read(path)), ErrorKind::InvalidInput, "{path:?}");
    }
    assert_eq!(kind(disk.remove_dir_all("")), ErrorKind::InvalidInput);
    assert_eq!(kind(disk.open_read("absent")), ErrorKind::NotFound);
    assert_eq!(kind(disk.open_write("absent")), ErrorKind::NotFound);
    assert_eq!(kind(disk.create("no/such/dir")), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove("absent")), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename("absent", "b")), ErrorKind::NotFound);
    assert_eq!(kind(disk.list("absent")), ErrorKind::NotFound);
    disk.create("only-read").unwrap();
    let file = disk.open_read("only-read").unwrap();
    assert!(file.write_at(b"x", 0).is_err(), "a file opened for reading was written");
    assert!(file.truncate(5).is_err());
    assert_eq!(read(disk, "only-read"), b"");
}

fn conforms(disk: &dyn Disk) {
    files_hold_what_is_written(disk);
    lengths_change(disk);
    names_move(disk);
    what_is_wrong_is_refused(disk);
}

#[test]
fn the_real_disk_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path().to_path_buf());
    conforms(&disk);
    assert!(disk.root().join("only-read").exists(), "the files are where they should be");
}

#[test]
fn the_disk_in_memory_conforms() {
    conforms(&MemDisk::new());
}

#[test]
fn a_faulty_disk_without_faults_conforms() {
    let disk = FaultyDisk::new(Arc::new(MemDisk::new()));
    conforms(&disk);
    assert!(disk.operations() > 20);
}

#[test]
fn a_fork_has_the_same_past_and_another_future() {
    let disk = MemDisk::new();
    disk.create("a").unwrap().write_at(b"past", 0).unwrap();
    disk.sync_dir("").unwrap();
    let fork = disk.fork();
    fork.open_write("a").unwrap().write_at(b"fast", 0).unwrap();
    assert_eq!(read(&disk, "a"), b"past");
    assert_eq!(read(&fork, "a"), b"fast");
    fork.create("b").unwrap();
    assert_eq!(disk.list("").unwrap(), ["a"]);
}

#[test]
fn a_power_cut_keeps_what_was_flushed_and_loses_and_keeps_of_the_rest() {
    let (mut lost, mut kept, mut part, mut name_lost, mut name_kept) = (0, 0, 0, 0, 0);
    for seed in 0..200 {
        let disk = MemDisk::new();
        let file = disk.create("a").unwrap();
        file.write_at(&[1; 1024], 0).unwrap();
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(&[2; 1024], 512).unwrap();
        disk.create("b").unwrap().sync().unwrap();
        disk.crash(seed);
        assert_eq!(kind(file.len()), ErrorKind::BrokenPipe, "handles do not outlive the power");
        let bytes = read(&disk, "a");
        assert_eq!(bytes[..512], [1; 512], "flushed bytes that nobody wrote over are gone, seed {seed}");
        assert!(bytes.len() >= 1024 && bytes[512..1024].iter().all(|b| *b == bytes[512]), "a sector was torn");
        match (bytes[512], bytes.get(1024) == Some(&2)) {
            (1, false) => lost += 1,
            (2, true) => kept += 1,
            _ => part += 1,
        }
        if disk.open_read("b").is_ok() { name_kept += 1 } else { name_lost += 1 }
    }
    assert!(
        [lost, kept, part, name_lost, name_kept].iter().all(|n| *n >= 10),
        "{lost} {kept} {part} {name_lost} {name_kept}"
    );
}

#[test]
fn faults_come_as_told() {
    let disk = FaultyDisk::new(Arc::new(MemDisk::new()));
    disk.set(Fault::Nth(2, ErrorKind::PermissionDenied));
    let file = disk.create("a").unwrap();
    assert_eq!(kind(file.write_at(b"x", 0)), ErrorKind::PermissionDenied);
    file.write_at(b"x", 0).unwrap();
    disk.set(Fault::EverySync);
    assert!(file.sync().is_err() && disk.sync_dir("").is_err());
    disk.heal();
    file.sync().unwrap();

    disk.set(Fault::Room(10));
    assert_eq!(kind(file.preallocate(100)), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 1);
    assert_eq!(kind(file.write_at(&[5; 20], 1)), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 11, "the full disk took what fitted");
    file.write_at(&[6; 11], 0).unwrap();
    file.truncate(1).unwrap();
    file.write_at(&[5; 10], 1).unwrap();
    disk.remove("a").unwrap();
    disk.create("b").unwrap().write_at(&[5; 11], 0).unwrap();
    disk.heal();

    let next = disk.operations() + 1;
    disk.set(Fault::Halt { at: next, done: true });
    assert!(disk.create("done").is_err());
    assert!(disk.create("never").is_err() && disk.list("").is_err());
    disk.heal();
    assert_eq!(disk.list("").unwrap(), ["b", "done"]);
}

#[test]
fn a_disk_that_lies_about_flushing_loses_all() {
    let mem = MemDisk::new();
    let disk = FaultyDisk::new(Arc::new(mem.clone()));
    disk.set(Fault::LyingSync);
    disk.create("a").unwrap().sync().unwrap();
    disk.sync_dir("").unwrap();
    let lost = (0..20).filter(|seed| {
        let fork = mem.fork();
        fork.crash(*seed);
        fork.list("").unwrap().is_empty()
    });
    assert!(lost.count() > 0);
}

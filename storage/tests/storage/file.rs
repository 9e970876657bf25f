//! Small files that are there in full or not at all.

use std::sync::Arc;

use vecino_storage::{
    Disk, FILE_BYTES_MAX, Fault, FaultyDisk, FileError, MemDisk, RealDisk, read_verified, write_atomically,
};

fn comes_back(disk: &dyn Disk) {
    disk.create_dir_all("node").unwrap();
    assert_eq!(read_verified(disk, "node/state").unwrap(), None);
    for contents in [&b"first"[..], b"", &[7; 100_000]] {
        write_atomically(disk, "node/state", contents).unwrap();
        assert_eq!(read_verified(disk, "node/state").unwrap().unwrap(), contents);
    }
    assert_eq!(disk.list("node").unwrap(), ["state"]);
    write_atomically(disk, "bare", b"in the root").unwrap();
    assert_eq!(read_verified(disk, "bare").unwrap().unwrap(), b"in the root");
}

#[test]
fn contents_come_back_on_every_disk() {
    let dir = tempfile::tempdir().unwrap();
    comes_back(&RealDisk::new(dir.path().to_path_buf()));
    comes_back(&MemDisk::new());
}

#[test]
fn a_power_cut_at_every_operation_leaves_the_old_or_the_new_contents() {
    let (mut old, mut new) = (0, 0);
    for at in 1..=8 {
        for seed in 0..50 {
            let mem = MemDisk::new();
            write_atomically(&mem, "state", b"old").unwrap();
            let disk = FaultyDisk::new(Arc::new(mem.clone()));
            disk.set(Fault::Halt { at, done: seed % 2 == 0 });
            let told = write_atomically(&disk, "state", &[1; 5000]);
            mem.crash(seed);
            match read_verified(&mem, "state").unwrap().unwrap().len() {
                3 => old += 1,
                5000 => new += 1,
                other => panic!("operation {at} seed {seed}: {other} bytes"),
            }
            assert!(told.is_err() || read_verified(&mem, "state").unwrap().unwrap().len() == 5000);
        }
    }
    assert!(old > 50 && new > 50, "{old} {new}");
}

#[test]
fn a_flipped_byte_anywhere_is_an_error_that_names_file_and_offset() {
    let mem = MemDisk::new();
    write_atomically(&mem, "state", b"contents").unwrap();
    for offset in 0..mem.open_read("state").unwrap().len().unwrap() {
        for mask in [1, 0x80, 0xFF] {
            let rotten = mem.fork();
            assert!(rotten.flip("state", offset, mask));
            let text = read_verified(&rotten, "state").unwrap_err().to_string();
            assert!(text.contains("state is corrupt at offset"), "{offset}: {text}");
        }
    }
    for len in 0..mem.open_read("state").unwrap().len().unwrap() {
        let short = mem.fork();
        short.open_write("state").unwrap().truncate(len).unwrap();
        assert!(matches!(read_verified(&short, "state"), Err(FileError::Corrupt { .. })), "{len}");
    }
}

#[test]
fn contents_over_the_limit_are_refused_with_the_limit() {
    let mem = MemDisk::new();
    let refusal = write_atomically(&mem, "state", &vec![0; FILE_BYTES_MAX + 1]).unwrap_err().to_string();
    assert_eq!(refusal, format!("state: {} bytes of contents, the limit is {FILE_BYTES_MAX}", FILE_BYTES_MAX + 1));
    assert_eq!(mem.list("").unwrap(), [""; 0]);
}

#[test]
fn a_full_disk_leaves_the_old_contents_and_no_temporary_file() {
    let mem = MemDisk::new();
    write_atomically(&mem, "state", b"old").unwrap();
    let disk = FaultyDisk::new(Arc::new(mem.clone()));
    for room in [0, 30, 1000] {
        disk.set(Fault::Room(room));
        let refusal = write_atomically(&disk, "state", &[1; 5000]).unwrap_err();
        assert!(matches!(refusal, FileError::Io { action: "write", .. }), "{refusal}");
        assert_eq!(mem.list("").unwrap(), ["state"]);
        assert_eq!(read_verified(&mem, "state").unwrap().unwrap(), b"old");
    }
}

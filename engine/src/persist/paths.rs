//! Where the files of a collection lie.

use vecino_storage::Disk;

/// Where the pages of a snapshot lie.
const PAGES: &str = "pages";

/// Where the log of the collection in `directory` lies.
pub fn log_dir(directory: &str) -> String {
    format!("{directory}/log")
}

/// Where the snapshots of the collection in `directory` lie.
pub fn snapshots_dir(directory: &str) -> String {
    format!("{directory}/snapshots")
}

/// Bytes of the files of the collection in `directory`, as far as they can be looked at.
pub fn disk_bytes(disk: &dyn Disk, directory: &str) -> u64 {
    let snapshots = snapshots_dir(directory);
    let folders = [log_dir(directory), format!("{snapshots}/{PAGES}"), snapshots];
    let files = folders.iter().flat_map(|folder| {
        let names = disk.list(folder).unwrap_or_default();
        names.into_iter().filter(|name| name != PAGES).map(move |name| format!("{folder}/{name}"))
    });
    files.filter_map(|path| disk.open_read(&path).and_then(|file| file.len()).ok()).sum()
}

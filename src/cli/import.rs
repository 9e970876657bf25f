//! `vecino import`: reads a file, puts its points in batches, and remembers what was acknowledged.
//!
//! The file is read through before the first point is sent, and every row is checked as the mesh would check it, so a bad row
//! half-way stores nothing. Batches and patience are the client library's [`BulkLoader`]; what is left here are rows, the
//! journal, Ctrl-C, and what is said about it all.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;
use vecino_client::{BulkError, BulkEvent, BulkLoader, Client, ClientError, CollectionInfo, Point};

use super::args::ImportArgs;
use super::connection::connect;
use super::failure::Failure;
use super::journal::{Head, Journal, JournalError};
use super::output::{Style, print, printable};
use super::progress::Progress;
use super::tally::Tally;
use crate::files::{FileError, Row, VectorFile};

mod check;

use check::{check_fields, check_file, dims};

/// Carries out the command. The last line on standard output says what was done, however it ended.
pub async fn run(args: ImportArgs, style: Style) -> Result<(), Failure> {
    let (tally, end) = import(&args, style, watch_interrupts()).await?;
    if style != Style::Json {
        for line in tally.unwritten_lines() {
            eprintln!("{}", printable(&line));
        }
    }
    print(&tally.render(style))?;
    end?;
    match tally.failed() {
        0 => Ok(()),
        failed => {
            // People have read the reasons above.
            let reason = if style == Style::Json { tally.first_reason() } else { String::new() };
            Err(Failure::new("import", format!("{failed} points were not acknowledged{reason}")))
        }
    }
}

/// Imports; `interrupts` counts how often the user asked for an end. What was done, and how it ended, once it began.
async fn import(
    args: &ImportArgs,
    style: Style,
    mut interrupts: watch::Receiver<u32>,
) -> Result<(Tally, Result<(), Failure>), Failure> {
    let limit = args.limit.unwrap_or(u64::MAX);
    let patience = Duration::from_secs(args.patience);
    let rows = VectorFile::open(&args.file)?;
    let mut known_rows = rows.rows().map(|rows| rows.min(limit));
    let client = connect(&args.connection).await?;
    let remembers = args.journal.is_some();
    let prepare = async {
        let describe = |client: Client| {
            let collection = client.collection(&args.collection);
            async move { collection.describe().await }
        };
        let info = patiently(&client, patience, describe).await?;
        let journal = match &args.journal {
            Some(path) => Some(open_journal(path, args, &client, patience, &info).await?),
            None => None,
        };
        Ok((info, journal))
    };
    let (info, journal) = tokio::select! {
        prepared = prepare => prepared,
        _ = interrupts.wait_for(|count| *count > 0) => Err(interrupted(remembers)),
    }?;
    if !args.no_check {
        let (path, watched, schema) = (args.file.clone(), interrupts.clone(), info.clone());
        let check = move || check_file(&path, limit, &schema, || *watched.borrow() == 0);
        let checked = tokio::task::spawn_blocking(check).await.map_err(|error| Failure::of("internal", &error))?;
        known_rows = Some(checked?.ok_or_else(|| interrupted(remembers))?);
    }
    let memory = Mutex::new(Memory { journal, failed: None, progress: Progress::new("imported", known_rows, style) });
    let bulk = client.collection(&args.collection).bulk().level(args.level.level).patience(patience);
    let bulk = bulk.batch_points(args.batch as usize).in_flight(args.in_flight as usize);
    let mut loader = bulk.on_event(|event| lock(&memory).note(&event)).start();
    let rows = rows.take(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut skipped = 0;
    let end = tokio::select! {
        end = load(&mut loader, rows, &info, args.id_offset, &memory, &mut skipped) => end,
        _ = interrupts.wait_for(|count| *count > 0) => Err(interrupted(remembers)),
    };
    // What is in flight is waited for, so that the journal has it; a second Ctrl-C ends that too.
    let summary = tokio::select! {
        summary = loader.stop() => summary,
        _ = interrupts.wait_for(|count| *count > 1) => loader.summary(),
    };
    drop(loader);
    let Memory { failed, progress, .. } = memory.into_inner().unwrap_or_else(PoisonError::into_inner);
    progress.finish();
    client.close().await;
    let end = end.and_then(|()| failed.map_or(Ok(()), Err));
    Ok((Tally { summary, skipped }, end))
}

/// What the import remembers while it loads.
struct Memory {
    journal: Option<Journal>,
    /// Why the journal could not be written.
    failed: Option<Failure>,
    progress: Progress,
}

impl Memory {
    fn note(&mut self, event: &BulkEvent<'_>) {
        match event {
            BulkEvent::Written { ids } => {
                if let Some(journal) = &mut self.journal
                    && let Err(error) = journal.append(ids)
                {
                    self.failed.get_or_insert(Failure::of("journal", &error));
                }
                self.progress.moved(ids.len() as u64);
            }
            BulkEvent::NotWritten { .. } => self.progress.passed(1),
            BulkEvent::Waiting { reason, .. } => self.progress.waits(reason),
            BulkEvent::Resumed => self.progress.goes_on(),
            _ => {}
        }
    }
}

fn lock<'a>(memory: &'a Mutex<Memory>) -> MutexGuard<'a, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn load(
    loader: &mut BulkLoader<'_>,
    rows: impl Iterator<Item = Result<Row, FileError>>,
    info: &CollectionInfo,
    id_offset: u64,
    memory: &Mutex<Memory>,
    skipped: &mut u64,
) -> Result<(), Failure> {
    for row in rows {
        let row = row?;
        check_fields(info, dims(&row.vectors))?;
        let id = row.point_id(id_offset).ok_or_else(|| {
            Failure::new("usage", format!("row {} plus --id-offset {id_offset} is beyond 64 bits", row.number))
        })?;
        {
            let mut memory = lock(memory);
            if let Some(failure) = memory.failed.take() {
                return Err(failure);
            }
            if memory.journal.as_ref().is_some_and(|journal| journal.contains(&id)) {
                *skipped += 1;
                memory.progress.passed(1);
                continue;
            }
        }
        loader.push(Point { id, vectors: row.vectors, payload: row.payload }).await?;
        // Where nothing else is waited for, Ctrl-C still has to be heard.
        tokio::task::consume_budget().await;
    }
    Ok(loader.flush().await?)
}

/// Opens the journal, which must be one of this mesh, this collection and this file.
async fn open_journal(
    path: &Path,
    args: &ImportArgs,
    client: &Client,
    patience: Duration,
    info: &CollectionInfo,
) -> Result<Journal, Failure> {
    let mesh = patiently(client, patience, |client| async move { Ok(client.status().await?.mesh) }).await?;
    let (path, file) = (path.to_owned(), args.file.clone());
    let (collection, name) = (info.id.to_string(), info.name.clone());
    let open = move || {
        let head = Head::of(mesh.to_string(), collection, name, &file)?;
        Journal::open(&path, &head)
    };
    let opened = tokio::task::spawn_blocking(open).await.map_err(|error| Failure::of("internal", &error))?;
    opened.map_err(|error: JournalError| Failure::of("journal", &error))
}

/// Asks, waiting for a mesh that does not answer yet; patience is wall-clock time.
async fn patiently<T, F: Future<Output = Result<T, ClientError>>>(
    client: &Client,
    patience: Duration,
    ask: impl Fn(Client) -> F,
) -> Result<T, Failure> {
    let until = Instant::now() + patience;
    let mut pause = PAUSE_FIRST;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = if patience.is_zero() { client.timeout() } else { left.max(ATTEMPT_MIN).min(client.timeout()) };
        let error = match ask(client.with_timeout(timeout)).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !(error.is_safe_to_retry() || error.is_unknown()) {
            return Err(error.into());
        }
        sleep(pause.min(left)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

impl From<BulkError> for Failure {
    fn from(error: BulkError) -> Self {
        match error {
            BulkError::Request(error) => error.into(),
            BulkError::GaveUp { points, waited, reason } => Self::new(
                "unavailable",
                format!(
                    "gave up after waiting {:.0} s (--patience) for {points} points: {reason}",
                    waited.as_secs_f64()
                ),
            ),
            error => Self::of("import", &error),
        }
    }
}

fn interrupted(remembers: bool) -> Failure {
    let message = if remembers {
        "interrupted; the same command goes on from here"
    } else {
        "interrupted; nothing remembers which rows were written: with --journal FILE the same command would go on from here"
    };
    Failure::new("interrupted", message)
}

/// Counts how often Ctrl-C was pressed.
fn watch_interrupts() -> watch::Receiver<u32> {
    let (sender, receiver) = watch::channel(0);
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            sender.send_modify(|count| *count += 1);
        }
        // Without signals nobody interrupts; the channel stays open so that waiting for it waits.
        std::future::pending::<()>().await;
    });
    receiver
}

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Shortest time for one attempt at reaching a mesh, also for the last one.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

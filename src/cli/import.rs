//! `vecino import`: reads a file, puts its points in batches, and remembers what was acknowledged.
//!
//! The file is read through before the first point is sent, so a bad row half-way stores nothing. What to do after each
//! report of a batch is decided in [`tally`](super::tally); this is the driver.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::mem;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::time::sleep;
use vecino_client::{
    BatchReport, BulkLoader, BulkOptions, Client, CollectionInfo, Fields, Point, PointId, WriteOptions,
};

use super::args::ImportArgs;
use super::connection::connect;
use super::failure::Failure;
use super::journal::Journal;
use super::output::{Style, print, printable};
use super::tally::{Patience, Tally};
use crate::files::{Row, Summary, VectorFile};

/// Carries out the command. The last line on standard output says what was done, however it ended.
pub async fn run(args: ImportArgs, style: Style) -> Result<(), Failure> {
    let (tally, end) = import(&args, style, watch_interrupts()).await?;
    if style != Style::Json {
        for line in tally.refusal_lines() {
            eprintln!("{}", printable(&line));
        }
    }
    print(&tally.render(style))?;
    end?;
    match tally.failed() {
        0 => Ok(()),
        failed => {
            Err(Failure::new("import", format!("{failed} points were not acknowledged{}", tally.first_refusal())))
        }
    }
}

/// Imports; `interrupts` counts how often the user asked for an end. What was done, and how it ended, once it began.
async fn import(
    args: &ImportArgs,
    style: Style,
    interrupts: watch::Receiver<u32>,
) -> Result<(Tally, Result<(), Failure>), Failure> {
    let limit = args.limit.unwrap_or(u64::MAX);
    let rows = VectorFile::open(&args.file)?;
    let known_rows = rows.rows().map(|rows| rows.min(limit));
    let journal = args.journal.as_deref().map(Journal::open).transpose();
    let journal = journal.map_err(|error| Failure::of("journal", &error))?;
    let client = connect(&args.connection).await?;
    let patience = Duration::from_secs(args.patience);
    let info = describe(&client, &args.collection, patience, interrupts.clone()).await?;
    let known_rows = if args.no_check {
        known_rows
    } else {
        let (path, watched) = (args.file.clone(), interrupts.clone());
        let check = move || VectorFile::check(&path, limit, || *watched.borrow() == 0);
        let checked = tokio::task::spawn_blocking(check).await.map_err(|error| Failure::of("internal", &error))?;
        let Summary { rows, dims } = checked?.ok_or_else(interrupted)?;
        check_fields(&info, dims.iter().map(|(field, dim)| (field.as_str(), *dim)))?;
        Some(rows)
    };
    let options = BulkOptions {
        batch_points: args.batch as usize,
        in_flight: args.in_flight as usize,
        write: WriteOptions { level: args.level.level, ..Default::default() },
        ..Default::default()
    };
    let mut import = Import {
        loader: client.bulk_loader(&args.collection, options),
        pending: HashMap::new(),
        unsettled: Vec::new(),
        reason: String::new(),
        journal,
        tally: Tally::default(),
        patience,
        interrupts,
        bar: progress_bar(known_rows, style),
    };
    let started = Instant::now();
    let rows = rows.take(usize::try_from(limit).unwrap_or(usize::MAX));
    let end = import.load(rows, &info, args.id_offset).await;
    if end.is_err() {
        import.drain().await;
    }
    import.bar.finish_and_clear();
    client.close().await;
    let mut tally = import.tally;
    tally.unsettled = import.pending.len() as u64;
    tally.seconds = started.elapsed().as_secs_f64();
    Ok((tally, end))
}

/// An import under way.
struct Import {
    loader: BulkLoader,
    /// Points that were pushed and not reported on yet, at most those of the batches in flight and one more.
    pending: HashMap<PointId, Point>,
    /// Ids in `pending` whose batch came back without them: to be sent again.
    unsettled: Vec<PointId>,
    /// Why the last of them was not written.
    reason: String,
    journal: Option<Journal>,
    tally: Tally,
    patience: Duration,
    interrupts: watch::Receiver<u32>,
    bar: ProgressBar,
}

impl Import {
    async fn load(
        &mut self,
        rows: impl Iterator<Item = Result<Row, crate::files::FileError>>,
        info: &CollectionInfo,
        id_offset: u64,
    ) -> Result<(), Failure> {
        for row in rows {
            if *self.interrupts.borrow() > 0 {
                return Err(interrupted());
            }
            let row = row?;
            check_fields(info, dims(&row.vectors))?;
            let id = row.point_id(id_offset).ok_or_else(|| {
                Failure::new("usage", format!("row {} plus --id-offset {id_offset} is beyond 64 bits", row.number))
            })?;
            if self.journal.as_ref().is_some_and(|journal| journal.contains(&id)) {
                self.tally.skipped += 1;
                self.bar.inc(1);
                continue;
            }
            // Two points of one id in flight at once could be written in either order; the later row is to win.
            if self.pending.contains_key(&id) {
                self.settle_all().await?;
            }
            let point = Point { id: id.clone(), vectors: row.vectors, payload: row.payload };
            self.pending.insert(id, point.clone());
            if let Some(report) = self.loader.push(point).await {
                self.settle(report)?;
            }
            if !self.unsettled.is_empty() {
                self.settle_all().await?;
            }
        }
        self.settle_all().await
    }

    /// Waits for every batch in flight; sends again what was not written, until all is or patience ends.
    async fn settle_all(&mut self) -> Result<(), Failure> {
        let mut patience = Patience::new(self.patience, Instant::now());
        loop {
            while let Some(report) = self.next_report().await? {
                self.settle(report)?;
            }
            if self.unsettled.is_empty() {
                self.bar.set_message("");
                return Ok(());
            }
            let Some(pause) = patience.next_pause(Instant::now()) else {
                return Err(Failure::new(
                    "unavailable",
                    format!(
                        "gave up after waiting {} s (--patience) for {} points: {}",
                        self.patience.as_secs(),
                        self.unsettled.len(),
                        self.reason
                    ),
                ));
            };
            self.bar.set_message(format!("waiting for the mesh: {}", printable(&self.reason)));
            let mut interrupts = self.interrupts.clone();
            tokio::select! {
                () = sleep(pause) => {}
                _ = interrupts.wait_for(|count| *count > 0) => return Err(interrupted()),
            }
            for id in mem::take(&mut self.unsettled) {
                if let Some(report) = self.loader.push(self.pending[&id].clone()).await {
                    self.settle(report)?;
                }
            }
        }
    }

    /// The next batch to end; an error when Ctrl-C was pressed a second time.
    async fn next_report(&mut self) -> Result<Option<BatchReport>, Failure> {
        let mut interrupts = self.interrupts.clone();
        tokio::select! {
            report = self.loader.next() => Ok(report),
            _ = interrupts.wait_for(|count| *count > 1) => Err(interrupted()),
        }
    }

    fn settle(&mut self, report: BatchReport) -> Result<(), Failure> {
        let BatchReport { acknowledged, refused, unavailable, unknown, error } = report;
        for id in acknowledged.iter().chain(refused.iter().map(|refused| &refused.id)) {
            self.pending.remove(id);
        }
        self.tally.acknowledged += acknowledged.len() as u64;
        self.bar.inc((acknowledged.len() + refused.len()) as u64);
        // A batch that was refused as a whole would be so again, and so would the next one.
        let hopeless = !refused.is_empty();
        for refused in refused {
            self.tally.refuse(&refused.id, refused.reason);
        }
        for unsettled in unavailable.into_iter().chain(unknown) {
            self.reason = unsettled.reason;
            self.unsettled.push(unsettled.id);
        }
        if let Some(journal) = &mut self.journal {
            journal.append(&acknowledged).map_err(|error| Failure::of("journal", &error))?;
        }
        match error {
            Some(error) if hopeless => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// After a failure or Ctrl-C: waits for what is in flight, so that the journal has it. The first failure is the one
    /// to report, so one here is not.
    async fn drain(&mut self) {
        while let Ok(Some(report)) = self.next_report().await {
            if self.settle(report).is_err() {
                return;
            }
        }
    }
}

/// Describes the collection, waiting for a mesh that does not answer yet.
async fn describe(
    client: &Client,
    collection: &str,
    patience: Duration,
    mut interrupts: watch::Receiver<u32>,
) -> Result<CollectionInfo, Failure> {
    let mut patience = Patience::new(patience, Instant::now());
    let describe = async {
        loop {
            let error = match client.describe(collection).await {
                Ok(info) => return Ok(info),
                Err(error) => error,
            };
            let may_pass = error.is_safe_to_retry() || error.is_unknown();
            match patience.next_pause(Instant::now()).filter(|_| may_pass) {
                Some(pause) => sleep(pause).await,
                None => return Err(error.into()),
            }
        }
    };
    tokio::select! {
        described = describe => described,
        _ = interrupts.wait_for(|count| *count > 0) => Err(interrupted()),
    }
}

fn dims(fields: &Fields) -> impl Iterator<Item = (&str, usize)> {
    fields.iter().map(|(field, vector)| (field.as_str(), vector.0.len()))
}

/// Compares what a file has with what the collection wants, before anything is sent.
fn check_fields<'a>(info: &CollectionInfo, dims: impl Iterator<Item = (&'a str, usize)>) -> Result<(), Failure> {
    let CollectionInfo { name, schema, .. } = info;
    let mut found = 0;
    for (field, dim) in dims {
        found += 1;
        let Some(expected) = schema.fields.get(field) else {
            let known: Vec<String> = schema.fields.keys().map(|field| format!("{field:?}")).collect();
            let message =
                format!("the file has the vector field {field:?}, collection {name:?} has {}", known.join(", "));
            return Err(Failure::new("invalid", message));
        };
        if expected.dim as usize != dim {
            let of_field = if field.is_empty() { String::new() } else { format!(" of field {field:?}") };
            let message = format!(
                "the file's vectors{of_field} have dimension {dim}, collection {name:?} takes {}",
                expected.dim
            );
            return Err(Failure::new("invalid", message));
        }
    }
    if found < schema.fields.len() {
        let message = format!("the file has {found} vector fields, collection {name:?} has {}", schema.fields.len());
        return Err(Failure::new("invalid", message));
    }
    Ok(())
}

fn interrupted() -> Failure {
    Failure::new("interrupted", "interrupted; the same command with the same --journal goes on from here")
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

fn progress_bar(rows: Option<u64>, style: Style) -> ProgressBar {
    let hidden = style == Style::Json || !io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(rows, target);
    let template = match rows {
        Some(_) => "{wide_bar} {human_pos}/{human_len} {per_sec}, {eta} left {msg}",
        None => "{spinner} {human_pos} {per_sec} {msg}",
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant that a test uses"));
    bar
}

#[cfg(test)]
mod tests;

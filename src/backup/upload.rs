//! Bringing one collection's points to the target: packs them, and sends only the pages that are not there.

use std::collections::HashMap;

use tokio::task::JoinSet;
use vecino_client::RawPoint;
use vecino_model::CollectionId;

use super::STORE_REQUESTS_MAX;
use super::error::BackupError;
use super::manifest::PageRef;
use super::packer::{Packer, Page};
use super::page::PageName;
use super::target::Target;

/// What was sent so far, over all collections of a backup.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Pages that are at the target, with their sizes.
    pub known: HashMap<PageName, u64>,
    /// Pages that were not.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One collection on its way.
pub(super) struct Upload<'a> {
    target: &'a Target,
    sent: &'a mut Sent,
    packer: Packer,
    pages: Vec<PageRef>,
    under_way: JoinSet<Result<(), BackupError>>,
}

impl<'a> Upload<'a> {
    pub fn new(target: &'a Target, sent: &'a mut Sent, collection: CollectionId, page_bytes: usize) -> Self {
        let packer = Packer::new(collection, page_bytes);
        Self { target, sent, packer, pages: Vec::new(), under_way: JoinSet::new() }
    }

    /// Takes the next point in ring order. Waits while as many pages are under way as may be.
    pub async fn push(&mut self, point: RawPoint) -> Result<(), BackupError> {
        for page in self.packer.push(point) {
            self.send(page).await?;
        }
        Ok(())
    }

    /// Waits until everything is there; the pages in their order.
    pub async fn finish(mut self) -> Result<Vec<PageRef>, BackupError> {
        if let Some(page) = self.packer.finish() {
            self.send(page).await?;
        }
        while self.one_done().await? {}
        Ok(self.pages)
    }

    async fn send(&mut self, page: Page) -> Result<(), BackupError> {
        let Page { name, bytes, points } = page;
        let size = bytes.len() as u64;
        self.pages.push(PageRef { name, bytes: size, points });
        // A page of another size was damaged since; it is written anew.
        if self.sent.known.insert(name, size) == Some(size) {
            return Ok(());
        }
        if self.under_way.len() >= STORE_REQUESTS_MAX {
            self.one_done().await?;
        }
        let target = self.target.clone();
        self.under_way.spawn(async move { target.write_page(name, bytes).await });
        self.sent.pages += 1;
        self.sent.bytes += size;
        Ok(())
    }

    async fn one_done(&mut self) -> Result<bool, BackupError> {
        match self.under_way.join_next().await {
            None => Ok(false),
            Some(Ok(done)) => done.map(|()| true),
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

//! Reading a whole collection, as a stream of its points or of pages of them.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;

use futures_core::Stream;
use vecino_model::{Level, RawStoredPoint, ScanCursor, StoredPoint};
use vecino_net::message::{Scan, ScanReply, ScanStream};

use crate::error::ClientError;
use crate::session::{Opened, Session, nonsense};

/// Points in a page of a scan, unless it says otherwise.
pub const SCAN_PAGE_POINTS: u32 = 1000;

/// Reads a whole collection; made by [`Collection::scan`](crate::Collection::scan). [`points`](Self::points) or
/// [`pages`](Self::pages) begins.
#[derive(Clone, Debug)]
#[must_use = "nothing is read until points() or pages() is read from"]
pub struct ScanRequest {
    session: Session,
    message: Scan,
}

/// The points of a collection, in ring order; made by [`ScanRequest::points`].
///
/// A [`Stream`]; [`try_next`](Self::try_next) needs no other crate. A node sends page after page, as far as a few MiB ahead
/// of what is read here. Points that are written meanwhile may or may not appear; every point that is there from the
/// beginning until the end appears once. After an error the next call asks for the same page again.
#[must_use = "nothing is read until it is polled"]
pub struct Points {
    pages: Pages,
    page: vec::IntoIter<StoredPoint>,
    /// Where the page that is being given out begins.
    page_after: Option<ScanCursor>,
}

/// The points of a collection in pages, in ring order; made by [`ScanRequest::pages`]. No page is empty.
///
/// A [`Stream`]; [`try_next`](Self::try_next) needs no other crate. A node sends page after page, as far as a few MiB ahead
/// of what is read here. After an error the next call asks for the same page again.
#[must_use = "nothing is read until it is polled"]
pub struct Pages {
    session: Session,
    message: Scan,
    /// Where nothing is asked for, what is left of the stream that the last page came from.
    opened: Option<Opened<ScanStream>>,
    asked: Option<Asked>,
    done: bool,
}

/// A page that is waited for; it gives the stream back that it came from.
type Asked = Pin<Box<dyn Future<Output = (PageResult, Option<Opened<ScanStream>>)> + Send>>;
type PageResult = Result<(ScanReply, SocketAddr), ClientError>;

impl ScanRequest {
    pub(crate) fn new(session: Session, collection: String) -> Self {
        let message = Scan {
            collection,
            after: None,
            limit: SCAN_PAGE_POINTS,
            level: Level::default(),
            with_vectors: true,
            with_payload: true,
        };
        Self { session, message }
    }

    /// Replicas of every range to ask.
    pub fn level(mut self, level: Level) -> Self {
        self.message.level = level;
        self
    }

    /// Most points in a page; [`SCAN_PAGE_POINTS`] unless set.
    pub fn page_points(mut self, page_points: u32) -> Self {
        self.message.limit = page_points;
        self
    }

    /// Whether vectors are wanted; they are unless switched off.
    pub fn with_vectors(mut self, with_vectors: bool) -> Self {
        self.message.with_vectors = with_vectors;
        self
    }

    /// Whether payloads are wanted; they are unless switched off.
    pub fn with_payload(mut self, with_payload: bool) -> Self {
        self.message.with_payload = with_payload;
        self
    }

    /// Begins behind this place, which an earlier scan gave as its [cursor](Pages::cursor).
    pub fn after(mut self, cursor: impl Into<Option<ScanCursor>>) -> Self {
        self.message.after = cursor.into();
        self
    }

    /// The points, one by one.
    pub fn points(self) -> Points {
        Points { page_after: self.message.after.clone(), pages: self.pages(), page: Vec::new().into_iter() }
    }

    /// The points, page by page.
    pub fn pages(self) -> Pages {
        let Self { session, message } = self;
        Pages { session, message, opened: None, asked: None, done: false }
    }
}

impl Points {
    /// The next point; absent behind the last.
    ///
    /// # Errors
    /// When a page cannot be read. The call may be repeated.
    pub async fn try_next(&mut self) -> Result<Option<StoredPoint>, ClientError> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }

    /// A place to go on from [another time](ScanRequest::after): behind the last page of which every point was given out,
    /// so that none is missed and those of the page begun come again. Absent before the second page and behind the last.
    pub fn cursor(&self) -> Option<&ScanCursor> {
        if self.page.as_slice().is_empty() { self.pages.cursor() } else { self.page_after.as_ref() }
    }
}

impl Pages {
    /// The next page, which has at least one point; absent behind the last.
    ///
    /// # Errors
    /// When a page cannot be read. The call may be repeated.
    pub async fn try_next(&mut self) -> Result<Option<Vec<StoredPoint>>, ClientError> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }

    /// The next page with payloads as they travel, for programs that pass points on without looking into them; `None` once
    /// everything was read.
    ///
    /// # Errors
    /// As [`Self::try_next`].
    pub async fn try_next_raw(&mut self) -> Result<Option<Vec<RawStoredPoint>>, ClientError> {
        let page = poll_fn(|context| self.poll_raw(context)).await.transpose()?;
        Ok(page.map(|(points, _)| points))
    }

    /// Where the next page begins, to go on from there [another time](ScanRequest::after). Absent before the first page
    /// and behind the last.
    pub fn cursor(&self) -> Option<&ScanCursor> {
        if self.done { None } else { self.message.after.as_ref() }
    }
}

/// The points of a page as they travel, and the node that gave them.
type RawPage = (Vec<RawStoredPoint>, SocketAddr);

impl Pages {
    /// The next page with the node that gave it.
    fn poll_raw(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<RawPage, ClientError>>> {
        let this = self;
        while !this.done {
            let asked = this
                .asked
                .get_or_insert_with(|| Box::pin(page(this.session.clone(), this.message.clone(), this.opened.take())));
            let (answer, opened) = ready!(asked.as_mut().poll(context));
            (this.asked, this.opened) = (None, opened);
            let (ScanReply { points, next }, node) = match answer {
                Ok(answer) => answer,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            this.done = next.is_none();
            if this.done {
                this.opened = None;
            }
            if next.is_some() {
                this.message.after = next;
            }
            if !points.is_empty() {
                return Poll::Ready(Some(Ok((points, node))));
            }
        }
        Poll::Ready(None)
    }
}

impl Stream for Pages {
    type Item = Result<Vec<StoredPoint>, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let page = ready!(self.poll_raw(context));
        Poll::Ready(page.map(|page| {
            let (points, node) = page?;
            let decoded: Result<_, _> = points.into_iter().map(RawStoredPoint::decode).collect();
            decoded.map_err(|error| nonsense::<ScanStream>(node, format_args!("a point whose {error}")))
        }))
    }
}

impl Stream for Points {
    type Item = Result<StoredPoint, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(point) = this.page.next() {
                return Poll::Ready(Some(Ok(point)));
            }
            let page_after = this.pages.cursor().cloned();
            match ready!(Pin::new(&mut this.pages).poll_next(context)) {
                Some(Ok(page)) => (this.page, this.page_after) = (page.into_iter(), page_after),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// One page. A node that answers with the place where the page began would be asked for ever.
async fn page(
    session: Session,
    message: Scan,
    mut opened: Option<Opened<ScanStream>>,
) -> (PageResult, Option<Opened<ScanStream>>) {
    let request = ScanStream { scan: message };
    let page = session.next_chunk(&request, &mut opened).await;
    let page = page.and_then(|(page, node)| {
        if page.next.is_some() && page.next == request.scan.after {
            return Err(nonsense::<ScanStream>(node, format_args!("a page that ends where it began")));
        }
        Ok((page, node))
    });
    (page, opened)
}

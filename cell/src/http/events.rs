//! Server-sent events at `/events`: live, and resumed from the journals by `Last-Event-ID`.
//!
//! `names=message.*,state.applied` filters; `since=CURSOR` resumes, `since=0` begins at the beginning;
//! without either the stream begins now. A listener reads at its own pace: what it has not asked for
//! yet lies in the journals, not in memory.
//!
//! Events are read on the host that leads, whichever host is asked (`nucleus.watch`). When that host is lost, the listener waits until there
//! is one again, and hears what follows the last event that it has.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::error::QueryPayloadError;
use actix_web::web::{Bytes, Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{Stream, StreamExt};
use protocol::nucleus::{Watch, WatchRequest, Watched};
use protocol::{Event, Problem, ProblemKind};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Web, auth, problem};
use crate::bus::{Bus, CallContext, Items};

/// How often a silent stream says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Pieces that wait for a slow listener.
const PIECES_MAX: usize = 16;
/// The pause before the host that leads is asked again.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    names: Option<String>,
    since: Option<String>,
}

pub(super) async fn handle(web: Data<Web>, request: HttpRequest) -> HttpResponse {
    let started = async {
        let context = auth::caller(&web, &request).await?;
        let Query(asked) =
            Query::<Asked>::from_query(request.query_string()).map_err(|error| bad_query(&error))?;
        let last = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
        let since = last.map(str::to_owned).or(asked.since);
        let place = Place::take(&web)?;
        let asked = WatchRequest { names: asked.names, since };
        Ok::<_, Problem>((Watching::open(&web, context, asked).await?, place))
    };
    match started.await {
        Ok((watching, place)) => HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header(("cache-control", "no-store"))
            .insert_header(("x-accel-buffering", "no"))
            .streaming(stream(web, watching, place)),
        Err(problem) => problem::respond(&problem),
    }
}

fn bad_query(error: &QueryPayloadError) -> Problem {
    Problem::new(ProblemKind::Invalid, "http.bad_query", error.to_string())
        .hint("one looks like /events?names=message.*,state.applied&since=0")
}

/// One of the places for streams; given back when dropped.
pub(super) struct Place(Data<Web>);

impl Place {
    pub(super) fn take(web: &Data<Web>) -> Result<Self, Problem> {
        let max = web.host.settings.http.streams_max;
        if web.streams.fetch_add(1, Ordering::Relaxed) >= max {
            web.streams.fetch_sub(1, Ordering::Relaxed);
            return Err(Problem::new(
                ProblemKind::Busy,
                "http.too_many_streams",
                format!("{max} streams are open"),
            )
            .hint("close one, or raise http.streams_max in cell.toml"));
        }
        Ok(Self(web.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

fn stream(
    web: Data<Web>,
    watching: Watching,
    place: Place,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let (pieces, mut taken) = mpsc::channel(PIECES_MAX);
    actix_rt::spawn(async move {
        let _place = place;
        let send = async |event: Option<(&str, Event)>| {
            let text = match event {
                Some((cursor, event)) => {
                    let data = serde_json::to_string(&event).unwrap_or_default();
                    format!("id: {cursor}\nevent: {}\ndata: {data}\n\n", event.event)
                }
                None => ": still here\n\n".to_owned(),
            };
            pieces.send(Bytes::from(text)).await.is_ok()
        };
        tokio::select! {
            () = follow(&web, watching, send) => {}
            () = pieces.closed() => {}
        }
    });
    futures_util::stream::poll_fn(move |context| taken.poll_recv(context).map(|piece| piece.map(Ok)))
}

/// Sends events, and nothing now and then, until `send` says that nobody listens or the server closes.
pub(super) async fn follow(
    web: &Web,
    mut watching: Watching,
    send: impl AsyncFn(Option<(&str, Event)>) -> bool,
) {
    let mut closing = web.closing.clone();
    if !send(None).await {
        return;
    }
    loop {
        let event = tokio::select! {
            event = watching.next() => match event {
                Some(event) => Some(event),
                None => return,
            },
            _ = closing.wait_for(|closing| *closing) => return,
            () = tokio::time::sleep(KEEP_ALIVE) => None,
        };
        if !send(event.map(|event| (watching.cursor(), event))).await {
            return;
        }
    }
}

/// Events, and where they are read on when the host that gives them is lost.
pub(super) struct Watching {
    bus: Bus,
    context: CallContext,
    names: Option<String>,
    cursor: String,
    items: Option<Items>,
}

impl Watching {
    /// Finds out where it begins.
    pub(super) async fn open(web: &Web, context: CallContext, asked: WatchRequest) -> Result<Self, Problem> {
        let (bus, names) = (web.host.bus.clone(), asked.names.clone());
        let mut items = bus.stream::<Watch>(context.clone(), asked).await?;
        let first = items.next().await.ok_or_else(no_beginning)??;
        let cursor = read(&first)?.cursor;
        Ok(Self { bus, context, names, cursor, items: Some(items) })
    }

    /// Where the last event was that it gave.
    pub(super) fn cursor(&self) -> &str {
        &self.cursor
    }

    /// The next event; none where there will be no more. Who stops waiting for it loses none.
    async fn next(&mut self) -> Option<Event> {
        loop {
            match self.advance().await {
                Ok(Some(Watched { cursor, event })) => {
                    self.cursor = cursor;
                    if event.is_some() {
                        return event;
                    }
                }
                Ok(None) => return None,
                Err(problem) if may_pass(&problem) => self.items = None,
                Err(problem) => {
                    tracing::warn!(%problem, "events are watched no longer");
                    return None;
                }
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<Watched>, Problem> {
        let items = match &mut self.items {
            Some(items) => items,
            None => {
                tokio::time::sleep(REOPEN_PAUSE).await;
                let asked = WatchRequest { names: self.names.clone(), since: Some(self.cursor.clone()) };
                self.items.insert(self.bus.stream::<Watch>(self.context.clone(), asked).await?)
            }
        };
        match items.next().await {
            Some(line) => read(&line?).map(Some),
            None => Ok(None),
        }
    }
}

fn read(line: &[u8]) -> Result<Watched, Problem> {
    serde_json::from_slice(line)
        .map_err(|error| Problem::new(ProblemKind::Fault, "event.unreadable", error.to_string()))
}

fn no_beginning() -> Problem {
    Problem::new(ProblemKind::Fault, "event.unreadable", "the stream of events says not where it begins")
}

/// Whether the host that leads may be there again in a moment.
fn may_pass(problem: &Problem) -> bool {
    matches!(problem.kind, ProblemKind::Unavailable | ProblemKind::Busy)
}

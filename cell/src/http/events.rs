//! Server-sent events at `/events`: live, and resumed from the journals by `Last-Event-ID`.
//!
//! `names=message.*,state.applied` filters; `since=CURSOR` resumes, `since=0` begins at the beginning;
//! without either the stream begins now. A listener reads at its own pace: what it has not asked for
//! yet lies in the journals, not in memory.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::error::QueryPayloadError;
use actix_web::web::{Bytes, Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::Stream;
use protocol::event::{Cursor, NAMES};
use protocol::{Event, Problem, ProblemKind};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Web, auth, problem};

/// How many entries of each journal are read at once.
const READ_ENTRIES: u64 = 256;
/// How often a silent stream says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Pieces that wait for a slow listener.
const PIECES_MAX: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    names: Option<String>,
    since: Option<String>,
}

pub(super) async fn handle(web: Data<Web>, request: HttpRequest) -> HttpResponse {
    let started = async {
        auth::caller(&web, &request).await?;
        let Query(asked) =
            Query::<Asked>::from_query(request.query_string()).map_err(|error| bad_query(&error))?;
        let filter = Filter::parse(asked.names.as_deref())?;
        let last = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
        let cursor = start(&web, last.or(asked.since.as_deref()))?;
        Ok::<_, Problem>((filter, cursor, Place::take(&web)?))
    };
    match started.await {
        Ok((filter, cursor, place)) => HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header(("cache-control", "no-store"))
            .insert_header(("x-accel-buffering", "no"))
            .streaming(stream(web, filter, cursor, place)),
        Err(problem) => problem::respond(&problem),
    }
}

fn bad_query(error: &QueryPayloadError) -> Problem {
    Problem::new(ProblemKind::Invalid, "http.bad_query", error.to_string())
        .hint("one looks like /events?names=message.*,state.applied&since=0")
}

/// Where a stream begins.
pub(super) fn start(web: &Web, since: Option<&str>) -> Result<Cursor, Problem> {
    match since.map(str::trim) {
        None | Some("") => Ok(web.host.feed.head()),
        Some("0") => Ok(Cursor::default()),
        Some(text) => text.parse(),
    }
}

/// Which events a listener asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter(Vec<String>);

impl Filter {
    /// Reads a comma-separated list of names; `service.*` and `*` stand for many.
    pub(super) fn parse(names: Option<&str>) -> Result<Self, Problem> {
        let names: Vec<String> = names
            .unwrap_or_default()
            .split(',')
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty() && name != "*")
            .collect();
        for name in &names {
            let service =
                name.strip_suffix(".*").is_some_and(|service| service.parse::<protocol::Service>().is_ok());
            if !service && !NAMES.iter().any(|(known, _)| known == name) {
                let shown: String = name.chars().take(80).collect();
                let nearest = NAMES.iter().max_by(|a, b| {
                    strsim::jaro_winkler(a.0, &shown).total_cmp(&strsim::jaro_winkler(b.0, &shown))
                });
                let cause = format!("there is no event {shown:?}");
                return Err(Problem::new(ProblemKind::Invalid, "event.unknown", cause).hint(format!(
                    "did you mean {}? A service's events are SERVICE.*",
                    nearest.map_or("", |n| n.0)
                )));
            }
        }
        Ok(Self(names))
    }

    pub(super) fn wants(&self, event: &Event) -> bool {
        let service = |name: &String| name.strip_suffix(".*") == Some(event.service.name());
        self.0.is_empty() || self.0.iter().any(|name| *name == event.event || service(name))
    }
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
    filter: Filter,
    cursor: Cursor,
    place: Place,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let (pieces, mut taken) = mpsc::channel(PIECES_MAX);
    actix_rt::spawn(async move {
        let _place = place;
        let send = |piece: Option<(Cursor, Event)>| {
            let pieces = pieces.clone();
            async move {
                let text = match piece {
                    Some((cursor, event)) => {
                        let data = serde_json::to_string(&event).unwrap_or_default();
                        format!("id: {cursor}\nevent: {}\ndata: {data}\n\n", event.event)
                    }
                    None => ": still here\n\n".to_owned(),
                };
                pieces.send(Bytes::from(text)).await.is_ok()
            }
        };
        follow(&web, &filter, cursor, send).await;
    });
    futures_util::stream::poll_fn(move |context| taken.poll_recv(context).map(|piece| piece.map(Ok)))
}

/// Sends events from a cursor on, and nothing now and then, until `send` says that nobody listens or
/// the server closes.
pub(super) async fn follow<F, Fut>(web: &Web, filter: &Filter, mut cursor: Cursor, send: F)
where
    F: Fn(Option<(Cursor, Event)>) -> Fut,
    Fut: Future<Output = bool>,
{
    let mut changes = web.host.feed.changes();
    let mut closing = web.closing.clone();
    if !send(None).await {
        return;
    }
    loop {
        changes.mark_unchanged();
        let feed = web.host.feed.clone();
        let Ok(Ok(batch)) = tokio::task::spawn_blocking(move || feed.read(cursor, READ_ENTRIES)).await else {
            return;
        };
        for (place, event) in batch.events {
            if filter.wants(&event) && !send(Some((place, event))).await {
                return;
            }
        }
        cursor = batch.next;
        if batch.more {
            continue;
        }
        let quiet = loop {
            tokio::select! {
                changed = changes.changed() => break changed.is_err(),
                _ = closing.wait_for(|closing| *closing) => return,
                () = tokio::time::sleep(KEEP_ALIVE) => if !send(None).await { return },
            }
        };
        if quiet {
            return;
        }
    }
}

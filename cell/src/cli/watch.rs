//! Watching events: a line each, resumed where it broke off.

use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use protocol::Problem;
use serde_json::Value;

use super::Context;
use super::args::Watch;
use super::client::Client;

/// The pause before a broken stream is opened again.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// How often it is opened again without a line in between.
pub(super) const RECONNECTS_MAX: u32 = 20;
/// Lines that wait to be printed.
pub(super) const LINES_MAX: usize = 1_024;

pub(super) fn watch(context: &Context, watch: Watch) -> Result<ExitCode, Problem> {
    let client = Client::of(context)?;
    let names = watch.events.join(",");
    let first = client.events(&names, watch.since.as_deref())?;
    let (send, events) = mpsc::sync_channel(LINES_MAX);
    let since = watch.since.clone();
    std::thread::spawn(move || follow(&client, &names, first, since, &send));
    print_each(&events, watch.limit, watch.timeout, |event| print(context, event))
}

/// Prints what comes: so many, or for so many seconds, or until there is no more.
pub(super) fn print_each<T>(
    lines: &mpsc::Receiver<Result<T, Problem>>,
    limit: Option<u64>,
    timeout_s: Option<u64>,
    print: impl Fn(&T),
) -> Result<ExitCode, Problem> {
    let deadline = timeout_s.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut printed = 0;
    while limit.is_none_or(|limit| printed < limit) {
        let line = match deadline {
            Some(deadline) => lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
            None => lines.recv().ok(),
        };
        match line {
            Some(Ok(line)) => print(&line),
            Some(Err(problem)) => return Err(problem),
            None => break,
        }
        printed += 1;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(context: &Context, event: &Value) {
    if context.output.is_json() {
        context.output.text(&event.to_string());
    } else {
        context.output.text(&format!(
            "{:<24} {}",
            event["event"].as_str().unwrap_or_default(),
            event["data"]
        ));
    }
}

type Events = mpsc::SyncSender<Result<Value, Problem>>;

/// Reads the stream; when it breaks, opens it again behind the last event.
fn follow(
    client: &Client,
    names: &str,
    first: ureq::BodyReader<'static>,
    since: Option<String>,
    send: &Events,
) {
    let mut stream = Some(first);
    let mut last = since;
    let mut tries = 0;
    loop {
        if let Some(stream) = stream.take() {
            let before = last.clone();
            if !read(stream, &mut last, send) {
                return;
            }
            if last != before {
                tries = 0;
            }
        }
        tries += 1;
        std::thread::sleep(RECONNECT_PAUSE);
        match client.events(names, last.as_deref()) {
            Ok(again) => stream = Some(again),
            Err(problem) if tries >= RECONNECTS_MAX => {
                let _ = send.send(Err(problem));
                return;
            }
            Err(_) => {}
        }
    }
}

/// Reads events until the stream ends; false when nobody listens any more.
fn read(stream: ureq::BodyReader<'static>, last: &mut Option<String>, send: &Events) -> bool {
    let (mut id, mut data) = (None, String::new());
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return true };
        if let Some(text) = line.strip_prefix("id: ") {
            id = Some(text.to_owned());
        } else if let Some(text) = line.strip_prefix("data: ") {
            data.push_str(text);
        } else if line.is_empty() && !data.is_empty() {
            let event = serde_json::from_str::<Value>(&data);
            data.clear();
            if let Ok(mut event) = event {
                if let (Some(event), Some(id)) = (event.as_object_mut(), &id) {
                    event.insert("id".to_owned(), id.clone().into());
                }
                if send.send(Ok(event)).is_err() {
                    return false;
                }
                *last = id.take();
            }
        }
    }
    true
}

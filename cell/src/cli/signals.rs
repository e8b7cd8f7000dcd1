//! `cell signal`: telling something to whoever listens now, and listening.

use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::sync::mpsc;

use protocol::Problem;
use protocol::signal::{BroadcastRequest, EmitRequest, Heard};
use serde_json::{Value, json};

use super::args::{Listen, Signal};
use super::client::Client;
use super::watch::{LINES_MAX, RECONNECT_PAUSE, RECONNECTS_MAX, print_each};
use super::{Context, json_argument};

pub(super) fn run(context: &Context, command: Signal) -> Result<ExitCode, Problem> {
    match command {
        Signal::Emit { name, body, key, balance } => {
            let body = json_argument(&body, "the body")?;
            let request = EmitRequest { name, body, key, balance: balance.into() };
            tell(context, "nucleus.emit", json!(request))
        }
        Signal::Broadcast { name, body } => {
            let body = json_argument(&body, "the body")?;
            tell(context, "nucleus.broadcast", json!(BroadcastRequest { name, body }))
        }
        Signal::Listen(listen) => self::listen(context, listen),
    }
}

fn tell(context: &Context, action: &str, request: Value) -> Result<ExitCode, Problem> {
    context.output.value(&Client::of(context)?.call(action, request)?)
}

fn listen(context: &Context, listen: Listen) -> Result<ExitCode, Problem> {
    let client = Client::of(context)?;
    let Listen { names, group, limit, timeout } = listen;
    let fields: Vec<_> = [("names", Some(names.join(","))), ("group", group)]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect();
    let first = client.stream("nucleus.listen", fields.clone())?;
    let (send, lines) = mpsc::sync_channel(LINES_MAX);
    std::thread::spawn(move || hear(&client, &fields, first, &send));
    print_each(&lines, limit, timeout, |heard| print(context, heard))
}

fn print(context: &Context, heard: &Heard) {
    let Some(signal) = &heard.signal else { return };
    if context.output.is_json() {
        context.output.text(&json!(heard).to_string());
    } else {
        let missed =
            if heard.missed > 0 { format!(" ({} missed before)", heard.missed) } else { String::new() };
        context.output.text(&format!("{:<24} {:<16} {}{missed}", signal.name, signal.from, signal.body));
    }
}

/// Reads what is heard; when the stream breaks off, it is opened again. What is told meanwhile is told to others.
fn hear(
    client: &Client,
    fields: &[(&'static str, String)],
    first: ureq::BodyReader<'static>,
    send: &mpsc::SyncSender<Result<Heard, Problem>>,
) {
    let (mut stream, mut tries) = (Some(first), 0);
    loop {
        for line in stream.take().into_iter().flat_map(|stream| BufReader::new(stream).lines()) {
            let Ok(line) = line else { break };
            tries = 0;
            let Ok(heard) = serde_json::from_str::<Heard>(&line) else { continue };
            if heard.signal.is_some() && send.send(Ok(heard)).is_err() {
                return;
            }
        }
        tries += 1;
        std::thread::sleep(RECONNECT_PAUSE);
        match client.stream("nucleus.listen", fields.iter().cloned()) {
            Ok(again) => stream = Some(again),
            Err(problem) if tries >= RECONNECTS_MAX => {
                let _ = send.send(Err(problem));
                return;
            }
            Err(_) => {}
        }
    }
}

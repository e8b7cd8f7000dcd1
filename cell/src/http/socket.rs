//! WebSocket at `/ws`: JSON-RPC calls, and events pushed after `subscribe {names, since}`.

use std::time::{Duration, Instant};

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use actix_ws::{AggregatedMessage, CloseCode, CloseReason, Session};
use futures_util::StreamExt;
use protocol::Event;
use protocol::nucleus::WatchRequest;
use serde_json::{Value, json};

use super::events::{Place, Watching, follow};
use super::trace::Root;
use super::{Web, auth, problem, rpc};
use crate::bus::CallContext;

/// The longest message.
const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A socket that says nothing for so long, not even a pong, is closed.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often a socket is pinged.
const PING_EVERY: Duration = Duration::from_secs(20);

pub(super) async fn handle(web: Data<Web>, request: HttpRequest, payload: Payload) -> HttpResponse {
    let context = match auth::caller(&web, &request).await {
        Ok(context) => context,
        Err(problem) => return problem::respond(&problem),
    };
    let place = match Place::take(&web) {
        Ok(place) => place,
        Err(problem) => return problem::respond(&problem),
    };
    match actix_ws::handle(&request, payload) {
        Ok((answer, session, messages)) => {
            let messages = messages
                .max_frame_size(MESSAGE_BYTES_MAX)
                .aggregate_continuations()
                .max_continuation_size(MESSAGE_BYTES_MAX);
            actix_rt::spawn(async move {
                let _place = place;
                serve(web, context, session, messages).await;
            });
            answer
        }
        Err(error) => problem::respond(
            &protocol::Problem::new(protocol::ProblemKind::Invalid, "http.no_websocket", error.to_string())
                .hint("ask for an upgrade to WebSocket, version 13"),
        ),
    }
}

async fn serve(
    web: Data<Web>,
    context: CallContext,
    mut session: Session,
    mut messages: actix_ws::AggregatedMessageStream,
) {
    let mut closing = web.closing.clone();
    let mut events: Option<actix_rt::task::JoinHandle<()>> = None;
    let mut ping = tokio::time::interval(PING_EVERY);
    let mut heard = tokio::time::Instant::now();
    let reason = loop {
        let message = tokio::select! {
            message = messages.next() => message,
            _ = closing.wait_for(|closing| *closing) => break Some(CloseReason::from(CloseCode::Away)),
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE_MAX || session.ping(b"").await.is_err() {
                    break None;
                }
                continue;
            }
        };
        heard = tokio::time::Instant::now();
        let text = match message {
            Some(Ok(AggregatedMessage::Text(text))) => text,
            Some(Ok(AggregatedMessage::Ping(bytes))) => {
                let _ = session.pong(&bytes).await;
                continue;
            }
            Some(Ok(AggregatedMessage::Pong(_))) => continue,
            Some(Ok(AggregatedMessage::Binary(_))) => break Some(CloseReason::from(CloseCode::Unsupported)),
            Some(Ok(AggregatedMessage::Close(reason))) => break reason,
            Some(Err(_)) => break Some(CloseReason::from(CloseCode::Size)),
            None => break None,
        };
        let answer = match serde_json::from_str::<Value>(&text) {
            Ok(call) if is(&call, "subscribe") => {
                Some(subscribe(&web, &context, &session, &call, &mut events).await)
            }
            Ok(call) if is(&call, "unsubscribe") => {
                events.take().inspect(|events| events.abort());
                Some(json!({ "jsonrpc": "2.0", "id": call["id"], "result": {} }))
            }
            _ => {
                let mut context = context.clone();
                let mut root = Root::enter(&web, &mut context, "ws", Instant::now());
                let answer = rpc::answer(&web, &context, &mut root, text.as_bytes()).await;
                root.finish(answer.as_ref().and_then(rpc::code_of));
                answer
            }
        };
        if let Some(answer) = answer
            && session.text(answer.to_string()).await.is_err()
        {
            break None;
        }
    };
    events.inspect(|events| events.abort());
    let _ = session.close(reason).await;
}

fn is(call: &Value, method: &str) -> bool {
    call.get("method").and_then(Value::as_str) == Some(method)
}

/// One subscription a socket: a new one takes the place of the old.
async fn subscribe(
    web: &Data<Web>,
    context: &CallContext,
    session: &Session,
    call: &Value,
    events: &mut Option<actix_rt::task::JoinHandle<()>>,
) -> Value {
    let names = match &call["params"]["names"] {
        Value::Array(names) => Some(names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")),
        Value::String(names) => Some(names.clone()),
        _ => None,
    };
    let asked = WatchRequest { names, since: call["params"]["since"].as_str().map(str::to_owned) };
    match Watching::open(web, context.clone(), asked).await {
        Ok(watching) => {
            let cursor = watching.cursor().to_owned();
            let (web, session) = (web.clone(), session.clone());
            let task = actix_rt::spawn(async move {
                let send = async |event: Option<(&str, Event)>| {
                    let Some((cursor, event)) = event else { return true };
                    let params = json!({ "cursor": cursor, "event": event });
                    let push = json!({ "jsonrpc": "2.0", "method": "event", "params": params });
                    session.clone().text(push.to_string()).await.is_ok()
                };
                follow(&web, watching, send).await;
            });
            events.replace(task).inspect(|events| events.abort());
            json!({ "jsonrpc": "2.0", "id": call["id"], "result": { "cursor": cursor } })
        }
        Err(problem) => json!({
            "jsonrpc": "2.0", "id": call["id"],
            "error": { "code": -32602, "message": problem.cause, "data": problem },
        }),
    }
}

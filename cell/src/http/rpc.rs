//! JSON-RPC 2.0 at `/rpc`: method = action name, params = its request. Batches and notifications too.

use std::time::Instant;

use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt;
use protocol::{Problem, ProblemKind};
use serde_json::{Value, json};

use super::trace::Root;
use super::{Web, auth, problem};
use crate::bus::{CallContext, unknown_action};

/// The most calls of one batch.
const BATCH_MAX: usize = 100;

pub(super) async fn handle(web: Data<Web>, request: HttpRequest, payload: Payload) -> HttpResponse {
    let began = Instant::now();
    let mut context = match auth::caller(&web, &request).await {
        Ok(context) => context,
        Err(problem) => return problem::respond(&problem),
    };
    let mut root = Root::enter(&web, &mut context, "POST /rpc", began);
    let bytes = match read(payload, web.host.settings.http.body_bytes_max).await {
        Ok(bytes) => bytes,
        Err(problem) => return root.respond(Some(&*problem.code), problem::respond(&problem)),
    };
    let answer = answer(&web, &context, &mut root, &bytes).await;
    let response = match &answer {
        Some(answer) => HttpResponse::Ok().content_type("application/json").body(answer.to_string()),
        None => HttpResponse::NoContent().finish(),
    };
    root.respond(answer.as_ref().and_then(code_of), response)
}

/// The code of the refusal of a call, if it was refused.
pub(super) fn code_of(answer: &Value) -> Option<&str> {
    answer.get("error")?.get("data")?.get("code")?.as_str()
}

/// Reads a body of at most so many bytes.
pub(super) async fn read(mut payload: Payload, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut bytes = Vec::new();
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|error| {
            Problem::new(ProblemKind::Invalid, "http.bad_body", format!("the body broke off: {error}"))
        })?;
        if bytes.len() + piece.len() > bytes_max {
            // What is left is read and dropped, so that the answer is seen; but not without end.
            for _ in 0..1_024 {
                if payload.next().await.is_none() {
                    break;
                }
            }
            return Err(problem::too_large(bytes_max));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

/// Answers a call or a batch; none for notifications alone.
pub(super) async fn answer(
    web: &Web,
    context: &CallContext,
    root: &mut Root<'_>,
    bytes: &[u8],
) -> Option<Value> {
    match serde_json::from_slice::<Value>(bytes) {
        Err(error) => Some(failure(Value::Null, &problem::malformed(&error))),
        Ok(Value::Array(calls)) if calls.is_empty() || calls.len() > BATCH_MAX => {
            let cause = format!("a batch has 1 to {BATCH_MAX} calls, this one {}", calls.len());
            let problem =
                Problem::new(ProblemKind::Invalid, "rpc.batch_too_large", cause).hint("send several batches");
            Some(failure(Value::Null, &problem))
        }
        Ok(Value::Array(calls)) => {
            let mut answers = Vec::new();
            for call in calls {
                answers.extend(one(web, context, call).await);
            }
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
        Ok(call) => {
            if let Some(method) = call.get("method").and_then(Value::as_str) {
                root.calls(method);
            }
            one(web, context, call).await
        }
    }
}

async fn one(web: &Web, context: &CallContext, mut call: Value) -> Option<Value> {
    let id = call.get("id").cloned();
    let fine_id = id.as_ref().is_none_or(|id| id.is_null() || id.is_string() || id.is_number());
    let method = call.get("method").and_then(Value::as_str).map(str::to_owned);
    let version = call.get("jsonrpc").and_then(Value::as_str) == Some("2.0");
    let (Some(method), true, true) = (method, version, fine_id) else {
        let problem = Problem::new(ProblemKind::Invalid, "rpc.invalid_request", "not a JSON-RPC 2.0 request")
            .hint(r#"one looks like {"jsonrpc":"2.0","id":1,"method":"nucleus.status","params":{}}"#);
        return Some(failure(id.filter(|_| fine_id).unwrap_or_default(), &problem));
    };
    let params = call.get_mut("params").map(Value::take).unwrap_or_default();
    let result = call_action(web, context, &method, params).await;
    // A notification has no id, and no answer.
    let id = id?;
    Some(match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(problem) => failure(id, &problem),
    })
}

/// Calls an action for somebody outside; internal ones look unknown.
pub(super) async fn call_action(
    web: &Web,
    context: &CallContext,
    action: &str,
    params: Value,
) -> Result<Value, Problem> {
    if protocol::actions().iter().any(|info| info.name == action && info.access == protocol::Access::Internal)
    {
        return Err(unknown_action(action));
    }
    let result = web.host.bus.call_json(context.clone(), action, params).await;
    auth::audit(web, context, action, &result).await;
    result
}

fn failure(id: Value, problem: &Problem) -> Value {
    let code = match &*problem.code {
        "rpc.malformed_json" => -32700,
        "rpc.invalid_request" | "rpc.batch_too_large" => -32600,
        "rpc.unknown_method" => -32601,
        "rpc.bad_params" => -32602,
        _ => -32000,
    };
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": problem.cause, "data": problem } })
}

//! REST at `/api/v1/SERVICE/VERB`: every action by POST with its request as JSON; queries by GET too,
//! with their fields in the query string. What is answered by a stream is read by GET, for as long as the client takes it.

use std::time::Instant;

use actix_web::web::{Bytes, Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt;
use protocol::action::{Content, Kind};
use protocol::{Access, ActionInfo, Handler, Problem, ProblemKind};
use serde_json::{Map, Value};

use super::events::Place;
use super::trace::Root;
use super::{Web, auth, problem, rpc};
use crate::bus::{CallContext, unknown_action};

pub(super) async fn post(
    web: Data<Web>,
    request: HttpRequest,
    path: Path<(String, String)>,
    payload: Payload,
) -> HttpResponse {
    let began = Instant::now();
    let mut context = match auth::caller(&web, &request).await {
        Ok(context) => context,
        Err(problem) => return problem::respond(&problem),
    };
    let mut root = Root::enter(&web, &mut context, "POST", began);
    let body = async {
        let info = find(&path)?;
        root.calls(info.name);
        let bytes = rpc::read(payload, web.host.settings.http.body_bytes_max).await?;
        let params = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).map_err(|error| problem::malformed(&error))?
        };
        rpc::call_action(&web, &context, info.name, params).await
    };
    let result = body.await;
    respond(root, &result)
}

pub(super) async fn get(web: Data<Web>, request: HttpRequest, path: Path<(String, String)>) -> HttpResponse {
    let began = Instant::now();
    let mut context = match auth::caller(&web, &request).await {
        Ok(context) => context,
        Err(problem) => return problem::respond(&problem),
    };
    let mut root = Root::enter(&web, &mut context, "GET", began);
    if let Ok(ActionInfo { handler: Handler::Stream(content), name, .. }) = find(&path) {
        root.calls(name);
        let opened = stream(&web, context, *content, &path, request.query_string()).await;
        let code = opened.as_ref().err().map(|problem| problem.code.clone());
        let answer = opened.unwrap_or_else(|problem| problem::respond(&problem));
        return root.respond(code.as_deref(), answer);
    }
    let body = async {
        let info = find(&path)?;
        root.calls(info.name);
        if info.kind != Kind::Query {
            let cause = format!("{} changes something: it is called by POST", info.name);
            return Err(
                Problem::new(ProblemKind::Invalid, "http.use_post", cause).hint("POST its request as JSON")
            );
        }
        rpc::call_action(&web, &context, info.name, query(info, request.query_string())).await
    };
    let result = body.await;
    respond(root, &result)
}

/// Items one behind the other. Where the stream breaks off, so does the answer.
async fn stream(
    web: &Data<Web>,
    context: CallContext,
    content: Content,
    path: &(String, String),
    text: &str,
) -> Result<HttpResponse, Problem> {
    let info = find(path)?;
    let place = Place::take(web)?;
    let items = web.host.bus.stream_json(context, info.name, query(info, text)).await?;
    let mut closing = web.closing.clone();
    let closed = async move {
        let _ = closing.wait_for(|closing| *closing).await;
    };
    let bytes = items.take_until(Box::pin(closed)).map(move |item| {
        let _place = &place;
        item.map(Bytes::from)
    });
    let content = match content {
        Content::Lines => "application/x-ndjson",
        Content::Bytes => "application/octet-stream",
    };
    Ok(HttpResponse::Ok().content_type(content).streaming(bytes))
}

fn respond(root: Root<'_>, result: &Result<Value, Problem>) -> HttpResponse {
    match result {
        Ok(value) => {
            let answer = HttpResponse::Ok().content_type("application/json").body(value.to_string());
            root.respond(None, answer)
        }
        Err(problem) => root.respond(Some(&*problem.code), problem::respond(problem)),
    }
}

fn find(path: &(String, String)) -> Result<&'static ActionInfo, Problem> {
    let name = format!("{}.{}", path.0, path.1);
    let found =
        protocol::actions().into_iter().find(|info| info.name == name && info.access != Access::Internal);
    found.ok_or_else(|| unknown_action(&name))
}

/// A query string as a request. What the schema calls a string stays one; else what reads as JSON is
/// taken as that.
fn query(info: &ActionInfo, text: &str) -> Value {
    let mut generator = schemars::SchemaGenerator::default();
    (info.request_schema)(&mut generator);
    let definitions = Value::Object(generator.take_definitions(true));
    let strings = |key: &str| {
        definitions.as_object().into_iter().flatten().any(|(_, schema)| {
            let kind = &schema["properties"][key]["type"];
            kind == "string" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "string"))
        })
    };
    let pairs = actix_web::web::Query::<Vec<(String, String)>>::from_query(text);
    let mut map = Map::new();
    for (key, value) in pairs.map(actix_web::web::Query::into_inner).unwrap_or_default() {
        let typed = if strings(&key) { None } else { serde_json::from_str(&value).ok() };
        map.insert(key, typed.unwrap_or(Value::String(value)));
    }
    Value::Object(map)
}

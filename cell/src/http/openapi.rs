//! `/openapi.json`: OpenAPI 3.1, made from the action registry and the types' own schemas.

use actix_web::HttpResponse;
use actix_web::web::Data;
use protocol::action::{Content, Kind};
use protocol::{Access, ActionInfo, Handler};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Web;

pub(super) async fn handle(web: Data<Web>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(web.openapi.clone())
}

/// The page as text.
pub(super) fn page() -> String {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for info in protocol::actions() {
        if info.access != Access::Internal {
            paths.insert(format!("/api/v1/{}/{}", info.service, info.verb), path(info, &mut generator));
        }
    }
    for (page, what) in [
        ("/livez", "Whether the process runs"),
        ("/readyz", "Whether the cell is ready, and if not, why"),
        ("/healthz", "Health of each service"),
        ("/version", "Name and version"),
    ] {
        paths.insert(page.to_owned(), open_page(what));
    }
    let problem = generator.subschema_for::<protocol::Problem>();
    for body in [
        generator.subschema_for::<protocol::message::ChatBody>(),
        generator.subschema_for::<protocol::message::AuthBody>(),
        generator.subschema_for::<protocol::message::TxBody>(),
        generator.subschema_for::<protocol::message::PostBody>(),
        generator.subschema_for::<protocol::message::QueryBody>(),
        generator.subschema_for::<protocol::message::FindBody>(),
        generator.subschema_for::<protocol::message::ExecBody>(),
        generator.subschema_for::<protocol::message::ReplyBody>(),
    ] {
        // Named here only so that the bodies of messages are documented too.
        let _ = body;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Celluler cell",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every action is here by REST, at POST /rpc (JSON-RPC 2.0, method = action name), and on the WebSocket /ws. GET /events streams events.",
            "license": { "name": "MIT OR Apache-2.0" }
        },
        "paths": paths,
        "security": [{ "bearer": [] }],
        "components": {
            "schemas": schemas,
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "responses": { "Problem": {
                "description": "RFC 9457 problem details",
                "content": { "application/problem+json": { "schema": problem } }
            } }
        }
    })
    .to_string()
}

fn path(info: &ActionInfo, generator: &mut SchemaGenerator) -> Value {
    let request = (info.request_schema)(generator);
    let (what, content) = match info.handler {
        Handler::Machine | Handler::Front => {
            ("The answer", json!({ "application/json": { "schema": (info.answer_schema)(generator) } }))
        }
        Handler::Stream(Content::Lines) => (
            "One of these a line",
            json!({ "application/x-ndjson": { "schema": (info.answer_schema)(generator) } }),
        ),
        Handler::Stream(Content::Bytes) => ("The bytes", json!({ "application/octet-stream": {} })),
    };
    let responses = json!({
        "200": { "description": what, "content": content },
        "default": { "$ref": "#/components/responses/Problem" }
    });
    let summary = info.doc.trim();
    let description =
        format!("{summary} Action `{}`, for tokens with role {:?} and up.", info.name, info.access);
    let post = json!({
        "operationId": info.name, "summary": summary, "description": description, "tags": [info.service.name()],
        "requestBody": { "content": { "application/json": { "schema": request } } },
        "responses": responses
    });
    // A stream is read, and nothing else.
    let is_stream = matches!(info.handler, Handler::Stream(_));
    let mut path = if is_stream { json!({}) } else { json!({ "post": post }) };
    if info.kind == Kind::Query {
        path["get"] = json!({
            "operationId": format!("{}.get", info.name), "summary": summary, "description": "Fields of the request in the query string.",
            "tags": [info.service.name()], "responses": responses
        });
    }
    path
}

fn open_page(what: &str) -> Value {
    json!({ "get": {
        "summary": what, "security": [],
        "responses": { "200": { "description": "Well" }, "503": { "description": "Not well" } }
    } })
}

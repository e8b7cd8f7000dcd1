//! Problems as HTTP answers: RFC 9457.

use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse};
use protocol::{Problem, ProblemKind};
use serde_json::json;

/// A problem as an answer.
pub(crate) fn respond(problem: &Problem) -> HttpResponse {
    let status =
        StatusCode::from_u16(problem.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = HttpResponse::build(status);
    match problem.kind {
        ProblemKind::Unauthenticated => answer.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"cell\"")),
        ProblemKind::Busy => answer.insert_header((RETRY_AFTER, "1")),
        _ => &mut answer,
    };
    answer.content_type("application/problem+json").body(body(problem, status).to_string())
}

fn body(problem: &Problem, status: StatusCode) -> serde_json::Value {
    json!({
        "type": format!("urn:celluler:problem:{}", problem.code),
        "title": status.canonical_reason().unwrap_or("Problem"),
        "status": status.as_u16(),
        "detail": problem.cause,
        "code": problem.code,
        "cause": problem.cause,
        "try": problem.hint,
        "kind": problem.kind,
    })
}

/// No such page, or another method.
pub(super) async fn not_found(request: HttpRequest) -> HttpResponse {
    let path: String = request.path().chars().take(120).collect();
    respond(
        &Problem::new(
            ProblemKind::NotFound,
            "http.not_found",
            format!("there is no {} {path}", request.method()),
        )
        .hint("GET /openapi.json lists everything there is"),
    )
}

/// A body that is no JSON.
pub(super) fn malformed(error: &serde_json::Error) -> Problem {
    let cause = format!("the body is not JSON: {error}");
    Problem::new(ProblemKind::Invalid, "rpc.malformed_json", cause).hint("check line and column; send UTF-8")
}

/// A body over the bound.
pub(super) fn too_large(bytes_max: usize) -> Problem {
    let cause = format!("a request has at most {bytes_max} bytes");
    Problem::new(ProblemKind::TooLarge, "http.body_too_large", cause)
        .hint("send less, or raise http.body_bytes_max in cell.toml")
}

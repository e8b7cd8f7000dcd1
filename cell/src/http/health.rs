//! Health pages: open to everybody, so they tell nothing but health.

use actix_web::HttpResponse;
use actix_web::web::Data;
use protocol::nucleus::{Health, Readiness};
use protocol::shared::Empty;
use serde_json::{Value, json};

use super::{Web, problem};

pub(super) async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "state": "alive" }))
}

pub(super) async fn readyz(web: Data<Web>) -> HttpResponse {
    match web.host.bus.internal().nucleus().status(Empty {}).await {
        Ok(status) => {
            let ready = matches!(status.readiness, Readiness::Synced { .. });
            if ready {
                HttpResponse::Ok().json(status.readiness)
            } else {
                HttpResponse::ServiceUnavailable().json(status.readiness)
            }
        }
        Err(problem) => problem::respond(&problem),
    }
}

pub(super) async fn healthz(web: Data<Web>) -> HttpResponse {
    match web.host.bus.internal().nucleus().services(Empty {}).await {
        Ok(page) => {
            let well = page.items.iter().all(|service| service.health == Health::Running);
            let services: Value = page
                .items
                .iter()
                .map(|service| (service.service.name().to_owned(), json!(service.health)))
                .collect();
            let body = json!({ "state": if well { "healthy" } else { "unhealthy" }, "services": services });
            if well { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
        }
        Err(problem) => problem::respond(&problem),
    }
}

pub(super) async fn version() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "name": "cell", "version": env!("CARGO_PKG_VERSION") }))
}

pub(super) async fn index() -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "name": "cell",
        "version": env!("CARGO_PKG_VERSION"),
        "pages": ["/rpc", "/api/v1/SERVICE/VERB", "/events", "/ws", "/livez", "/readyz", "/healthz", "/version", "/metrics", "/openapi.json"],
    }))
}

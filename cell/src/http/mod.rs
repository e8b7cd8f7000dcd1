//! HTTP: JSON-RPC, REST, event streams, WebSocket, health, metrics, OpenAPI.
//!
//! Everything that can be called comes from the action registry (`protocol::actions`): there is no
//! second list. Bearer tokens are asked for everywhere but at the health pages, the version and the
//! OpenAPI page. Every refusal is RFC 9457 `problem+json`, or a JSON-RPC error that carries one.
//!
//! Bounds: bytes of a request, requests a second of one caller, connections, streams, calls of a batch.
//!
//! The only room that names actix-web.

mod auth;
mod events;
mod health;
mod metrics;
mod openapi;
mod problem;
mod rest;
mod rpc;
mod socket;
mod trace;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use actix_cors::Cors;
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use protocol::{Problem, ProblemKind};
use tokio::sync::watch;

use crate::node::Host;

/// How long a client may take to send a request's head.
const REQUEST_HEAD_MAX: Duration = Duration::from_secs(5);
/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// What handlers share.
pub(crate) struct Web {
    pub(crate) host: Arc<Host>,
    pub(crate) limiter: auth::Limiter,
    pub(crate) streams: AtomicUsize,
    /// Set when streams are to end.
    pub(crate) closing: watch::Receiver<bool>,
    pub(crate) openapi: String,
}

/// The HTTP server of a cell.
pub struct Server {
    handle: ServerHandle,
    address: SocketAddr,
    closing: watch::Sender<bool>,
}

impl Server {
    /// Starts listening.
    ///
    /// # Errors
    ///
    /// `http.port_in_use`, `http.cannot_listen`.
    pub async fn start(host: &Arc<Host>) -> Result<Self, Problem> {
        let settings = host.settings.http.clone();
        let (closing, closed) = watch::channel(false);
        let data = web::Data::new(Web {
            host: Arc::clone(host),
            limiter: auth::Limiter::new(settings.requests_per_second_max),
            streams: AtomicUsize::new(0),
            closing: closed,
            openapi: openapi::page(),
        });
        let (body_bytes_max, origins) = (settings.body_bytes_max, settings.cors_origins.clone());
        let place = (settings.host.clone(), settings.port);
        let server = HttpServer::new(move || {
            let cors = origins.iter().fold(Cors::default(), |cors, origin| cors.allowed_origin(origin));
            App::new()
                .app_data(data.clone())
                .app_data(web::PayloadConfig::new(body_bytes_max))
                .wrap(cors.allow_any_header().allowed_methods(["GET", "POST"]))
                .configure(routes)
        })
        .workers(settings.workers)
        .max_connections(settings.connections_max)
        .client_request_timeout(REQUEST_HEAD_MAX)
        .keep_alive(KEEP_ALIVE)
        // Who hangs up is heard at once: nobody works for a stream that nobody reads.
        .h1_allow_half_closed(false)
        .shutdown_timeout(10)
        .disable_signals()
        .bind(place.clone())
        .map_err(|error| cannot_listen(&place, &error))?;
        let address = server.addrs().first().copied().ok_or_else(|| {
            Problem::new(ProblemKind::Fault, "http.cannot_listen", "the server listens nowhere")
        })?;
        let server = server.run();
        let handle = server.handle();
        actix_rt::spawn(server);
        Ok(Self { handle, address, closing })
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes no more, ends streams, lets requests under way finish.
    pub async fn stop(&self, patience: Duration) {
        self.closing.send_replace(true);
        if tokio::time::timeout(patience, self.handle.stop(true)).await.is_err() {
            self.handle.stop(false).await;
        }
    }
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/rpc", web::post().to(rpc::handle))
        .route("/api/v1/{service}/{verb}", web::get().to(rest::get))
        .route("/api/v1/{service}/{verb}", web::post().to(rest::post))
        .route("/events", web::get().to(events::handle))
        .route("/ws", web::get().to(socket::handle))
        .route("/livez", web::get().to(health::livez))
        .route("/readyz", web::get().to(health::readyz))
        .route("/healthz", web::get().to(health::healthz))
        .route("/version", web::get().to(health::version))
        .route("/metrics", web::get().to(metrics::handle))
        .route("/openapi.json", web::get().to(openapi::handle))
        .route("/", web::get().to(health::index))
        .default_service(web::to(problem::not_found));
}

fn cannot_listen((host, port): &(String, u16), error: &std::io::Error) -> Problem {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        return Problem::new(
            ProblemKind::Conflict,
            "http.port_in_use",
            format!("another process listens on {host}:{port}"),
        )
        .hint("stop that process, or choose another port: http.port in cell.toml (0 takes a free one)");
    }
    Problem::new(
        ProblemKind::Invalid,
        "http.cannot_listen",
        format!("cannot listen on {host}:{port}: {error}"),
    )
    .hint("check http.host and http.port in cell.toml")
}

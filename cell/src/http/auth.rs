//! Who is asking, and how often: bearer tokens and rate limits.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;
use governor::clock::DefaultClock;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use protocol::identity::SessionRequest;
use protocol::nucleus::AuthoriseRequest;
use protocol::{Access, Caller, Hash, Problem, ProblemKind};

use super::Web;
use super::trace::TRACEPARENT;
use crate::bus::{CallContext, DEADLINE_DEFAULT, TraceParent};

/// Callers whose rate is remembered; beyond this idle ones are forgotten.
const CALLERS_MAX: usize = 10_000;
/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 512;
/// Failed tries a second of one address.
const FAILED_PER_SECOND_MAX: u32 = 10;
/// The longest deadline a caller may ask for.
const DEADLINE_MS_MAX: u64 = 60_000;

type Keyed = RateLimiter<String, DefaultKeyedStateStore<String>, DefaultClock>;

/// Rates of callers.
pub(crate) struct Limiter {
    callers: Keyed,
    failed: Keyed,
}

impl Limiter {
    pub(super) fn new(per_second_max: u32) -> Self {
        let quota = |rate: u32| Quota::per_second(NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN));
        Self {
            callers: RateLimiter::keyed(quota(per_second_max)),
            failed: RateLimiter::keyed(quota(FAILED_PER_SECOND_MAX)),
        }
    }

    fn check(limiter: &Keyed, key: &String) -> Result<(), Problem> {
        if limiter.len() > CALLERS_MAX {
            limiter.retain_recent();
        }
        limiter.check_key(key).map_err(|_| {
            Problem::new(ProblemKind::Busy, "http.rate_limited", "too many requests a second")
                .hint("ask again in a second, or raise http.requests_per_second_max in cell.toml")
        })
    }
}

/// Finds out who is asking.
///
/// # Errors
///
/// `http.unauthenticated` without a token, the token's own problem with a bad one, `http.rate_limited`.
pub(super) async fn caller(web: &Web, request: &HttpRequest) -> Result<CallContext, Problem> {
    let began = Instant::now();
    let address = request.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let deadline_ms = header("x-deadline-ms").and_then(|text| text.parse::<u64>().ok());
    let asked = deadline_ms.map(|deadline_ms| Duration::from_millis(deadline_ms.clamp(1, DEADLINE_MS_MAX)));
    let patience = asked.unwrap_or(DEADLINE_DEFAULT);
    let who = match bearer(request) {
        // Who knows the tokens may be on another host, and that one out of reach.
        Some(token) => authorise(web, &token, patience).await,
        None => Err(Problem::new(
            ProblemKind::Unauthenticated,
            "http.unauthenticated",
            "the request carries no token",
        )
        .hint("send Authorization: Bearer TOKEN; the first admin token lies in DIR/admin.token")),
    };
    let who = match who {
        Ok(who) => who,
        Err(problem) => {
            // What could not be looked up is nobody's guess at a token.
            if !matches!(problem.kind, ProblemKind::Unavailable | ProblemKind::Busy) {
                Limiter::check(&web.limiter.failed, &address)?;
            }
            return Err(problem);
        }
    };
    Limiter::check(&web.limiter.callers, &who.to_string())?;
    let mut context = CallContext::of(who);
    if asked.is_some() {
        context = context.within(patience.saturating_sub(began.elapsed()).max(Duration::from_millis(1)));
    }
    // More than one says nothing, as the recommendation has it.
    let said = request.headers().get_all(TRACEPARENT).count();
    context.trace = header(TRACEPARENT).filter(|_| said == 1).and_then(TraceParent::parse);
    Ok(context)
}

/// The token of the Authorization header; for browsers' WebSockets, of the subprotocol `bearer.TOKEN`.
fn bearer(request: &HttpRequest) -> Option<String> {
    let headers = request.headers();
    let text = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = match text {
        Some(text) => {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())?
        }
        None => {
            let protocols = headers.get("sec-websocket-protocol")?.to_str().ok()?;
            protocols.split(',').find_map(|part| part.trim().strip_prefix("bearer.").map(str::to_owned))?
        }
    };
    (!token.is_empty() && token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

async fn authorise(web: &Web, token: &str, patience: Duration) -> Result<Caller, Problem> {
    let hash = Hash::of(token.as_bytes());
    let bus = web.host.bus.with(CallContext::internal().within(patience));
    if token.starts_with("session_") {
        let session = bus.identity().session(SessionRequest { hash }).await?;
        return Ok(Caller::Token { role: Access::Read, name: format!("session:{}", session.cell) });
    }
    let authorised = bus.nucleus().authorise(AuthoriseRequest { hash }).await?;
    Ok(Caller::Token { role: authorised.role, name: authorised.name })
}

/// Writes an admin action into the audit.
pub(super) async fn audit(
    web: &Web,
    context: &CallContext,
    action: &str,
    outcome: &Result<serde_json::Value, Problem>,
) {
    let info = protocol::actions().into_iter().find(|info| info.name == action);
    let commands =
        info.is_some_and(|info| info.access == Access::Admin && info.kind == protocol::action::Kind::Command);
    if !commands {
        return;
    }
    let outcome = outcome.as_ref().map_or_else(|problem| problem.code.to_string(), |_| "ok".to_owned());
    let entry = protocol::nucleus::AuditRequest {
        caller: context.caller.to_string(),
        action: action.to_owned(),
        outcome,
    };
    if let Err(problem) = web.host.bus.internal().nucleus().audit(entry).await {
        tracing::warn!(%problem, action, "an admin action was not entered into the audit");
    }
}

//! The running cell, over HTTP on loopback: JSON-RPC by `ureq`.

use std::time::Duration;

use protocol::{Problem, ProblemKind};
use serde_json::{Value, json};
use ureq::Agent;

use super::Context;
use crate::folder::Folder;
use crate::telemetry::TraceParent;

/// The longest a call may take: longer than any wait the cell itself allows.
const CALL_MAX: Duration = Duration::from_secs(75);
/// The largest answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A client of the running cell.
pub(super) struct Client {
    agent: Agent,
    folder: Folder,
    token: String,
    trace: Option<TraceParent>,
}

impl Client {
    /// The client of a folder's running cell.
    pub(super) fn of(context: &Context) -> Result<Self, Problem> {
        let folder = context.folder()?;
        folder.run_http()?;
        let token = match (&context.token_file, std::env::var("CELL_TOKEN")) {
            (Some(path), _) => std::fs::read_to_string(path)
                .map_err(|error| super::unreadable(path, &error))?
                .trim()
                .to_owned(),
            (None, Ok(token)) if !token.is_empty() => token,
            _ => folder.admin_token()?,
        };
        let config = Agent::config_builder()
            .timeout_global(Some(CALL_MAX))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Ok(Self { agent: config.into(), folder, token, trace: context.trace })
    }

    /// Where it listens now: started again, it may be elsewhere.
    fn url(&self, path: &str) -> Result<String, Problem> {
        Ok(format!("{}{path}", self.folder.run_http()?))
    }

    /// Calls an action.
    pub(super) fn call(&self, action: &str, params: Value) -> Result<Value, Problem> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": action, "params": params });
        let mut asked = self
            .agent
            .post(self.url("/rpc")?)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        if let Some(trace) = &self.trace {
            asked = asked.header("traceparent", trace.to_string());
        }
        let answer = asked.send(request.to_string());
        let mut answer = answer.map_err(|error| self.unreachable(&error.to_string()))?;
        let status = answer.status().as_u16();
        let text = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|error| self.unreachable(&error.to_string()))?;
        let answer: Value = serde_json::from_str(&text).map_err(|_| garbled(status))?;
        if status != 200 {
            return Err(problem_of(&answer).unwrap_or_else(|| garbled(status)));
        }
        match answer.get("error") {
            Some(error) => Err(problem_of(&error["data"]).unwrap_or_else(|| garbled(status))),
            None => Ok(answer["result"].clone()),
        }
    }

    /// Opens the event stream.
    pub(super) fn events(
        &self,
        names: &str,
        since: Option<&str>,
    ) -> Result<ureq::BodyReader<'static>, Problem> {
        let since = since.map(|since| ("since", since.to_owned()));
        let names = Some(("names", names.to_owned()));
        self.open("/events", names.into_iter().chain(since))
    }

    /// Opens a stream, by the name of its action.
    pub(super) fn stream(
        &self,
        action: &str,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<ureq::BodyReader<'static>, Problem> {
        self.open(&format!("/api/v1/{}", action.replace('.', "/")), fields)
    }

    fn open(
        &self,
        path: &str,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<ureq::BodyReader<'static>, Problem> {
        let mut request = self
            .agent
            .get(self.url(path)?)
            .config()
            .timeout_global(None)
            .build()
            .header("authorization", format!("Bearer {}", self.token));
        for (name, value) in fields {
            request = request.query(name, value);
        }
        let mut answer = request.call().map_err(|error| self.unreachable(&error.to_string()))?;
        let status = answer.status().as_u16();
        if status != 200 {
            let text = answer.body_mut().read_to_string().unwrap_or_default();
            let problem = serde_json::from_str(&text).ok().and_then(|value| problem_of(&value));
            return Err(problem.unwrap_or_else(|| garbled(status)));
        }
        Ok(answer.into_body().into_reader())
    }

    fn unreachable(&self, why: &str) -> Problem {
        Problem::new(
            ProblemKind::Unreachable,
            "cli.unreachable",
            format!("the cell of {} cannot be reached: {why}", self.folder.path().display()),
        )
        .hint("cell status shows whether it runs; cell start starts it")
    }
}

/// A problem out of a JSON-RPC error's data, or of problem+json.
fn problem_of(value: &Value) -> Option<Problem> {
    let mut value = value.clone();
    let map = value.as_object_mut()?;
    map.retain(|key, value| ["code", "cause", "try", "kind"].contains(&key.as_str()) && !value.is_null());
    serde_json::from_value(value).ok()
}

/// A stream has broken off.
pub(super) fn broken_off(error: &std::io::Error) -> Problem {
    let cause = format!("the answer broke off: {error}");
    Problem::new(ProblemKind::Unreachable, "cli.broken_off", cause)
        .hint("the log of the cell says why; ask again")
}

fn garbled(status: u16) -> Problem {
    Problem::new(
        ProblemKind::Unreachable,
        "cli.garbled",
        format!("the cell answered with status {status} and nothing that can be read"),
    )
    .hint("is it a cell that listens there? cell doctor tells more")
}

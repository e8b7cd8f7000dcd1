//! Clients of a cell's HTTP, of which none waits for ever: whoever does not hear in time says so.

use std::time::Duration;

use serde_json::{Value, json};

/// How much later than its deadline an answer may come: processes and clients share few cores.
pub const GRACE: Duration = Duration::from_secs(2);
/// The code of a call that was not answered by its deadline and [`GRACE`].
pub const HUNG: &str = "test.hung";
/// The code of a call whose connection failed: the process is not there, or has just ended.
pub const NOBODY: &str = "test.nobody";
/// How long a health page may take: it asks several services, each with a deadline of its own.
const PAGE_MAX: Duration = Duration::from_secs(15);

/// Asks one host of a cell. Its connections are made on the host that the asking thread is on.
#[derive(Clone, Debug)]
pub struct Client {
    http: String,
    token: String,
    agent: ureq::Agent,
}

impl Client {
    /// A client of who listens there, with a token.
    pub fn new(http: &str, token: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        Self { http: http.to_owned(), token: token.trim().to_owned(), agent: config.into() }
    }

    /// Calls an action that has to be answered by then.
    ///
    /// # Errors
    ///
    /// The code of the refusal; [`HUNG`] or [`NOBODY`]; `test.status_…` for an answer that is no JSON.
    pub fn call(&self, action: &str, params: &Value, deadline: Duration) -> Result<Value, String> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": action, "params": params });
        let post = self.agent.post(format!("{}/rpc", self.http));
        let post = post.config().timeout_global(Some(deadline + GRACE)).build();
        let post = post
            .header("authorization", format!("Bearer {}", self.token))
            .header("x-deadline-ms", deadline.as_millis().to_string());
        let answer = post
            .send(call.to_string())
            .and_then(|mut answer| Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?)));
        let (status, text) = answer.map_err(|error| code_of(&error))?;
        let Ok(mut answer) = serde_json::from_str::<Value>(&text) else {
            return Err(format!("test.status_{status}"));
        };
        let code = [&answer["error"]["data"]["code"], &answer["code"]].into_iter().find_map(Value::as_str);
        match code.map(str::to_owned) {
            Some(code) => Err(code),
            None => Ok(answer["result"].take()),
        }
    }

    /// What `/readyz` says: the state where there is one, or the code of why nobody knows.
    ///
    /// # Errors
    ///
    /// [`HUNG`] or [`NOBODY`].
    pub fn readiness(&self) -> Result<String, String> {
        let get = self.agent.get(format!("{}/readyz", self.http));
        let get = get.config().timeout_global(Some(PAGE_MAX)).build();
        let text = get.call().and_then(|mut answer| answer.body_mut().read_to_string());
        let page: Value = serde_json::from_str(&text.map_err(|error| code_of(&error))?).unwrap_or_default();
        let word = [&page["state"], &page["code"]].into_iter().find_map(Value::as_str);
        Ok(word.unwrap_or_default().to_owned())
    }

    /// All that an action lists, page by page.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn list(&self, action: &str, params: &Value, deadline: Duration) -> Result<Vec<Value>, String> {
        let (mut items, mut params) = (Vec::new(), params.clone());
        loop {
            let mut page = self.call(action, &params, deadline)?;
            if let Value::Array(more) = page["items"].take() {
                items.extend(more);
            }
            match page["next"].take() {
                Value::Null => return Ok(items),
                next => params["cursor"] = next,
            }
        }
    }
}

fn code_of(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => HUNG.to_owned(),
        _ => NOBODY.to_owned(),
    }
}

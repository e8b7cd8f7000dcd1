//! Printing: JSON for programs, tables for people.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};
use protocol::Problem;
use serde_json::{Value, json};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Where answers go.
#[derive(Clone, Copy)]
pub(super) struct Output {
    format: Format,
}

impl Output {
    pub(super) const fn new(format: Format) -> Self {
        Self { format }
    }

    pub(super) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints an answer.
    pub(super) fn value(self, value: &Value) -> Result<ExitCode, Problem> {
        if self.is_json() {
            line(&value.to_string());
        } else {
            line(&human(value));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Prints an answer as JSON in either format, readable for people.
    pub(super) fn bare(self, value: &Value) -> Result<ExitCode, Problem> {
        let text = if self.is_json() {
            value.to_string()
        } else {
            serde_json::to_string_pretty(value).unwrap_or_default()
        };
        line(&text);
        Ok(ExitCode::SUCCESS)
    }

    /// Prints one line.
    pub(super) fn text(self, text: &str) {
        line(text);
    }

    /// Prints a problem: one JSON document on standard output, or words on standard error.
    pub(super) fn problem(self, problem: &Problem) {
        if self.is_json() {
            line(&json!({ "code": problem.code, "cause": problem.cause, "try": problem.hint }).to_string());
            return;
        }
        let red = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let (on, off) = if red { ("\u{1b}[31m", "\u{1b}[0m") } else { ("", "") };
        let mut text = format!("{on}error{off}: {} ({})\n", problem.cause, problem.code);
        if let Some(hint) = &problem.hint {
            text.push_str(&format!("try: {hint}\n"));
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// A line on standard output. A reader that went away ends the program, quietly.
fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

fn human(value: &Value) -> String {
    match value {
        Value::Object(map) if map.get("items").is_some_and(Value::is_array) => {
            let mut text = rows(map["items"].as_array().map_or(&[], Vec::as_slice));
            if let Some(next) = map.get("next").and_then(Value::as_str) {
                text.push_str(&format!("\nmore: --cursor {next}"));
            }
            text
        }
        Value::Object(map) if map.is_empty() => "done".to_owned(),
        Value::Object(map) => {
            let mut table = table();
            for (key, value) in map {
                match value {
                    Value::Array(items) if items.iter().any(Value::is_object) => {
                        table.add_row([key.clone(), rows(items)]);
                    }
                    _ => {
                        table.add_row([key.clone(), cell(key, value, 4_000)]);
                    }
                }
            }
            table.to_string()
        }
        other => cell("", other, 4_000),
    }
}

fn rows(items: &[Value]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    let mut columns: Vec<String> = Vec::new();
    for item in items {
        for key in item.as_object().into_iter().flat_map(|map| map.keys()) {
            if !columns.contains(key) && !HIDDEN.contains(&key.as_str()) {
                columns.push(key.clone());
            }
        }
    }
    let mut table = table();
    table.set_header(&columns);
    for item in items {
        table.add_row(columns.iter().map(|column| cell(column, &item[column.as_str()], 64)));
    }
    table.to_string()
}

/// What would only widen a table of many rows.
const HIDDEN: [&str; 8] =
    ["signature", "proof", "receipt", "transaction", "settings", "expires_ms", "sealed", "index_hash"];

fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

fn cell(key: &str, value: &Value, width_max: usize) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number)
            if ["time_ms", "timestamp_ms", "created_ms", "updated_ms", "opened_ms"].contains(&key) =>
        {
            number.as_u64().map_or_else(|| number.to_string(), time)
        }
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    if text.chars().count() <= width_max {
        return text;
    }
    let shown: String = text.chars().take(width_max).collect();
    format!("{shown}…")
}

/// A time as ISO 8601 in UTC (days by Howard Hinnant's civil calendar).
fn time(ms: u64) -> String {
    let (days, second) = (ms / 86_400_000, ms / 1_000 % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_right() {
        assert_eq!(super::time(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::time(1_709_210_096_000), "2024-02-29T12:34:56Z");
    }
}

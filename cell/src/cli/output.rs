//! Printing: JSON for programs, tables for people.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};
use protocol::Problem;
use serde_json::{Map, Value, json};

/// The longest value shown of a single record.
const WIDTH_MAX: usize = 4_000;
/// The longest value shown in a row of many.
const CELL_WIDTH_MAX: usize = 64;

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
            let mut lists = String::new();
            fields(&mut table, &mut lists, "", map);
            format!("{}{lists}", tidy(&table))
        }
        other => cell("", other, WIDTH_MAX),
    }
}

/// A row a field; what lies deeper is named by its path, and lists of objects follow as tables.
fn fields(table: &mut Table, lists: &mut String, prefix: &str, map: &Map<String, Value>) {
    for (key, value) in map {
        let name = format!("{prefix}{key}");
        match value {
            Value::Object(deeper) if !deeper.is_empty() => {
                fields(table, lists, &format!("{name}."), deeper);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                lists.push_str(&format!("\n\n{name}\n{}", rows(items)));
            }
            Value::Array(items) if items.iter().all(Value::is_string) && items.len() > 1 => {
                let lines: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                table.add_row([name, lines.join("\n")]);
            }
            _ => {
                table.add_row([name, cell(key, value, WIDTH_MAX)]);
            }
        }
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
        table.add_row(columns.iter().map(|column| cell(column, &item[column.as_str()], CELL_WIDTH_MAX)));
    }
    tidy(&table)
}

/// What would only widen a table of many rows.
const HIDDEN: [&str; 9] = [
    "nonce",
    "signature",
    "proof",
    "receipt",
    "transaction",
    "settings",
    "expires_ms",
    "sealed",
    "index_hash",
];

/// The table's text without the spaces that fill its last column.
fn tidy(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

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

/// The last second of the year 9999.
const TIME_MS_MAX: u64 = 253_402_300_799_000;

/// A time as ISO 8601 in UTC.
fn time(ms: u64) -> String {
    // Later ones cannot be written: the year has four digits.
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms.min(TIME_MS_MAX));
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_right() {
        assert_eq!(super::time(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::time(1_709_210_096_000), "2024-02-29T12:34:56Z");
        assert_eq!(super::time(u64::MAX), "9999-12-31T23:59:59Z");
    }
}

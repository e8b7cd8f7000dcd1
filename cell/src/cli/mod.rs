//! The command line: `cell`.
//!
//! Rules: with `--output json` standard output holds nothing but JSON, one document (a line each for
//! streams and for `start`), errors included; logs and progress go to standard error. Nothing prompts.
//! Exit codes: 0 ok, 1 failed, 2 usage, 3 unreachable, 4 denied, 5 unhealthy, 6 conflict.

mod args;
mod bulk;
mod client;
mod consensus;
mod data;
mod doctor;
mod follow;
mod graph;
mod hosts;
mod journals;
mod notify;
mod offline;
mod online;
mod output;
mod run;
mod signals;
mod testnet;
mod trace;
mod watch;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use protocol::{Problem, ProblemKind};
use serde_json::Value;

use crate::folder::Folder;
use crate::telemetry::TraceParent;
use args::{Args, Command};
use output::{Format, Output};

/// The largest body taken from a file or from standard input.
const INPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What every command gets.
struct Context {
    dir: PathBuf,
    passphrase_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    /// The trace that its requests are to be in.
    trace: Option<TraceParent>,
    output: Output,
}

impl Context {
    fn folder(&self) -> Result<Folder, Problem> {
        Folder::open(&self.dir)
    }

    /// The passphrase, of the environment or a file; nobody is asked.
    fn passphrase(&self) -> Result<Option<String>, Problem> {
        match &self.passphrase_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
                Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
            None => Ok(std::env::var("CELL_PASSPHRASE").ok().filter(|passphrase| !passphrase.is_empty())),
        }
    }
}

/// Runs a command line.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let json = wants_json(&arguments);
    let args = match Args::try_parse_from(&arguments) {
        Ok(args) => args,
        Err(error) => return usage(&error, json),
    };
    let output = Output::new(args.output.unwrap_or(Format::Table));
    let context = Context {
        dir: args.dir.unwrap_or_else(default_dir),
        passphrase_file: args.passphrase_file,
        token_file: args.token_file,
        trace: args.trace.then(TraceParent::begin),
        output,
    };
    if let Some(trace) = &context.trace {
        let _ = writeln!(std::io::stderr(), "trace: {}", hex::encode(trace.trace_id));
    }
    match dispatch(&context, args.command) {
        Ok(code) => code,
        Err(problem) => {
            context.output.problem(&problem);
            ExitCode::from(problem.kind.exit_code())
        }
    }
}

fn default_dir() -> PathBuf {
    std::env::var_os("HOME")
        .map_or_else(|| PathBuf::from(".celluler"), |home| PathBuf::from(home).join(".celluler"))
}

/// Whether errors of the command line itself are to be JSON: it could not be parsed, so it is searched.
fn wants_json(arguments: &[OsString]) -> bool {
    let texts: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    texts.windows(2).any(|pair| pair == ["--output", "json"]) || texts.contains(&"--output=json")
}

fn usage(error: &clap::Error, json: bool) -> ExitCode {
    use clap::error::ErrorKind;
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if json {
        let text = error.to_string();
        let cause = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Output::new(Format::Json).problem(
            &Problem::new(ProblemKind::Invalid, "cli.usage", cause)
                .hint("cell --help, or cell COMMAND --help"),
        );
    } else {
        let _ = error.print();
    }
    ExitCode::from(2)
}

fn dispatch(context: &Context, command: Command) -> Result<ExitCode, Problem> {
    match command {
        Command::Init(init) => offline::init(context, init),
        Command::Start { set } => run::start(context, &set),
        Command::Stop => run::stop(context),
        Command::Rebuild => offline::rebuild(context),
        Command::Backup { to } => offline::backup(context, &to),
        Command::Restore { from } => offline::restore(context, &from),
        Command::Doctor => doctor::doctor(context),
        Command::Testnet { command } => testnet::run(context, command),
        Command::Watch(watch) => watch::watch(context, watch),
        Command::Signal { command } => signals::run(context, command),
        Command::Journal { command } => journals::run(context, command),
        Command::Host { command } => hosts::run(context, command),
        Command::Hosts(watched) => hosts::hosts(context, &watched),
        Command::Services(watched) => hosts::services(context, &watched),
        Command::Service { command } => hosts::service(context, command),
        Command::Data { command } => data::run(context, command),
        Command::Trace { id, limit } => trace::run(context, id.as_deref(), limit),
        Command::Config { command } => offline::config(context, command),
        Command::Completion { shell } => {
            let mut command = Args::command();
            clap_complete::generate(shell, &mut command, "cell", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Version => {
            context.output.value(&serde_json::json!({ "name": "cell", "version": env!("CARGO_PKG_VERSION") }))
        }
        other => online::run(context, other),
    }
}

/// JSON of an argument, of a file (`@FILE`), or of standard input (`-`).
fn json_argument(text: &str, what: &str) -> Result<Value, Problem> {
    let text = text_argument(text)?;
    serde_json::from_str(&text).map_err(|error| {
        Problem::new(ProblemKind::Invalid, "cli.bad_json", format!("{what} is not JSON: {error}")).hint(
            r#"quote it for the shell, as in '{"text":"hello"}'; @FILE and - (standard input) work too"#,
        )
    })
}

fn text_argument(text: &str) -> Result<String, Problem> {
    let mut read = String::new();
    if text == "-" {
        std::io::stdin()
            .take(INPUT_BYTES_MAX)
            .read_to_string(&mut read)
            .map_err(|error| unreadable(std::path::Path::new("standard input"), &error))?;
        return Ok(read);
    }
    match text.strip_prefix('@') {
        Some(path) => {
            let path = std::path::Path::new(path);
            let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
            file.take(INPUT_BYTES_MAX).read_to_string(&mut read).map_err(|error| unreadable(path, &error))?;
            Ok(read)
        }
        None => Ok(text.to_owned()),
    }
}

fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Problem {
    Problem::new(ProblemKind::Invalid, "cli.unreadable", format!("{}: {error}", path.display()))
        .hint("check the file's name and permissions")
}

/// Writes a file that a command was asked for.
fn write_file(file: &std::path::Path, bytes: &[u8]) -> Result<(), Problem> {
    std::fs::write(file, bytes).map_err(|error| {
        let cause = format!("{} cannot be written: {error}", file.display());
        Problem::new(ProblemKind::Invalid, "cli.unwritable", cause).hint("choose another file")
    })
}

/// What turned out wrong although the command did its work: exit 5.
fn unhealthy() -> ExitCode {
    ExitCode::from(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after() {
        for line in [["cell", "--output", "json", "version"], ["cell", "version", "--output", "json"]] {
            assert_eq!(Args::try_parse_from(line).expect("parses").output, Some(Format::Json));
        }
    }

    #[test]
    fn json_comes_from_arguments_and_files() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("body.json");
        std::fs::write(&path, "{\"a\":1}").expect("writes");
        assert_eq!(json_argument(&format!("@{}", path.display()), "the body").expect("reads")["a"], 1);
        assert_eq!(json_argument("{", "the body").expect_err("no JSON").code, "cli.bad_json");
        assert_eq!(json_argument("@/none", "the body").expect_err("no file").code, "cli.unreadable");
    }
}

//! The program `cell`.

fn main() -> std::process::ExitCode {
    cell::cli::main(std::env::args_os())
}

//! The program `cell`.

/// Actors hand what they allocate to other threads to free, which the system's allocator is slow at
/// (`docs/benchmarks.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cell::cli::main(std::env::args_os())
}

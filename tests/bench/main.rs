//! `cargo xtask bench`: what the product does, beside its limit on the same machine in the same run.
//!
//! One Markdown table a part; each line is `what | measured | beside it | ratio | floor`. Nothing here
//! asserts a speed: a loaded machine is not a defect. Parts are chosen by name, all without one.

mod bus;
mod cells;
mod consensus;
mod hosts;
mod in_process;
mod limits;
mod messages;
mod table;
mod takeover;
mod transfers;

/// The one the program `cell` has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[allow(clippy::print_stdout)]
fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = chosen.split_first()
        && first == consensus::MEMBER
    {
        return consensus::run_member(rest);
    }
    let wants = |part: &str| chosen.is_empty() || chosen.iter().any(|name| name == part);
    // `consensus at=400` measures at one rate alone.
    let is_known = |name: &String| {
        ["bus", "hosts", "calls", "streams", "messages", "cells", "consensus", "transfers", "takeover"]
            .contains(&name.as_str())
            || name.starts_with("at=")
    };
    if let Some(unknown) = chosen.iter().find(|name| !is_known(name)) {
        eprintln!(
            "bench: there is no part {unknown:?}; there are: bus hosts calls streams messages cells consensus transfers takeover"
        );
        std::process::exit(2);
    }
    println!("load before: {}\n", limits::load());
    if wants("bus") {
        bus::measure().print();
    }
    if wants("hosts") {
        hosts::measure().print();
    }
    if chosen.iter().any(|name| name == "calls") {
        hosts::measure_calls().print();
    }
    if chosen.iter().any(|name| name == "streams") {
        hosts::measure_streams().print();
    }
    if wants("messages") {
        messages::measure().print();
    }
    if wants("cells") {
        cells::measure().print();
    }
    if wants("consensus") {
        consensus::measure(&chosen).print();
    }
    if wants("transfers") {
        transfers::measure().print();
    }
    if wants("takeover") {
        takeover::measure().print();
    }
    println!("load after: {}", limits::load());
}

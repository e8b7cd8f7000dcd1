//! The two commands of the README: up and test, and what helps around them.
fn main() {}

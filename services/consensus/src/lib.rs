//! The consensus service, a pure machine.

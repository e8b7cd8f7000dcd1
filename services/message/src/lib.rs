//! The message service, a pure machine.

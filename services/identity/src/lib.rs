//! The identity service, a pure machine.

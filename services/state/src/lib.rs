//! The state service, a pure machine.

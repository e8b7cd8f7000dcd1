//! The market service, a pure machine.

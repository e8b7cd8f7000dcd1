//! The nucleus service, a pure machine.

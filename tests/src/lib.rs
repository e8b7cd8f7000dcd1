//! End-to-end, crash and load tests of real cells.

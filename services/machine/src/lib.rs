//! The pure machine every service is.

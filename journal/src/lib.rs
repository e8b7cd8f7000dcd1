//! A signed, append-only log in the Hypercore 10 on-disk format.

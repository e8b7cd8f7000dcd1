//! The hashgraph against its rules: graphs worked out by hand, and a slow oracle on random graphs. And how members come to
//! have the same graph.

mod by_hand;
mod compare;
mod draw;
mod export;
mod oracle;
mod pull;
mod random;

//! The hashgraph as a picture: SVG, drawn as in the paper.
//!
//! A column a member, time upwards. Of each round there is a band, since no event lies in a lower round than its
//! parents. Lines go from an event down to its parents: straight to its creator's, slanted to others'. Colours
//! tell fame; what a round has received is filled. The two or more events of a fork stand side by side, in red.
//!
//! Rules:
//!
//! - The picture depends on nothing but the view: no clock, no settings. The same view gives the same bytes.
//! - Each event is drawn once. What was made on events that the view does not show hangs on a broken line.
//! - Every text that came from somebody is escaped.
//!
//! Absent: scripts, fonts, links to anything outside the file.

mod layout;
mod svg;
#[cfg(test)]
mod tests;

pub(super) use svg::draw;

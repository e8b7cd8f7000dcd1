//! How a run stands, for who looks into a seed.

use std::fmt::Write;

use super::World;

impl World {
    /// A line for each life of each member, with what it has and what it waits for.
    pub fn show(&self) -> String {
        let mut text = String::new();
        for (who, member) in self.members.iter().enumerate() {
            for at in &member.lives {
                let (up, crashes, blocks) = (member.is_up, member.crashes, member.blocks.len());
                let (progress, pool, target) = (at.progress, &at.pool, at.target);
                let _ = writeln!(text, "{who} {:?} up {up} crashes {crashes} final {blocks}", member.lie);
                let _ =
                    writeln!(text, "    {progress:?} {pool:?} {target:?} entering {}", at.entering.is_some());
                let Some(part) = &at.part else { continue };
                let waits = (part.decided.len(), part.to_record.len(), part.void.len());
                let (rounds, gossip) = ((part.rounds, part.round, part.last_round), part.gossip.status());
                let _ = writeln!(text, "    epoch {} {rounds:?} waits {waits:?}", part.epoch.number);
                let _ = writeln!(text, "    members {:?} {gossip:?}", part.epoch.cells());
            }
        }
        text
    }

    /// What there is to say of a transaction.
    pub fn show_word(&self, word: crate::words::Word) -> String {
        let by = self.submitted.get(&word);
        let made =
            self.made.values().filter(|made| crate::words::numbers(&made.said.payload).any(|of| of == word));
        let made: Vec<_> = made.map(|made| (made.by, made.epoch, made.at_us, made.said.event.id)).collect();
        format!("{word} at {by:?} {made:?} {:?}", self.words.show(word))
    }
}

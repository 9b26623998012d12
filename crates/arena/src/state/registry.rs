//! Who may enter a competition by registration, and what entrants say of their entries.

use std::collections::BTreeSet;

use wire::NodeId;

use super::State;
use super::accept::{limit, not_now, require};
use super::competition::Competition;
use super::entry::{Entry, Role};
use crate::about::About;
use crate::limits;
use crate::record::EntryId;
use crate::refusal::Refusal;
use crate::spec::CompetitionId;

impl Competition {
    /// Whether a key may enter, as far as registration goes.
    pub fn may_enter(&self, key: NodeId) -> bool {
        !self.spec.submission.registered || self.registered.contains(&key)
    }

    pub(super) fn not_registered(&self, key: NodeId) -> Refusal {
        Refusal::NotRegistered { competition: self.spec.name.clone(), key, opener: self.opener }
    }
}

impl State {
    pub(super) fn check_register(
        &self,
        sender: NodeId,
        id: &CompetitionId,
        keys: &[NodeId],
        enter: bool,
    ) -> Result<(), Refusal> {
        let competition = self.running(id)?;
        self.check_in_charge(sender, competition)?;
        require(competition.spec.submission.registered, || {
            not_now(
                "every key may enter here: a spec with submission.registered = true asks for registration",
            )
        })?;
        limit("keys of one registration", keys.len() as u64, limits::REGISTER_KEYS_MAX as u64)?;
        require(!keys.is_empty(), || Refusal::Items { what: "no key".to_owned() })?;
        let others: BTreeSet<&NodeId> =
            keys.iter().filter(|key| competition.registered.contains(key) != enter).collect();
        require(!others.is_empty(), || Refusal::Repeated {
            what: if enter { "these keys are registered" } else { "none of these keys is registered" }
                .to_owned(),
        })?;
        let fresh = if enter { others.len() } else { 0 };
        let after = (competition.registered.len() + fresh) as u64;
        limit("registered keys", after, limits::REGISTERED_MAX as u64)
    }

    /// Entries that were made stay, whatever becomes of their key.
    pub(super) fn fold_register(&mut self, id: CompetitionId, keys: Vec<NodeId>, enter: bool) {
        let Some(competition) = self.competitions.get_mut(&id) else { return };
        for key in keys {
            if enter {
                competition.registered.insert(key);
            } else {
                competition.registered.remove(&key);
            }
        }
    }

    pub(super) fn check_describe(&self, sender: NodeId, id: EntryId, about: &About) -> Result<(), Refusal> {
        let own = |entry: &&Entry| entry.entrant == sender && entry.role == Role::Challenger;
        let entry = self.entry(id).filter(own).ok_or(Refusal::UnknownEntry { entry: id })?;
        let after = u64::from(entry.described) + 1;
        limit("descriptions of one entry", after, limits::DESCRIPTIONS_MAX.into())?;
        about.check()
    }

    pub(super) fn fold_describe(&mut self, id: EntryId, about: About) {
        if let Some(entry) = self.entry_mut(id) {
            entry.described += 1;
            entry.about = (!about.is_empty()).then(|| Box::new(about));
        }
    }

    /// What the maker of an entry says of it; of an automatic entry, what it says of the first one.
    pub fn about(&self, id: EntryId) -> Option<&About> {
        let entry = self.entry(id)?;
        let first = entry.origin.map_or(Some(entry), |origin| self.entry(origin))?;
        first.about.as_deref()
    }
}

//! Statements of those who open competitions and of those who enter them.

use std::collections::BTreeMap;

use ledger::fold::Unfit;
use wire::{Hash, NodeId};

use super::accept::{limit, not_now, require};
use super::competition::{Competition, Note, push_note};
use super::entry::{Code, Entry, EntryState, Role};
use super::{NonceState, Round, State};
use crate::limits;
use crate::record::{EntryId, PoolItem, RoundNumber, Step, entry_seal};
use crate::refusal::Refusal;
use crate::spec::{CompetitionId, CompetitionSpec, Fee, Form, Key, Source};

impl State {
    /// Whether a key may open competitions with a weight.
    pub fn is_owner(&self, key: NodeId) -> bool {
        self.spec.owners.contains(&Key(key))
    }

    /// A competition that is not over.
    pub(super) fn running(&self, id: &CompetitionId) -> Result<&Competition, Refusal> {
        let found = self.competitions.get(id).filter(|competition| competition.completed_at.is_none());
        found.ok_or(Refusal::UnknownCompetition { competition: *id })
    }

    /// A round that is at `step`.
    fn round_at_step(&self, id: &CompetitionId, number: RoundNumber, step: Step) -> Result<&Round, Refusal> {
        let round = self.running(id)?.live.get(&number);
        let found = round.map(|round| round.step);
        round.filter(|round| round.step == step).ok_or(Refusal::WrongStep { round: number, step: found })
    }

    pub(super) fn check_open(&self, sender: NodeId, text: &str) -> Result<CompetitionSpec, Refusal> {
        let spec =
            CompetitionSpec::parse(text).map_err(|error| Refusal::Spec { reason: error.to_string() })?;
        require(spec.canonical() == text, || Refusal::Spec {
            reason: "the spec is not in its canonical form: send what reading it gives".to_owned(),
        })?;
        let id = spec.id();
        require(!self.competitions.contains_key(&id), || Refusal::Exists { competition: id })?;
        limit("competitions", self.competitions.len() as u64 + 1, limits::COMPETITIONS_MAX as u64)?;
        let running = || self.competitions.values().filter(|other| other.completed_at.is_none());
        require(running().all(|other| other.spec.name != spec.name), || Refusal::NameTaken {
            name: spec.name.clone(),
        })?;
        let owner = self.is_owner(sender);
        let weight = u64::from(spec.reward.weight_ppm);
        let who = "an owner of the arena".to_owned();
        require(owner || (self.spec.open_to_all && weight == 0), || Refusal::NotAllowed { who })?;
        if !owner {
            let own = running().filter(|other| other.opener == sender).count() as u64;
            limit("open competitions of one key", own + 1, limits::OPEN_PER_KEY_MAX as u64)?;
        }
        let taken: u64 = running().map(|other| u64::from(other.spec.reward.weight_ppm)).sum();
        let left = 1_000_000 - taken;
        require(weight <= left, || Refusal::Weight { asked: weight, left })?;
        let rounds = spec.schedule.rounds;
        let over = rounds > 0 && spec.schedule.opens(rounds) <= self.tip.now();
        require(!over, || Refusal::Past)?;
        Ok(spec)
    }

    pub(super) fn fold_open(&mut self, sender: NodeId, text: &str) {
        let Ok(spec) = CompetitionSpec::parse(text) else { return };
        let competition = Competition::new(spec, sender, self.tip.now());
        self.competitions.insert(competition.id, competition);
    }

    /// The opener of a competition, or an owner of the arena.
    pub(super) fn check_in_charge(&self, sender: NodeId, competition: &Competition) -> Result<(), Refusal> {
        let who = "the opener of the competition, or an owner of the arena".to_owned();
        require(competition.opener == sender || self.is_owner(sender), || Refusal::NotAllowed { who })
    }

    pub(super) fn check_end(&self, sender: NodeId, id: &CompetitionId) -> Result<(), Refusal> {
        let competition = self.running(id)?;
        self.check_in_charge(sender, competition)?;
        require(!competition.ending, || Refusal::Repeated { what: "the end".to_owned() })
    }

    pub(super) fn fold_end(&mut self, id: CompetitionId) {
        if let Some(competition) = self.competitions.get_mut(&id) {
            competition.ending = true;
        }
    }

    pub(super) fn check_announce(
        &self,
        sender: NodeId,
        id: Option<&CompetitionId>,
        text: &str,
    ) -> Result<(), Refusal> {
        limit("bytes of the announcement", text.len() as u64, limits::TEXT_BYTES as u64)?;
        let plain = !text.trim().is_empty() && text.chars().all(|c| !c.is_control() || c == '\n');
        require(plain, || Unfit::Malformed { reason: "an announcement is text".to_owned() }.into())?;
        match id {
            Some(id) => self.check_in_charge(sender, self.running(id)?),
            None => require(self.is_owner(sender), || Refusal::NotAllowed {
                who: "an owner of the arena".to_owned(),
            }),
        }
    }

    pub(super) fn fold_announce(&mut self, from: NodeId, id: Option<CompetitionId>, text: String) {
        let note = Note { at: self.tip.now(), from, text };
        match id {
            None => push_note(&mut self.notes, note),
            Some(id) => {
                if let Some(competition) = self.competitions.get_mut(&id) {
                    competition.note(note);
                }
            }
        }
    }

    pub(super) fn check_submit(
        &self,
        sender: NodeId,
        id: &CompetitionId,
        (seal, form): (&Hash, Form),
        parents: &[EntryId],
        receipt: Option<&Hash>,
    ) -> Result<(), Refusal> {
        let competition = self.running(id)?;
        require(competition.may_enter(sender), || competition.not_registered(sender))?;
        let opens = competition.next_opens(self.tip.now());
        let round = competition.open_round().ok_or(Refusal::NotOpen { opens })?;
        let rules = &competition.spec.submission;
        require(rules.forms.contains(&form), || Refusal::Form { form })?;
        let sealed_before = self.seals.contains_key(seal);
        require(!sealed_before, || Refusal::Repeated { what: "this seal".to_owned() })?;
        limit("entries of the round", round.entries.len() as u64 + 1, rules.entries_max.into())?;
        limit("entries of the arena", self.entries.len() as u64 + 1, limits::ENTRIES_MAX as u64)?;
        let own = self.own_in_round(sender, id, round).count() as u64;
        limit("entries of one key in the round", own + 1, rules.per_round_max.into())?;
        let rate = self.rate_status(sender, self.tip.now());
        if rate.left == 0 {
            return Err(Refusal::RateLimit { limit: rate.limit, free_at: rate.next_free_at });
        }
        limit("parents", parents.len() as u64, limits::PARENTS_MAX as u64)?;
        for (index, parent) in parents.iter().enumerate() {
            let known = self.entry(*parent).filter(|entry| entry.scoring().is_some());
            let fresh = !parents[..index].contains(parent);
            require(known.is_some() && fresh, || Refusal::UnknownEntry { entry: *parent })?;
        }
        self.check_fee(sender, &competition.spec.fee, receipt)
    }

    fn check_fee(&self, sender: NodeId, fee: &Fee, receipt: Option<&Hash>) -> Result<(), Refusal> {
        let amount = fee.amount;
        let refuse =
            |what: &str| Err(Refusal::Fee { amount, what: what.to_owned(), pay_to: fee.pay_to.clone() });
        let Some(receipt) = receipt else {
            return if amount == 0 { Ok(()) } else { refuse("no receipt given") };
        };
        match self.receipts.get(receipt) {
            None => refuse("the receipt is not known (yet)"),
            Some(paid) if paid.payer != sender => refuse("the receipt is another key's"),
            Some(paid) if paid.used_by.is_some() => refuse("the receipt is used"),
            Some(paid) if paid.amount < amount => refuse("the payment is too small"),
            Some(_) => Ok(()),
        }
    }

    /// A key's entries of an open round, newest first. Costs as much as the key has entries since the round opened,
    /// however many others there are.
    fn own_in_round<'a>(
        &'a self,
        key: NodeId,
        id: &'a CompetitionId,
        round: &'a Round,
    ) -> impl Iterator<Item = EntryId> + 'a {
        let made = self.entrants.get(&key).map_or(&[][..], |entrant| &entrant.entries);
        let entries = made.iter().rev().filter_map(|entry| self.entry(*entry));
        entries
            .take_while(|entry| entry.submitted_at >= round.opened_at)
            .filter(move |entry| entry.competition == *id && entry.round == round.number)
            .map(|entry| entry.id)
    }

    pub(super) fn fold_submit(
        &mut self,
        sender: NodeId,
        id: CompetitionId,
        (seal, form): (Hash, Form),
        parents: Vec<EntryId>,
        receipt: Option<Hash>,
    ) {
        let entry = self.next_entry();
        let older: Vec<EntryId> = match self.competitions.get(&id) {
            Some(found) if found.spec.submission.latest_only => found
                .open_round()
                .map_or_else(Vec::new, |round| self.own_in_round(sender, &id, round).collect()),
            _ => Vec::new(),
        };
        let Some(competition) = self.competitions.get_mut(&id) else { return };
        let Some(round) = competition.live.values_mut().find(|round| round.is_open()) else { return };
        let version = competition.versions.entry(sender).or_default();
        *version += 1;
        competition.submissions += 1;
        round.entries.push(entry);
        let made = Entry {
            id: entry,
            competition: id,
            round: round.number,
            entrant: sender,
            version: *version,
            role: Role::Challenger,
            origin: None,
            form,
            seal,
            submitted_at: self.tip.now(),
            code: None,
            parents,
            receipt,
            state: EntryState::Sealed,
            settled_at: None,
            reveal_at: None,
            rank: None,
            echo_of: None,
            about: None,
            described: 0,
        };
        self.entries.push(made);
        self.seals.insert(seal, entry);
        if let Some(paid) = receipt.and_then(|receipt| self.receipts.get_mut(&receipt)) {
            paid.used_by = Some(entry);
        }
        for old in older {
            if let Some(old) = self.entry_mut(old) {
                old.state = EntryState::Replaced;
            }
        }
        let window = self.spec.rate_window();
        let floor = self.tip.now();
        let entrant = self.entrants.entry(sender).or_default();
        entrant.entries.push(entry);
        entrant.recent.retain(|(at, _)| at.plus(window) > floor);
        entrant.recent.push_back((self.tip.now(), entry));
    }

    pub(super) fn check_unseal(
        &self,
        sender: NodeId,
        id: EntryId,
        code: &Hash,
        bytes: u64,
        salt: &Hash,
    ) -> Result<(), Refusal> {
        // The host may open what an entrant entrusted to it: whoever knows the salt can only open what was sealed.
        let may = |entry: &&Entry| entry.entrant == sender || sender == self.host();
        let entry = self.entry(id).filter(|entry| entry.role == Role::Challenger).filter(may);
        let entry = entry.ok_or(Refusal::UnknownEntry { entry: id })?;
        self.round_at_step(&entry.competition, entry.round, Step::Opening)?;
        require(entry.state == EntryState::Sealed, || Refusal::Repeated { what: "this entry".to_owned() })?;
        let competition = self.running(&entry.competition)?;
        limit("bytes of the code", bytes, competition.spec.submission.bytes_max)?;
        let seal = entry_seal(&entry.competition, &entry.entrant, entry.form, code, bytes, salt);
        require(seal == entry.seal, || Refusal::WrongOpening { what: format!("entry {id}") })
    }

    pub(super) fn fold_unseal(&mut self, id: EntryId, hash: Hash, bytes: u64, salt: Hash) {
        let Some(entry) = self.entry_mut(id) else { return };
        entry.code = Some(Code { hash, bytes, salt });
        entry.state = EntryState::Opened;
        let (competition, round) = (entry.competition, entry.round);
        if let Some(round) = self.round_mut(competition, round) {
            round.unopened.remove(&id);
        }
    }

    pub(super) fn check_nonce(
        &self,
        sender: NodeId,
        id: &CompetitionId,
        number: RoundNumber,
        commitment: &Hash,
    ) -> Result<(), Refusal> {
        require(self.is_judge(sender), || Refusal::NotJudge)?;
        let round = self.running(id)?.live.get(&number);
        let step = round.map(|round| round.step);
        let round = round.filter(|round| round.step <= Step::Pooling);
        let round = round.ok_or(Refusal::WrongStep { round: number, step })?;
        let said = round.nonces.values().any(|nonce| nonce.commitment == *commitment)
            || round.nonces.contains_key(&sender);
        require(!said, || Refusal::Repeated { what: "a nonce for this round".to_owned() })
    }

    pub(super) fn fold_nonce(
        &mut self,
        sender: NodeId,
        id: CompetitionId,
        number: RoundNumber,
        commitment: Hash,
    ) {
        if let Some(round) = self.round_mut(id, number) {
            round.nonces.insert(sender, NonceState { commitment, opened: None });
        }
    }

    pub(super) fn check_open_nonce(
        &self,
        sender: NodeId,
        id: &CompetitionId,
        number: RoundNumber,
        nonce: &Hash,
    ) -> Result<(), Refusal> {
        let round = self.round_at_step(id, number, Step::Drawing)?;
        let bound = round.nonces.get(&sender).ok_or(Refusal::NotJudge)?;
        require(bound.opened.is_none(), || Refusal::Repeated { what: "this nonce".to_owned() })?;
        let opens = ledger::beacon::opens(&bound.commitment, nonce);
        require(opens, || Refusal::WrongOpening { what: "the nonce".to_owned() })
    }

    pub(super) fn fold_open_nonce(
        &mut self,
        sender: NodeId,
        id: CompetitionId,
        number: RoundNumber,
        nonce: Hash,
    ) {
        let round = self.round_mut(id, number);
        if let Some(bound) = round.and_then(|round| round.nonces.get_mut(&sender)) {
            bound.opened = Some(nonce);
        }
    }

    /// Whether a key may name these items as the pool of a round.
    ///
    /// # Errors
    /// Why it may not.
    pub fn may_pool(
        &self,
        sender: NodeId,
        id: &CompetitionId,
        number: RoundNumber,
        items: &[PoolItem],
    ) -> Result<(), Refusal> {
        let round = self.round_at_step(id, number, Step::Pooling)?;
        let competition = self.running(id)?;
        self.check_in_charge(sender, competition)?;
        require(round.pool.is_empty(), || Refusal::Repeated { what: "the pool".to_owned() })?;
        require(competition.spec.inputs.source == Source::Pool, || not_now("no pool here"))?;
        limit("items of the pool", items.len() as u64, limits::POOL_ITEMS_MAX as u64)?;
        let ascending = items.windows(2).all(|pair| pair[0].hash < pair[1].hash);
        require(ascending, || Refusal::Items { what: "not ascending by hash".to_owned() })?;
        if let Some(item) = items.iter().find(|item| competition.used.contains(&item.hash)) {
            return Err(Refusal::UsedItem { item: item.hash });
        }
        let inputs = &competition.spec.inputs;
        let mut given: BTreeMap<NodeId, usize> = BTreeMap::new();
        for item in items {
            *given.entry(item.operator).or_default() += 1;
        }
        let usable: usize = given.values().map(|count| (*count).min(inputs.per_operator_max())).sum();
        require(usable >= inputs.items as usize, || Refusal::Items {
            what: format!("{usable} items can be drawn, {} are needed", inputs.items),
        })
    }

    pub(super) fn fold_pool(&mut self, id: CompetitionId, number: RoundNumber, items: Vec<PoolItem>) {
        if let Some(round) = self.round_mut(id, number) {
            round.pool = items;
        }
    }

    pub(super) fn round_mut(&mut self, id: CompetitionId, number: RoundNumber) -> Option<&mut Round> {
        self.competitions.get_mut(&id)?.live.get_mut(&number)
    }

    /// Takes an entry out of its maker's rate limit and frees its payment.
    pub(super) fn refund(&mut self, id: EntryId) {
        let Some(entry) = self.entry(id) else { return };
        let (entrant, receipt) = (entry.entrant, entry.receipt);
        if let Some(entrant) = self.entrants.get_mut(&entrant) {
            entrant.recent.retain(|(_, entry)| *entry != id);
        }
        self.free_receipt(receipt);
    }

    pub(super) fn free_receipt(&mut self, receipt: Option<Hash>) {
        if let Some(paid) = receipt.and_then(|receipt| self.receipts.get_mut(&receipt)) {
            paid.used_by = None;
        }
    }

    /// A payment.
    pub fn receipt(&self, receipt: &Hash) -> Option<&super::Receipt> {
        self.receipts.get(receipt)
    }

    /// Unused payments of a key: what a client offers for its next entry.
    pub fn unused_receipts(&self, payer: NodeId) -> impl Iterator<Item = (&Hash, &super::Receipt)> {
        self.receipts.iter().filter(move |(_, paid)| paid.payer == payer && paid.used_by.is_none())
    }
}

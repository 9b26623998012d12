//! Getting ready for pinned components: fetched by hash, compiled, tried on the golden tensors, stated.

use std::collections::BTreeSet;
use std::sync::Arc;

use codec::DType;
use net::Link;
use store::Blobs;
use swarm::record::{CodecPin, Statement};
use swarm::state::Node;
use tokio_util::sync::CancellationToken;
use wire::{Hash, NodeId, RunId};

use super::{Champions, PinError};
use crate::backoff::Backoff;
use crate::fetch;
use crate::follow::Log;
use crate::limits;
use crate::speak::Speaker;
use crate::spec::LossySpec;

/// Follows the log for components to be ready for.
pub(crate) struct Ready {
    pub(crate) champions: Arc<Champions>,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) orchestrator: NodeId,
    pub(crate) run: RunId,
    pub(crate) log: Log,
    pub(crate) speaker: Speaker,
    /// Type of the numbers on the run's wire; none: packed ones.
    pub(crate) numbers: Option<DType>,
    /// What the run's spec allows a lossy component.
    pub(crate) lossy: LossySpec,
    /// Why this node has no room for any component, if so.
    pub(crate) no_room: Option<String>,
}

/// What is to be done now.
enum Next {
    Load(CodecPin),
    Say(Hash),
    Unfit(Hash, String),
    Wait,
}

impl Ready {
    /// Until `stop`, or until the log ends.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(mut self) {
        let me = self.link.id();
        let mut backoff = Backoff::new(me);
        // What cannot be run, and of those what was said in this node's present life.
        let mut unfit: Vec<(Hash, String)> = Vec::new();
        let mut said: BTreeSet<Hash> = BTreeSet::new();
        loop {
            let champions = Arc::clone(&self.champions);
            let next = self.log.read_new(|view| {
                let codecs = view.state.codecs();
                let node = view.state.node(&me);
                let present = node.is_some_and(Node::present);
                for pin in codecs.wanted() {
                    let known = unfit.iter().find(|(component, _)| *component == pin.component);
                    if let Some((component, reason)) = known {
                        if present && !said.contains(component) {
                            return Next::Unfit(*component, reason.clone());
                        }
                    } else if champions.get(&pin.component).is_none() {
                        return Next::Load(pin.clone());
                    } else if node.is_some_and(|node| node.present() && !node.codecs.contains(&pin.component))
                    {
                        return Next::Say(pin.component);
                    }
                }
                Next::Wait
            });
            match next {
                Next::Load(pin) => match self.load(&pin).await {
                    Ok(()) => backoff.reset(),
                    Err(Missed::Unfit(reason)) => {
                        tracing::warn!(component = %pin.component.short(), reason, "a pinned codec cannot be used here");
                        unfit.push((pin.component, reason));
                    }
                    Err(Missed::NotYet(reason)) => {
                        tracing::debug!(reason, "a pinned codec is not here yet");
                        tokio::time::sleep(backoff.pause()).await;
                    }
                },
                Next::Say(component) => {
                    if !self.say(Statement::CodecReady { component }).await
                        && self.log.changed().await.is_err()
                    {
                        return;
                    }
                }
                Next::Unfit(component, reason) => {
                    said.insert(component);
                    let reason = reason.chars().take(swarm::limits::NAME_BYTES / 4).collect();
                    self.say(Statement::CodecUnfit { component, reason }).await;
                }
                Next::Wait => {
                    if self.log.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// States something and waits until this node's own view has it; false if it was refused.
    async fn say(&mut self, statement: Statement) -> bool {
        match self.speaker.say(statement).await {
            Ok(crate::speak::Answer::Accepted(seq)) => {
                let seen =
                    self.log.until(limits::LONG_POLL, |view| (view.head.seq >= seq).then_some(())).await;
                seen.is_ok()
            }
            Ok(crate::speak::Answer::Refused(refusal)) => {
                tracing::debug!(%refusal, "a word on a codec was refused");
                false
            }
            Err(_) => false,
        }
    }

    async fn load(&self, pin: &CodecPin) -> Result<(), Missed> {
        let unfit = |error: PinError| Missed::Unfit(error.to_string());
        let numbers = self.numbers.ok_or(PinError::Packed).map_err(unfit)?;
        if let Some(reason) = &self.no_room {
            return Err(Missed::Unfit(reason.clone()));
        }
        let component = if let Ok(component) = self.blobs.get(pin.component).await {
            component
        } else {
            let most = u64::from(pin.bytes).min(sandbox::limits::COMPONENT_BYTES_MAX as u64);
            let (link, from) = (self.link.as_ref(), [self.orchestrator]);
            let fetched = fetch::fetch_blob(link, self.run, from, pin.component, most).await;
            let component = fetched.map_err(|error| Missed::NotYet(error.to_string()))?;
            // Without a copy on the disk it is fetched again after a restart.
            drop(self.blobs.put_at(pin.component, component.clone()).await);
            component
        };
        let (champions, pin, lossy) = (Arc::clone(&self.champions), pin.clone(), self.lossy);
        let load = move || champions.load(&pin, &component, numbers, &lossy);
        let loaded =
            tokio::task::spawn_blocking(load).await.map_err(|error| Missed::NotYet(error.to_string()))?;
        loaded.map_err(unfit)
    }
}

/// Why a component is not loaded.
enum Missed {
    /// For good.
    Unfit(String),
    /// It may come.
    NotYet(String),
}

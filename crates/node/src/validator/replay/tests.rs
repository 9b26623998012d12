//! Replays of what honest miners show, and of what differs from it in one thing.

use model::config::{Cut, Dtype};
use swarm::record::LossyBounds;
use wire::{Epoch, MicroBatch, Receipt, SignedFrame, SigningKey, StageIndex};

use super::*;
use crate::champion::tests::{sleeper_within, tensor};
use crate::miner::frames::tests::header;

const HEAD: usize = 0;
const MIDDLE: usize = 1;
const TAIL: usize = 2;

/// Three stages, and what honest miners make of one micro-batch.
struct Honest {
    bench: Bench,
    weights: Vec<Arc<Vec<f32>>>,
    tokens: Tokens,
    /// What crosses each cut, towards the tail and back.
    activations: [Message; 2],
    gradients: [Message; 2],
    loss: f32,
}

impl Honest {
    fn new() -> Self {
        let mut spec = RunSpec::preset("micro").expect("a preset");
        spec.cut = Cut::Plain { wire: Dtype::Bf16 };
        spec.set_stages(3).expect("enough blocks");
        let bench = Bench::new(&spec, 1).expect("stages");
        let weights: Vec<_> =
            spec.stage_specs().iter().map(|stage| Arc::new(stage.initial_weights())).collect();
        bench.load(&weights).expect("weights that fit");
        let vocab = spec.model.vocab as u32;
        let tokens: Vec<u32> = (0..=spec.model.sequence as u32).map(|at| at * 37 % vocab).collect();
        let tokens = Tokens { tokens: Arc::new(tokens), hash: Hash::of(b"tokens") };
        let mut stages = bench.stages();
        let (mut activations, mut gradients, mut loss) = (Vec::new(), Vec::new(), None);
        for stage in stages.iter_mut() {
            match stage.forward(0, &tokens.tokens, activations.last()).expect("a forward") {
                Output::Message(message) => activations.push(message),
                Output::Loss(found) => loss = Some(found),
            }
        }
        for stage in stages.iter_mut().rev() {
            gradients.extend(stage.backward(0, gradients.last(), false).expect("a backward"));
        }
        gradients.reverse();
        drop(stages);
        let activations = activations.try_into().expect("two cuts");
        let gradients = gradients.try_into().expect("two cuts");
        Self { bench, weights, tokens, activations, gradients, loss: loss.expect("a loss") }
    }

    /// An item of a stage, with what its miner shows.
    fn item(&self, stage: usize, direction: Direction) -> (Item, Evidence) {
        let item = Item {
            epoch: Epoch(0),
            node: header().from,
            stage: StageIndex(stage as u16),
            micro_batch: MicroBatch(0),
            direction,
            loss: (stage == TAIL).then_some(self.loss),
        };
        let before = stage.checked_sub(1);
        let after = Some(stage).filter(|cut| *cut < TAIL);
        let of = |tensors: &[Message; 2], cut: Option<usize>| cut.map(|cut| tensors[cut].clone());
        let backward = |cut: Option<usize>| cut.filter(|_| direction == Direction::Backward);
        let forward_in = of(&self.activations, before);
        let backward_in = of(&self.gradients, backward(after));
        let shown = |tensor: Option<Message>| tensor.map(|tensor| self.shown(&tensor));
        let opened = Opened {
            forward_in: shown(forward_in.clone()),
            forward_out: shown(of(&self.activations, after)),
            backward_in: shown(backward_in.clone()),
            backward_out: shown(of(&self.gradients, backward(before))),
        };
        (item, Evidence { forward_in, backward_in, opened })
    }

    fn shown(&self, tensor: &Message) -> OpenedFrame {
        let key = SigningKey::from_bytes(&[1; 32]);
        let header = FrameHeader {
            tensor_hash: tensor_hash(tensor),
            tokens_hash: self.tokens.hash,
            codec: "fast".to_owned(),
            ..header()
        };
        let frame = SignedFrame::sign(&key, header);
        OpenedFrame { receipt: Receipt::sign(&key, &frame), frame, len: 0 }
    }

    /// What a replay finds once `change` was made to an honest item.
    fn found(
        &self,
        (stage, direction): (usize, Direction),
        change: impl FnOnce(&mut Item, &mut Evidence),
    ) -> Option<Outcome> {
        let (mut item, mut evidence) = self.item(stage, direction);
        change(&mut item, &mut evidence);
        let outcome = self.bench.replay(&item, &evidence, &self.tokens, None);
        assert_eq!(self.bench.stages()[stage].open_graphs(), 0, "nothing is left behind");
        outcome
    }
}

/// Items that send or state something.
const ITEMS: [(usize, Direction); 5] = [
    (HEAD, Direction::Forward),
    (MIDDLE, Direction::Forward),
    (TAIL, Direction::Forward),
    (MIDDLE, Direction::Backward),
    (TAIL, Direction::Backward),
];

/// With its very last bit changed.
fn flipped(message: &Message) -> Message {
    let mut message = message.clone();
    *message.bytes.last_mut().expect("bytes") ^= 1;
    message
}

/// With another sign of every number.
fn negated(message: &Message) -> Message {
    let mut message = message.clone();
    message.bytes.iter_mut().skip(1).step_by(2).for_each(|high| *high ^= 0x80);
    message
}

#[test]
fn honest_items_pass() {
    let honest = Honest::new();
    for which in ITEMS {
        assert_eq!(honest.found(which, |_, _| {}), Some(Outcome::Pass), "{which:?}");
    }
    assert_eq!(honest.found((HEAD, Direction::Backward), |_, _| {}), None, "it sends nothing");
}

#[test]
fn one_bit_of_an_output_a_gradient_or_a_loss_fails() {
    let honest = Honest::new();
    for cut in [HEAD, MIDDLE] {
        let other = honest.shown(&flipped(&honest.activations[cut]));
        let found =
            honest.found((cut, Direction::Forward), |_, evidence| evidence.opened.forward_out = Some(other));
        assert_eq!(found, Some(Outcome::Fail), "output of stage {cut}");
        let stage = cut + 1;
        let other = honest.shown(&flipped(&honest.gradients[cut]));
        let found = honest.found((stage, Direction::Backward), |_, evidence| {
            evidence.opened.backward_out = Some(other);
        });
        assert_eq!(found, Some(Outcome::Fail), "gradient of stage {stage}");
    }
    for loss in [None, Some(honest.loss.next_up()), Some(honest.loss.next_down()), Some(f32::NAN)] {
        let found = honest.found((TAIL, Direction::Forward), |item, _| item.loss = loss);
        assert_eq!(found, Some(Outcome::Fail), "{loss:?} for {}", honest.loss);
    }
}

#[test]
fn outputs_of_other_inputs_or_weights_fail() {
    let honest = Honest::new();
    let other = negated(&honest.activations[0]);
    let found = honest.found((MIDDLE, Direction::Forward), |_, evidence| evidence.forward_in = Some(other));
    assert_eq!(found, Some(Outcome::Fail), "another activation came in");
    let other = negated(&honest.gradients[1]);
    let found = honest.found((MIDDLE, Direction::Backward), |_, evidence| evidence.backward_in = Some(other));
    assert_eq!(found, Some(Outcome::Fail), "another gradient came in");

    let weights: Vec<_> = honest
        .weights
        .iter()
        .map(|weights| Arc::new(weights.iter().map(|weight| weight * 1.01).collect::<Vec<f32>>()))
        .collect();
    honest.bench.load(&weights).expect("weights that fit");
    for which in ITEMS {
        assert_eq!(honest.found(which, |_, _| {}), Some(Outcome::Fail), "{which:?}");
    }
}

#[test]
fn every_frame_of_an_item_names_its_tokens() {
    let honest = Honest::new();
    let frames: [fn(&mut Opened) -> &mut Option<OpenedFrame>; 4] = [
        |opened| &mut opened.forward_in,
        |opened| &mut opened.forward_out,
        |opened| &mut opened.backward_in,
        |opened| &mut opened.backward_out,
    ];
    for (at, frame) in frames.into_iter().enumerate() {
        let found = honest.found((MIDDLE, Direction::Backward), |_, evidence| {
            let shown = frame(&mut evidence.opened).as_mut().expect("a middle stage has all four");
            shown.frame.header.tokens_hash = Hash::of(b"other tokens");
        });
        assert_eq!(found, Some(Outcome::Fail), "frame {at}");
    }
}

#[test]
fn what_is_not_shown_or_does_not_fit_is_not_opened() {
    let honest = Honest::new();
    let (forward, backward) = ((MIDDLE, Direction::Forward), (MIDDLE, Direction::Backward));
    let none = Message { bytes: Vec::new(), ..honest.activations[0].clone() };
    let found = [
        honest.found(forward, |_, evidence| evidence.opened.forward_out = None),
        honest.found(backward, |_, evidence| evidence.opened.backward_out = None),
        honest.found(forward, |_, evidence| evidence.forward_in = None),
        honest.found(backward, |_, evidence| evidence.backward_in = None),
        honest.found(forward, |_, evidence| evidence.forward_in = Some(none)),
    ];
    assert_eq!(found, [Some(Outcome::NotOpened); 5]);
}

#[test]
fn a_lossy_frame_holds_what_the_component_makes_and_nothing_else() {
    let bounds = LossyBounds { similarity_ppm: 990_000, norm_ppm: 5_000, element_ppm: 100_000 };
    let champion = sleeper_within('T', 1, Some(bounds));
    let message = tensor(1);
    let carried = champion.encode(Direction::Forward, &message, false).expect("within its bounds");
    let back = carried.lossy.expect("what comes back");
    assert_ne!(back, message);
    let honest = FrameHeader {
        codec: champion.name().to_owned(),
        enc_hash: Hash::of(&carried.payload),
        tensor_hash: tensor_hash(&back),
        ..header()
    };
    let built_in = FrameHeader { codec: "fast".to_owned(), tensor_hash: tensor_hash(&message), ..header() };
    for good in [&honest, &built_in] {
        assert_eq!(sent(&message, good, Some(&champion)), Some(true));
    }
    let steered = FrameHeader { tensor_hash: tensor_hash(&tensor(2)), ..honest.clone() };
    let repacked = FrameHeader { enc_hash: Hash::of(b"other bytes"), ..honest.clone() };
    let misnamed = FrameHeader { codec: "fast".to_owned(), ..honest.clone() };
    for bad in [&steered, &repacked, &misnamed] {
        assert_eq!(sent(&message, bad, Some(&champion)), Some(false));
    }
    assert_eq!(sent(&message, &honest, None), Some(false), "where no lossy codec may carry it");
    // Out of its bounds the component may not be used at all.
    let strict = sleeper_within('T', 1, Some(LossyBounds { similarity_ppm: 999_999, ..bounds }));
    assert_eq!(sent(&message, &honest, Some(&strict)), Some(false));
    assert_eq!(sent(&message, &built_in, Some(&strict)), Some(true));
}

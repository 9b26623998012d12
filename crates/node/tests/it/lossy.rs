//! Lossy champions in real runs: in the shadow first, then at work; those that bias tensors never leave the shadow.

use shoal_node::champion::PinError;
use shoal_node::spec::{RunSpec, TensorCodec};
use swarm::record::{CodecEffect, Outcome, Statement};

use super::champion::{Given, component, found, plain, sleeper, train_with};

const EPOCHS: u32 = 16;
/// Enough for some to be drawn in every epoch.
const MICRO_BATCHES: u32 = 72;

fn watched(spec: &mut RunSpec) {
    plain(spec, EPOCHS, TensorCodec::Raw);
    spec.phases.validators_min = 1;
    spec.batch.micro_batches_per_epoch = MICRO_BATCHES;
    // Most work is of an epoch's first step: only that is replayed.
    spec.inner.steps = 2;
    spec.audit.rate = 0.2;
}

fn effects(given: &Given) -> Vec<CodecEffect> {
    let effect = |said: &Statement| match said {
        Statement::CodecEffect(effect) => Some(*effect),
        _ => None,
    };
    given.said.iter().filter_map(|(_, said)| effect(said)).collect()
}

/// Replays that gave the same bits, and others. What came too late to be opened is neither.
fn replays(given: &Given) -> (usize, usize) {
    let count = |wanted: Outcome| {
        let verdict =
            |said: &Statement| matches!(said, Statement::Verdict(verdict) if verdict.outcome == wanted);
        given.said.iter().filter(|(_, said)| verdict(said)).count()
    };
    (count(Outcome::Pass), count(Outcome::Fail))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_codec_works_in_the_shadow_and_then_carries_every_activation() {
    let before = train_with(None, watched).await;
    let given = train_with(Some(component("uniform-99")), watched).await;
    let [effect] = effects(&given)[..] else { panic!("one word of one validator: {:?}", given.news) };
    println!("{effect:?}");
    assert!(effect.is_harmless() && effect.micro_batches >= 16);
    let (shadow, _) = given.news("shadow").expect("it begins in the shadow");
    let in_force = given.in_force();
    assert!(shadow < in_force && given.news("off").is_none(), "{:?}", given.news);
    assert_eq!(given.faults, 0);
    for champion in &given.champions {
        assert_eq!(champion.shadow, champion.epoch < in_force, "{champion:?}");
        assert_eq!(champion.fallbacks, 0, "{champion:?}");
        // One tensor of each micro-batch: gradients go as they went before.
        let tensors = champion.tensors as u32;
        assert!(
            if champion.shadow { tensors < MICRO_BATCHES / 3 } else { tensors == MICRO_BATCHES },
            "{champion:?}"
        );
        assert!(champion.bytes * 10 < champion.raw_bytes * 7, "{champion:?}");
    }
    assert!(
        given.champions.iter().any(|champion| champion.shadow && champion.tensors > 0),
        "{:?}",
        given.champions
    );
    assert_eq!(given.champions.last().map(|champion| champion.epoch), Some(EPOCHS - 1));
    // Validators compute what comes back, to the bit.
    let (same, other) = replays(&given);
    assert!(same > 20 && other == 0, "{same} of the same bits, {other} of others");
    assert!(given.summary.activation_bytes < before.summary.activation_bytes);
    let (last, honest) =
        (given.summary.loss_last.expect("a loss"), before.summary.loss_last.expect("a loss"));
    assert!((last / honest - 1.0).abs() < 0.01, "{last} and {honest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_codec_that_makes_tensors_shorter_never_leaves_the_shadow() {
    let given = train_with(Some(sleeper('T', 1)), watched).await;
    let [effect] = effects(&given)[..] else { panic!("one word of one validator: {:?}", given.news) };
    println!("{effect:?}");
    assert!((-5_000_000..-1_000_000).contains(&effect.bias.mean_ppb), "{effect:?}");
    // What gradients foretell is what happens.
    let (foretold, found) = (effect.slope.mean_ppb, effect.loss.mean_ppb);
    assert!(foretold.abs_diff(found) * 5 < found.unsigned_abs(), "{effect:?}");
    let (_, why) = given.news("off").expect("it is taken away");
    assert!(why.contains("cannot exclude"), "{why}");
    assert!(given.news("in_force").is_none(), "{:?}", given.news);
    assert!(given.champions.iter().all(|champion| champion.shadow), "{:?}", given.champions);
    assert_eq!(replays(&given).1, 0, "its senders did what they should");
}

#[test]
fn what_a_lossy_codec_may_do_is_the_spec_s() {
    let mut spec = RunSpec::preset("micro").unwrap();
    plain(&mut spec, 1, TensorCodec::Fast);
    let lossy = component("uniform-99");
    let pin = found(&lossy, &spec).expect("a codec");
    assert!(pin.activations && !pin.gradients);
    let bounds = pin.lossy.expect("bounds");
    assert_eq!((bounds.similarity_ppm, bounds.norm_ppm, bounds.element_ppm), (990_000, 5_000, 100_000));
    assert!(found(&component("huffman"), &spec).expect("a codec").lossy.is_none());

    spec.codec.lossy.similarity = 0.999;
    assert!(matches!(found(&lossy, &spec), Err(PinError::Beyond { .. })));
    spec.codec.lossy.similarity = 0.99;
    spec.codec.lossy.gradients = true;
    let both = found(&lossy, &spec).expect("a codec");
    assert!(both.activations && both.gradients);
    spec.codec.lossy.gradients = false;
    spec.codec.gradients = "arena:x".to_owned().try_into().unwrap();
    let refused = found(&lossy, &spec).unwrap_err().to_string();
    assert!(refused.contains("carry gradients") && refused.contains("[codec.lossy]"), "{refused}");
    spec.codec.lossy.activations = false;
    spec.codec.gradients = TensorCodec::Fast.into();
    assert!(matches!(found(&lossy, &spec), Err(PinError::Lossy { asked: "activations", .. })));
}

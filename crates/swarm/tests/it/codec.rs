//! Champions: pinned, ready, in force, measured, off (protocol §7 "Production", "Swap").

use shoal_swarm::record::{
    CodecCounts, CodecEffect, CodecFault, CodecPin, Control, Derived, Effect, Input, LossyBounds, OffCause,
    Record, Statement,
};
use shoal_swarm::refusal::Refusal;
use shoal_swarm::state::{CodecNews, Phase, Signatures};
use wire::{Direction, Epoch, Hash, MicroBatch, NodeId, StageIndex};

use super::world::{World, spec};

const COMPONENT: &[u8] = b"component";

fn component() -> Hash {
    Hash::of(COMPONENT)
}

fn pin(from: Epoch) -> CodecPin {
    CodecPin {
        component: component(),
        bytes: COMPONENT.len() as u32,
        wasmtime: "48".to_owned(),
        settings: Hash::of(b"settings"),
        golden: Hash::of(b"golden"),
        source: "a file".to_owned(),
        activations: true,
        gradients: true,
        lossy: None,
        from,
    }
}

fn lossy(from: Epoch) -> CodecPin {
    let bounds = LossyBounds { similarity_ppm: 990_000, norm_ppm: 5_000, element_ppm: 100_000 };
    CodecPin { gradients: false, lossy: Some(bounds), ..pin(from) }
}

fn control(world: &mut World, control: Control) -> Result<(), Refusal> {
    world.commit(vec![Input::Control(control)]).outcomes.remove(0)
}

fn say(world: &mut World, id: &NodeId, statement: &Statement) -> Result<(), Refusal> {
    let input = world.sign(id, statement);
    world.commit(vec![input]).outcomes.remove(0)
}

/// Ticks until `done`; whoever is `able` gets ready for what is pinned.
fn until(world: &mut World, able: impl Fn(&NodeId) -> bool, done: impl Fn(&World) -> bool) {
    while !done(world) {
        assert!(world.tick_until_over(), "the run is over: {:?}", world.state.codecs());
        let Some(component) = world.state.codecs().wanted().last().map(|pin| pin.component) else { continue };
        for id in world.living() {
            let node = world.state.node(&id);
            if able(&id) && node.is_some_and(|node| node.present() && !node.codecs.contains(&component)) {
                say(world, &id, &Statement::CodecReady { component }).unwrap();
            }
        }
    }
}

fn training(world: &World, epoch: u32) -> bool {
    world.state.phase() == Phase::Training { epoch: Epoch(epoch) }
}

fn everyone(_: &NodeId) -> bool {
    true
}

/// A run whose codec is in force from epoch 2 on.
fn in_force() -> World {
    in_force_with(World::new(&spec(2, 8, 24), 4, 5), pin(Epoch(2)))
}

fn in_force_with(mut world: World, pin: CodecPin) -> World {
    until(&mut world, everyone, |world| training(world, 0));
    assert_eq!(world.state.codec_from(), Epoch(2));
    let shadow = pin.lossy.is_some();
    control(&mut world, Control::CodecPinned(pin)).unwrap();
    until(&mut world, everyone, |world| training(world, 2));
    let active = world.state.codecs().active().expect("in force");
    assert_eq!((active.pin.component, active.since, active.shadow), (component(), Epoch(2), shadow));
    world
}

/// A run whose lossy codec is in its shadow from epoch 2 on, and its validator.
fn in_shadow(epochs: u32) -> (World, NodeId) {
    let mut world = World::new(&spec(2, epochs, 24), 4, 5);
    let validator = world.add_validator(50);
    (in_force_with(world, lossy(Epoch(2))), validator)
}

/// Means, 10⁻⁹, with small errors.
fn effect(loss: i64, bias: i64, slope: i64) -> CodecEffect {
    let [loss, bias, slope] = [loss, bias, slope].map(|mean_ppb| Effect { mean_ppb, error_ppb: 1_000 });
    CodecEffect { component: component(), micro_batches: 16, loss, bias, slope }
}

fn news(world: &World) -> Vec<(Epoch, CodecNews)> {
    world.state.codecs().events().map(|(_, event)| (event.epoch, event.news.clone())).collect()
}

fn counts(tensors: u64, fallbacks: u64) -> CodecCounts {
    CodecCounts {
        tensors,
        fallbacks,
        raw_bytes: 1000 * tensors,
        bytes: 600 * tensors,
        time_us: 50 * tensors,
        ..CodecCounts::default()
    }
}

fn work(world: &World, counts: CodecCounts) -> Statement {
    Statement::CodecWork { epoch: world.state.epoch(), component: component(), counts }
}

fn fault(world: &World) -> CodecFault {
    let (micro_batch, _) = world.state.paths().first_key_value().expect("micro-batches");
    CodecFault {
        epoch: world.state.epoch(),
        component: component(),
        micro_batch: *micro_batch,
        direction: Direction::Forward,
        tensor: Hash::of(b"tensor"),
        encoded: Hash::of(b"encoded"),
        decoded: Some(Hash::of(b"another")),
        frame: None,
    }
}

fn off(world: &World) -> Option<(Epoch, OffCause)> {
    let records = world.log.iter().flat_map(|(_, records)| records);
    records.into_iter().find_map(|record| match record {
        Record::Derived(Derived::CodecOff { epoch, cause, .. }) => Some((*epoch, *cause)),
        _ => None,
    })
}

#[test]
fn a_codec_is_pinned_a_whole_epoch_before_it_is_used() {
    let mut world = World::new(&spec(2, 6, 24), 4, 1);
    assert_eq!(world.state.codec_from(), Epoch(1), "before the first epoch there is nothing to wait out");
    until(&mut world, everyone, |world| training(world, 1));
    let early = control(&mut world, Control::CodecPinned(pin(Epoch(2))));
    assert_eq!(early, Err(Refusal::WrongEpoch { theirs: Epoch(2), ours: Epoch(3) }));
    let id = world.living()[0];
    let ready = Statement::CodecReady { component: component() };
    assert!(matches!(say(&mut world, &id, &ready), Err(Refusal::NotNow { .. })), "nothing is pinned");
    control(&mut world, Control::CodecPinned(pin(Epoch(3)))).unwrap();
    let again = control(&mut world, Control::CodecPinned(pin(Epoch(3))));
    assert!(matches!(again, Err(Refusal::Repeated { .. })));
    until(&mut world, everyone, |world| training(world, 2));
    assert!(world.state.codecs().active().is_none());
    until(&mut world, everyone, |world| training(world, 3));
    assert!(world.state.codecs().active().is_some());
    world.verify(Signatures::Check);
}

#[test]
fn a_stage_without_enough_ready_nodes_keeps_the_old_codec() {
    let mut world = World::new(&spec(2, 6, 24), 4, 2);
    until(&mut world, everyone, |world| training(world, 0));
    control(&mut world, Control::CodecPinned(pin(Epoch(2)))).unwrap();
    let heads: Vec<NodeId> = world.state.members(StageIndex(0)).map(|member| member.node).collect();
    until(&mut world, |id| heads.contains(id), |world| training(world, 2));
    assert!(world.state.codecs().active().is_none());
    let news = |world: &World| {
        let (_, last) = world.state.codecs().events().last().unwrap();
        (last.epoch, last.news.clone())
    };
    assert_eq!(news(&world), (Epoch(2), CodecNews::Declined { given_up: false }));
    until(&mut world, everyone, |world| training(world, 3));
    assert_eq!(
        news(&world),
        (Epoch(3), CodecNews::Switched { shadow: false }),
        "the next opening tries again"
    );
    world.verify(Signatures::Check);
}

#[test]
fn a_codec_that_nobody_gets_ready_for_is_given_up() {
    let mut world = World::new(&spec(1, 20, 6), 2, 2);
    control(&mut world, Control::CodecPinned(pin(Epoch(1)))).unwrap();
    until(&mut world, |_| false, |world| training(world, 15));
    assert!(world.state.codecs().pending().is_some());
    until(&mut world, |_| false, |world| training(world, 16));
    assert!(world.state.codecs().pending().is_none());
    let (_, last) = world.state.codecs().events().last().unwrap();
    assert_eq!((last.epoch, &last.news), (Epoch(16), &CodecNews::Declined { given_up: true }));
    world.verify(Signatures::Check);
}

#[test]
fn counts_of_an_epoch_are_summed_and_stay_in_its_summary() {
    let mut world = in_force();
    let members: Vec<NodeId> = world.state.epoch_members().iter().map(|work| work.member.node).collect();
    for id in &members {
        let mut counts = counts(200, 1);
        (counts.sampled, counts.sampled_bytes, counts.previous_bytes) = (10, 6000, 9000);
        (counts.sampled_us, counts.previous_us) = (500, 100);
        let work = work(&world, counts);
        say(&mut world, id, &work).unwrap();
    }
    let mut other = counts(1, 0);
    let wrong = Statement::CodecWork { epoch: Epoch(2), component: Hash::of(b"other"), counts: other };
    assert!(matches!(say(&mut world, &members[0], &wrong), Err(Refusal::NotNow { .. })));
    other.fallbacks = 2;
    let wrong = work(&world, other);
    assert!(matches!(say(&mut world, &members[0], &wrong), Err(Refusal::Number { .. })));
    until(&mut world, everyone, |world| training(world, 3));
    let summary = world.state.summaries().back().unwrap().codec.expect("a champion's epoch");
    let count = members.len() as u64;
    assert_eq!((summary.component, summary.counts.tensors), (component(), 200 * count));
    assert_eq!(summary.counts.previous_bytes_of_all(), Some(summary.counts.bytes * 9000 / 6000));
    assert_eq!(summary.counts.previous_us_of_all(), Some(summary.counts.time_us / 5));
    assert!(world.state.codecs().active().is_some(), "0.5 % of fallbacks are borne");
    assert!(world.state.summaries().iter().take(2).all(|summary| summary.codec.is_none()));
    world.verify(Signatures::Check);
}

#[test]
fn more_than_one_percent_of_fallbacks_end_it_with_the_epoch() {
    let mut world = in_force();
    let id = world.state.epoch_members()[0].member.node;
    let work = work(&world, counts(200, 3));
    say(&mut world, &id, &work).unwrap();
    assert!(world.state.codecs().active().is_some());
    until(&mut world, everyone, |world| training(world, 3));
    assert!(world.state.codecs().active().is_none());
    assert_eq!(off(&world), Some((Epoch(3), OffCause::Fallbacks)));
    world.verify(Signatures::Check);
}

#[test]
fn a_codec_that_saves_nothing_goes() {
    let mut world = in_force();
    let id = world.state.epoch_members()[0].member.node;
    let mut counts = counts(200, 0);
    (counts.sampled, counts.sampled_bytes, counts.previous_bytes) = (12, 6000, 6000);
    let work = work(&world, counts);
    say(&mut world, &id, &work).unwrap();
    until(&mut world, everyone, |world| training(world, 3));
    assert_eq!(off(&world), Some((Epoch(3), OffCause::NoBetter)));
}

#[test]
fn one_fault_ends_it_at_once_and_its_accuser_stands_in_the_log() {
    let mut world = in_force();
    let id = world.state.epoch_members()[0].member.node;
    let fault = fault(&world);
    let none = CodecFault { decoded: Some(fault.tensor), ..fault.clone() };
    assert!(matches!(say(&mut world, &id, &Statement::CodecFault(none)), Err(Refusal::Number { .. })));
    let stranger = CodecFault { component: Hash::of(b"other"), ..fault.clone() };
    assert!(matches!(say(&mut world, &id, &Statement::CodecFault(stranger)), Err(Refusal::NotNow { .. })));
    assert!(world.state.codecs().active().is_some());
    say(&mut world, &id, &Statement::CodecFault(fault.clone())).unwrap();
    assert!(world.state.codecs().active().is_none(), "within the epoch");
    assert_eq!(off(&world), Some((Epoch(2), OffCause::Fault)));
    let (_, last) = world.state.codecs().events().last().unwrap();
    assert_eq!(last.news, CodecNews::Off { cause: OffCause::Fault, by: Some(id) });
    // What it did before still counts, and a second accusation comes too late.
    let work = work(&world, counts(5, 1));
    say(&mut world, &id, &work).unwrap();
    assert!(matches!(say(&mut world, &id, &Statement::CodecFault(fault)), Err(Refusal::NotNow { .. })));
    until(&mut world, everyone, |world| training(world, 3));
    assert_eq!(world.state.summaries().back().unwrap().codec.unwrap().counts.tensors, 5);
    world.verify(Signatures::Check);
}

#[test]
fn who_joins_again_must_say_again_that_it_is_ready() {
    let mut world = in_force();
    let id = world.living()[0];
    world.kill(&id);
    world.revive(&id);
    until(&mut world, |_| false, |world| world.state.node(&id).is_some_and(|node| node.codecs.is_empty()));
    until(&mut world, everyone, |world| world.state.node(&id).is_some_and(|node| !node.codecs.is_empty()));
    let ready = Statement::CodecReady { component: component() };
    assert!(matches!(say(&mut world, &id, &ready), Err(Refusal::Repeated { .. })));
    let unfit = |reason: &str| Statement::CodecUnfit { component: component(), reason: reason.to_owned() };
    assert!(matches!(say(&mut world, &id, &unfit(&"x".repeat(129))), Err(Refusal::OverLimit { .. })));
    say(&mut world, &id, &unfit("no memory")).unwrap();
    assert!(world.state.node(&id).unwrap().codecs.is_empty());
    assert!(matches!(say(&mut world, &id, &unfit("again")), Err(Refusal::Repeated { .. })));
}

#[test]
fn the_owner_takes_it_away_and_may_pin_another() {
    let mut world = in_force();
    control(&mut world, Control::CodecUnpinned).unwrap();
    assert!(world.state.codecs().active().is_none());
    assert!(matches!(control(&mut world, Control::CodecUnpinned), Err(Refusal::Repeated { .. })));
    control(&mut world, Control::CodecPinned(pin(Epoch(4)))).unwrap();
    until(&mut world, everyone, |world| training(world, 4));
    assert_eq!(world.state.codecs().active().unwrap().since, Epoch(4));
    assert!(world.state.summaries().iter().any(|summary| summary.codec.is_none()));
    world.verify(Signatures::Check);
}

#[test]
fn a_lossy_codec_carries_one_in_ten_until_a_validator_found_no_harm() {
    let (mut world, validator) = in_shadow(8);
    let carried = |world: &World, direction| {
        let (active, seed) = (world.state.codecs().active().unwrap(), world.state.seed());
        (0..1000).filter(|at| active.carries(&seed, MicroBatch(*at), direction)).count()
    };
    assert!((50..150).contains(&carried(&world, Direction::Forward)));
    assert_eq!(carried(&world, Direction::Backward), 0, "gradients are not in its pin");
    let good = effect(200_000, -300_000, 900_000);
    let miner = world.living()[0];
    let said = say(&mut world, &miner, &Statement::CodecEffect(good));
    assert_eq!(said, Err(Refusal::WrongRole));
    let few = CodecEffect { micro_batches: 7, ..good };
    let other = CodecEffect { component: Hash::of(b"other"), ..good };
    for wrong in [few, other] {
        assert!(say(&mut world, &validator, &Statement::CodecEffect(wrong)).is_err());
    }
    // Whoever did not say that it can run it has no word; nor has it before most others have spoken.
    let late = world.add_validator(51);
    while world.state.node(&late).is_none() {
        world.tick();
    }
    assert!(matches!(say(&mut world, &late, &Statement::CodecEffect(good)), Err(Refusal::NotNow { .. })));
    let wanted = world.state.codecs().wants_effect(&validator).expect("its word");
    assert_eq!(wanted.pin.component, component());
    say(&mut world, &validator, &Statement::CodecEffect(good)).unwrap();
    assert!(world.state.codecs().wants_effect(&validator).is_none());
    let again = say(&mut world, &validator, &Statement::CodecEffect(good));
    assert!(matches!(again, Err(Refusal::NotNow { .. })));
    assert!(world.state.codecs().active().unwrap().shadow, "to the end of the epoch");
    until(&mut world, |id| *id != late, |world| training(world, 3));
    let active = world.state.codecs().active().expect("it did no harm");
    assert!(!active.shadow);
    assert_eq!(carried(&world, Direction::Forward), 1000);
    assert_eq!(news(&world).last(), Some(&(Epoch(3), CodecNews::Passed)));
    let shadows: Vec<_> =
        world.state.summaries().iter().map(|summary| summary.codec.map(|codec| codec.shadow)).collect();
    assert_eq!(shadows, [None, None, Some(true)]);
    // A later word of harm still ends it.
    say(&mut world, &late, &Statement::CodecReady { component: component() }).unwrap();
    say(&mut world, &late, &Statement::CodecEffect(effect(0, 0, 2_000_000))).unwrap();
    until(&mut world, everyone, |world| training(world, 4));
    assert!(world.state.codecs().active().is_none());
    assert_eq!(off(&world), Some((Epoch(4), OffCause::Effect)));
    world.verify(Signatures::Check);
}

#[test]
fn most_validators_that_can_run_it_must_have_found_no_harm() {
    let (mut world, validator) = in_shadow(8);
    let others = [51, 52].map(|index| world.add_validator(index));
    let able = |world: &World| {
        others.iter().all(|id| world.state.node(id).is_some_and(|node| !node.codecs.is_empty()))
    };
    until(&mut world, everyone, able);
    let good = Statement::CodecEffect(effect(0, 0, 0));
    say(&mut world, &validator, &good).unwrap();
    until(&mut world, everyone, |world| training(world, 4));
    assert!(world.state.codecs().active().unwrap().shadow, "one of three");
    say(&mut world, &others[0], &good).unwrap();
    until(&mut world, everyone, |world| training(world, 5));
    assert!(!world.state.codecs().active().unwrap().shadow, "two of three");
    world.verify(Signatures::Check);
}

#[test]
fn a_lossy_codec_waits_for_a_validator_and_the_one_before_comes_back() {
    let mut world = in_force();
    let other = CodecPin { component: Hash::of(b"lossy"), ..lossy(Epoch(4)) };
    control(&mut world, Control::CodecPinned(other.clone())).unwrap();
    until(&mut world, everyone, |world| training(world, 4));
    assert_eq!(world.state.codecs().active().unwrap().pin.component, component(), "nobody would measure it");
    let validator = world.add_validator(50);
    until(&mut world, everyone, |world| world.state.codecs().active().is_some_and(|active| active.shadow));
    let until_then = world.state.epoch().next();
    assert_eq!(world.state.codecs().wanted().count(), 2, "the one before is kept ready");
    let bad = CodecEffect { component: other.component, ..effect(2_000_000, 0, 0) };
    say(&mut world, &validator, &Statement::CodecEffect(bad)).unwrap();
    until(&mut world, everyone, |world| world.state.phase() == Phase::Training { epoch: until_then });
    let back = world.state.codecs().active().expect("the one before");
    assert_eq!((back.pin.component, back.since, back.shadow), (component(), Epoch(2), false));
    assert_eq!(world.state.codecs().of_epoch(), Some(back));
    world.verify(Signatures::Check);
}

#[test]
fn a_few_fallbacks_of_few_tensors_are_borne() {
    let (mut world, _) = in_shadow(8);
    let id = world.state.epoch_members()[0].member.node;
    let work = work(&world, counts(7, 2));
    say(&mut world, &id, &work).unwrap();
    until(&mut world, everyone, |world| training(world, 3));
    assert!(world.state.codecs().active().is_some());
}

#[test]
fn a_lossy_codec_that_harms_goes_by_any_of_three_figures() {
    let bad = [effect(1_000_000, 0, 0), effect(0, -1_000_000, 0), effect(0, 0, 1_500_000)];
    let noisy = Effect { mean_ppb: 0, error_ppb: 400_000 };
    let unsure = CodecEffect { loss: noisy, ..effect(0, 0, 0) };
    let never = CodecEffect { slope: Effect::of(&[f64::NAN, 0.0]), ..effect(0, 0, 0) };
    for bad in bad.into_iter().chain([unsure, never]) {
        let (mut world, validator) = in_shadow(6);
        say(&mut world, &validator, &Statement::CodecEffect(bad)).unwrap();
        until(&mut world, everyone, |world| training(world, 3));
        assert!(world.state.codecs().active().is_none());
        assert_eq!(off(&world), Some((Epoch(3), OffCause::Effect)));
        assert!(news(&world).contains(&(Epoch(2), CodecNews::Measured { by: validator, effect: bad })));
        world.verify(Signatures::Check);
    }
}

#[test]
fn a_lossy_codec_whose_micro_batches_have_higher_losses_goes_whatever_validators_say() {
    let mut world = World::new(&spec(2, 6, 400), 4, 5);
    let validator = world.add_validator(50);
    world.harm = 0.2;
    let mut world = in_force_with(world, lossy(Epoch(2)));
    say(&mut world, &validator, &Statement::CodecEffect(effect(0, 0, 0))).unwrap();
    until(&mut world, everyone, |world| training(world, 3));
    assert_eq!(off(&world), Some((Epoch(3), OffCause::Losses)));
    world.verify(Signatures::Check);
}

#[test]
fn a_lossy_codec_that_nobody_measures_stays_in_its_shadow_and_goes_at_last() {
    let (mut world, _) = in_shadow(30);
    until(&mut world, everyone, |world| training(world, 17));
    assert!(world.state.codecs().active().unwrap().shadow);
    until(&mut world, everyone, |world| training(world, 18));
    assert!(world.state.codecs().active().is_none());
    assert_eq!(off(&world), Some((Epoch(18), OffCause::Unproven)));
    world.verify(Signatures::Check);
}

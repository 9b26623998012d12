//! `shoal run`: makes, shows and exports runs.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use ledger::fold::Signatures;
use ledger::verify::Replay;
use model::checkpoint::{Checkpoint, Export};
use model::config::{Dtype, ModelConfig};
use node::folder::RunFolder;
use node::progress::ChampionEpoch;
use node::spec::RunSpec;
use serde_json::json;
use swarm::State;
use swarm::record::CodecPin;

use crate::champion::Followed;
use crate::cli::{ExportNumbers, RunArgs, RunCommand};
use crate::failure::bad_input;
use crate::prepare::{self, Place};
use crate::sample::checkpoint_of;
use crate::unit;
use crate::watch::{Show, champion_line, print};

/// `shoal run`.
pub(crate) fn run(args: RunArgs, json: bool) -> Result<ExitCode> {
    match args.command {
        RunCommand::New { folder, data, shape, miners_min } => {
            let mut show = Show::new(json);
            let adjust = |spec: &mut RunSpec| {
                spec.phases.miners_min = miners_min.unwrap_or(spec.phases.miners_min);
                Ok(())
            };
            let making = prepare::making()?;
            let say = |line: &str| drop(show.say(line));
            let made = prepare::prepare(&making, &Place::At(folder), &data, &shape, adjust, say)?;
            let (run, folder) = (made.spec.run_id().to_string(), made.folder.root());
            if json {
                print(&json!({ "run": run, "folder": folder }).to_string())?;
            } else {
                print(&format!("run {run} in {0}\nstart it with  shoal orchestrator {0}", folder.display()))?;
            }
        }
        RunCommand::Show { presets: true, .. } => presets(json)?,
        RunCommand::Show { path, toml, .. } => {
            let spec = path.as_deref().map_or_else(|| Ok(RunSpec::parse("")?), read)?;
            if toml {
                print(spec.canonical().trim_end())?;
            } else if let Some(path) = path {
                let folder = Some(RunFolder::new(&path)).filter(|_| path.is_dir());
                let followed = folder.as_ref().map(Followed::read).transpose()?.flatten();
                show(&spec, champions(&path)?.as_ref(), followed.as_ref(), json)?;
            }
        }
        RunCommand::Fault(args) => return crate::champion::fault(&args, json),
        RunCommand::Codec(args) => return crate::champion::run(&args, json),
        RunCommand::Log { from, to } => {
            let blocks = crate::verify::write_log(&from, &to)?;
            if json {
                print(&json!({ "file": to, "blocks": blocks }).to_string())?;
            } else {
                print(&format!("{}: {blocks} blocks", to.display()))?;
            }
        }
        RunCommand::Export { from, to, numbers } => {
            let checkpoint = Checkpoint::open(&checkpoint_of(&from)?)?;
            let stages = checkpoint.stages()?;
            let weights: Vec<Vec<f32>> =
                stages.iter().map(|stage| checkpoint.weights(stage)).collect::<Result<_, _>>()?;
            let dtype = match numbers {
                ExportNumbers::F32 => Dtype::F32,
                ExportNumbers::Bf16 => Dtype::Bf16,
            };
            let slices: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
            let tokenizer = checkpoint.tokenizer()?;
            let export = Export { stages: &stages, weights: &slices, tokenizer: &tokenizer, dtype };
            let plain = export.save(&to)?;
            let format = if plain { "hugging_face" } else { "shoal" };
            if json {
                print(&json!({ "folder": to, "format": format }).to_string())?;
            } else if plain {
                print(&format!("{}: a Hugging Face folder, for transformers and others", to.display()))?;
            } else {
                print(&format!(
                    "{}: safetensors and shoal.json, for shoal (its cuts are no part of a Llama)",
                    to.display()
                ))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn pinned(pin: &CodecPin) -> serde_json::Value {
    let CodecPin { component, source, from, activations, gradients, lossy, .. } = pin;
    json!({
        "component": component.to_string(), "source": source, "from_epoch": from.0,
        "activations": activations, "gradients": gradients, "lossy": lossy,
    })
}

fn show_champions(spec: &RunSpec, champions: Option<&Champions>, followed: Option<&Followed>) -> Result<()> {
    let names = [&spec.codec.activations, &spec.codec.gradients].map(|class| String::from(class.clone()));
    print(&format!("codec      activations {}, gradients {}", names[0], names[1]))?;
    if let Some(Followed { arena, competition, .. }) = followed {
        print(&format!("follows    competition {competition} at {arena}"))?;
    }
    let Some(known) = champions else { return Ok(()) };
    let in_force = if known.shadow { "in its shadow" } else { "in force" };
    for (pin, words) in [(&known.in_force, in_force), (&known.pinned, "pinned")] {
        let Some(pin) = pin else { continue };
        let lossy = if pin.lossy.is_some() { " (lossy)" } else { "" };
        print(&format!(
            "champion   {}{lossy} {words} from epoch {}: {}",
            pin.component.short(),
            pin.from.0 + 1,
            pin.source
        ))?;
    }
    known.epochs.iter().try_for_each(|epoch| print(&format!("           {}", champion_line(epoch))))
}

/// The spec of a run folder or a file.
fn read(path: &Path) -> Result<RunSpec> {
    let file = if path.is_dir() { RunFolder::new(path).spec() } else { path.to_owned() };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| bad_input(format!("cannot read {}: {error}", file.display())))?;
    RunSpec::parse(&text).with_context(|| file.display().to_string())
}

fn presets(json: bool) -> Result<()> {
    for name in ModelConfig::preset_names() {
        let Some(model) = ModelConfig::preset(name) else { continue };
        if json {
            print(&json!({ "preset": name, "parameters": model.parameters(), "model": model }).to_string())?;
        } else {
            print(&format!(
                "{name:<6} {:>8} parameters  width {:<5} {:>3} blocks  ffn {:<6} heads {:<3} sequence {}",
                unit::count(model.parameters()),
                model.d_model,
                model.blocks,
                model.ffn,
                model.heads,
                model.sequence
            ))?;
        }
    }
    Ok(())
}

/// What the log says of champions; none if there is no log.
#[derive(Debug, Default)]
struct Champions {
    in_force: Option<CodecPin>,
    /// What is in force carries drawn micro-batches only.
    shadow: bool,
    pinned: Option<CodecPin>,
    epochs: Vec<ChampionEpoch>,
}

fn champions(path: &Path) -> Result<Option<Champions>> {
    if !RunFolder::new(path).log().exists() {
        return Ok(None);
    }
    let header = crate::verify::header_of(path)?;
    let mut replay = Replay::<State>::new(header.run, header.orchestrator);
    crate::verify::read_run(path, |block| {
        replay.push(block, Signatures::Trust).map_err(Box::new)?;
        Ok(true)
    })?;
    let Some(state) = replay.state() else { return Ok(None) };
    let codecs = state.codecs();
    Ok(Some(Champions {
        in_force: codecs.active().map(|active| active.pin.clone()),
        shadow: codecs.active().is_some_and(|active| active.shadow),
        pinned: codecs.pending().cloned(),
        epochs: state.summaries().iter().filter_map(node::observe::champion).collect(),
    }))
}

fn show(
    spec: &RunSpec,
    champions: Option<&Champions>,
    followed: Option<&Followed>,
    json: bool,
) -> Result<()> {
    let stages = spec.stage_specs();
    let rows = spec.batch.sequences * spec.model.sequence;
    let (forward, backward) = spec.cut.message_bytes(&spec.model, rows);
    let full = rows * spec.model.d_model * 2;
    let ratio =
        if forward + backward == 0 { None } else { Some(2.0 * full as f64 / (forward + backward) as f64) };
    // What a miner on this machine announces.
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let needs = node::miner::memory(spec, threads, node::miner::Keep::Graphs);
    let memory = |stage: &model::config::StageSpec| needs[stage.index].peak();
    if json {
        let stages: Vec<_> = stages
            .iter()
            .map(|stage| {
                json!({
                    "blocks": [stage.blocks.start, stage.blocks.end],
                    "parameters": stage.parameters(),
                    "flops_per_token": stage.flops_per_token(),
                    "memory_bytes": memory(stage),
                })
            })
            .collect();
        return print(
            &json!({
                "run": spec.run_id().to_string(),
                "name": spec.name,
                "parameters": spec.model.parameters(),
                "stages": stages,
                "forward_bytes": forward,
                "backward_bytes": backward,
                "activation_ratio": ratio,
                "tokens_per_epoch": spec.tokens_per_epoch(),
                "epochs": spec.phases.epochs,
                "plain": spec.is_plain(),
                "codec": {
                    "activations": spec.codec.activations,
                    "gradients": spec.codec.gradients,
                    "follows": followed.map(|from| json!({ "competition": from.competition, "arena": from.arena })),
                    "in_force": champions.and_then(|known| known.in_force.as_ref()).map(pinned),
                    "shadow": champions.is_some_and(|known| known.shadow),
                    "pinned": champions.and_then(|known| known.pinned.as_ref()).map(pinned),
                    "epochs": champions.map(|known| &known.epochs),
                },
            })
            .to_string(),
        );
    }
    let model = &spec.model;
    print(&format!("run        {} ({})", spec.run_id(), spec.name))?;
    print(&format!(
        "model      {} parameters: width {}, {} blocks, {} heads ({} for keys and values), ffn {}, vocabulary {}, sequence {}",
        unit::count(model.parameters()),
        model.d_model,
        model.blocks,
        model.heads,
        model.kv_heads,
        model.ffn,
        model.vocab,
        model.sequence
    ))?;
    for stage in &stages {
        print(&format!(
            "stage {:<4} blocks {}..{}, {} parameters, {} to train it",
            stage.index,
            stage.blocks.start,
            stage.blocks.end,
            unit::count(stage.parameters() as u64),
            unit::bytes(memory(stage)),
        ))?;
    }
    let less = ratio.map(|ratio| format!(", {ratio:.1} times less than bf16")).unwrap_or_default();
    print(&format!(
        "wire       {} forward, {} backward for {rows} tokens{less}",
        unit::bytes(forward as u64),
        unit::bytes(backward as u64)
    ))?;
    print(&format!(
        "length     {} epochs of {} inner steps, {} tokens each",
        spec.phases.epochs,
        spec.inner.steps,
        unit::count(spec.tokens_per_epoch())
    ))?;
    show_champions(spec, champions, followed)?;
    let (train, held_out) = spec.manifest().tokens();
    print(&format!(
        "data       {} tokens to train on, {} held out",
        unit::count(train),
        unit::count(held_out)
    ))
}

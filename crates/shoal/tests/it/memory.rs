//! A miner says what it needs before it joins, and keeps to it: under a limit that the whole model would not fit.

use super::binary::Ran;
use super::crew::Crew;
use super::lending::{miner, new_run, open, refused};

/// Twelve blocks: large enough that the weights outweigh the process around them.
const SPEC: &str = r#"
name = "memory"
stages = STAGES
[model]
preset = "micro"
d_model = 512
blocks = 12
heads = 8
kv_heads = 8
ffn = 1376
sequence = 64
[batch]
sequences = 1
micro_batches_per_epoch = 4
[inner]
optimiser = "adamw"
steps = 2
[phases]
epochs = 2
miners_min = 1
lost_after_ms = 30000
lease_ms = 60000
"#;

fn spec(stages: usize) -> String {
    SPEC.replace("STAGES", &stages.to_string())
}

/// Runs a command that may have so much data in memory: the limit counts what is allocated, touched or not.
fn limited(bytes: u64) -> [String; 4] {
    let words = format!("ulimit -d {} && exec \"$@\"", bytes.div_ceil(1 << 10));
    ["sh".to_owned(), "-c".to_owned(), words, "sh".to_owned()]
}

/// The most memory that a process ever had, bytes.
fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

#[test]
#[cfg(target_os = "linux")]
fn four_stages_train_where_one_would_not_fit() {
    let (place, shown) = new_run(&spec(4));
    let whole = 16 * shown["parameters"].as_u64().expect("a count");
    let mut crew = Crew::new(place, "warn");
    let (orchestrator, ticket) = open(&mut crew);
    let ask = |keep: &str| -> Vec<u64> {
        let args = ["--threads", "1", "--memory", "1", "--keep", keep];
        let asked = crew.place.run(&miner(&ticket, "asks", &args));
        asked.objects().iter().map(|need| need["memory_bytes"].as_u64().expect("bytes")).collect()
    };
    // Two of the miners keep only encoded inputs; here a merge takes more than graphs do.
    let keeps = ["graphs", "inputs", "inputs", "graphs"];
    let (graphs, inputs) = (ask("graphs"), ask("inputs"));
    assert!(graphs.iter().zip(&inputs).all(|(graphs, inputs)| inputs <= graphs), "{inputs:?} of {graphs:?}");
    let needs: Vec<u64> =
        (0..4).map(|stage| if keeps[stage] == "inputs" { inputs[stage] } else { graphs[stage] }).collect();
    println!("the whole model's state {whole} bytes, its stages need {graphs:?}, with inputs {inputs:?}");
    assert!(needs.len() == 4 && needs.iter().all(|need| *need < whole), "{needs:?} of {whole}");

    let mut miners = Vec::new();
    for ((stage, need), keep) in needs.iter().enumerate().zip(keeps) {
        let (limit, stage) = (limited(*need), stage.to_string());
        let wrapper: Vec<&str> = limit.iter().map(String::as_str).collect();
        let name = format!("miner-{stage}");
        let args = miner(&ticket, &name, &["--threads", "1", "--stage", &stage, "--keep", keep]);
        miners.push(crew.start(&name, &wrapper, &args));
    }
    let last = |said: &super::crew::Said| said.is("merged").filter(|event| event["epoch"] == 1);
    crew.until("the last merge", last);
    let spared = |said: &super::crew::Said| {
        said.is("status").filter(|event| event["memory_spared_bytes"].as_u64().is_some_and(|bytes| bytes > 0))
    };
    crew.until("memory spared", spared);
    for (member, need) in miners.iter().zip(&needs) {
        let peak = peak(crew.id(*member));
        println!("{} had {peak} bytes of the {need} it asked for", crew.name(*member));
        assert!(peak <= *need, "{} had {peak} bytes of {need}", crew.name(*member));
    }
    for member in miners.into_iter().chain([orchestrator]) {
        assert!(crew.end(member, |_| {}).success(), "{}", crew.tails());
    }

    // The same model in one stage, under the limit that every one of the four kept.
    let most = needs.into_iter().max().expect("four");
    let (place, _) = new_run(&spec(1));
    let mut crew = Crew::new(place, "warn");
    let (_, ticket) = open(&mut crew);
    let limit = limited(most);
    let mut command = std::process::Command::new(&limit[0]);
    command.args(&limit[1..]).arg(env!("CARGO_BIN_EXE_shoal"));
    command.args(miner(&ticket, "alone", &["--threads", "1"])).current_dir(crew.place.path("."));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let ran = Ran::wait(command.spawn().expect("it starts"));
    refused(&ran, &["stage 0 needs", "this miner may use", "more stages"]);
}

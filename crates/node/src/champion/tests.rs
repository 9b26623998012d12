//! Components against tensors, without a run around them.

use std::path::PathBuf;
use std::sync::OnceLock;

use model::config::{Dtype, Message};
use sandbox::{Child, Runtime};
use swarm::record::LossyBounds;
use wire::{Direction, FrameHeader, MicroBatch};

use super::carry::{Champion, Fell, Undecoded};
use super::drawn;
use crate::limits;
use crate::miner::frames;

/// Children of the sandbox are this binary: they are started with the name of this test, and never return from it.
#[test]
fn sandbox_child() {
    sandbox::child::run_if_asked();
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let program = std::env::current_exe().unwrap();
        let name = "champion::tests::sandbox_child";
        let child = Child::new(program, [name, "--exact", "--nocapture", "--quiet", "--test-threads=1"]);
        Runtime::new(child, None).unwrap()
    })
}

/// The sleeper with another plan: what it does, to one in how many tensors.
fn sleeper(deed: char, one_in: u32) -> Champion {
    sleeper_within(deed, one_in, None)
}

pub(crate) fn sleeper_within(deed: char, one_in: u32, lossy: Option<LossyBounds>) -> Champion {
    const MARK: &[u8] = b"shoal-sleeper:";
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let mut bytes = std::fs::read(PathBuf::from(folder).join("../../components/wasm/sleeper.wasm")).unwrap();
    let at = bytes.windows(MARK.len()).position(|window| window == MARK).unwrap() + MARK.len();
    bytes[at..at + 6].copy_from_slice(format!("{deed}{one_in:05}").as_bytes());
    Champion::new(runtime().compile(&bytes).unwrap(), lossy)
}

/// Numbers of few magnitudes, other ones for every seed.
pub(crate) fn tensor(seed: u64) -> Message {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = (0..16 * 24).flat_map(|_| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        [(x >> 40) as u8, 0x3c + (x >> 62) as u8]
    });
    Message { dtype: Dtype::Bf16, shape: vec![16, 24], bytes: bytes.collect() }
}

#[test]
fn of_a_thousand_tensors_the_one_that_is_corrupted_never_leaves() {
    let champion = sleeper('C', 1000);
    let (mut wrong, count) = (0, 6000);
    for seed in 0..count {
        let message = tensor(seed);
        match champion.encode(Direction::Forward, &message, true) {
            Ok(carried) => {
                assert!(carried.payload.len() < message.bytes.len() * 9 / 10);
                if seed % 64 == 0 {
                    let back = champion.decode(Direction::Forward, &carried.payload, message.bytes.len());
                    assert_eq!(back.unwrap().bytes, message.bytes);
                }
            }
            Err(Fell::Wrong { decoded, .. }) => {
                assert_ne!(decoded.bytes, message.bytes);
                wrong += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!((1..=20).contains(&wrong), "{wrong} of {count}");
}

#[test]
fn without_its_own_check_the_receiver_has_the_last_word() {
    let champion = sleeper('C', 1);
    let message = tensor(1);
    let carried = champion.encode(Direction::Forward, &message, false).unwrap();
    let back = champion.decode(Direction::Forward, &carried.payload, message.bytes.len()).unwrap();
    assert_ne!(back.bytes, message.bytes);
    let short = champion.decode(Direction::Forward, &carried.payload, message.bytes.len() - 1);
    assert!(matches!(short, Err(Undecoded::Head)), "more than a frame may hold");
    let cut = champion.decode(Direction::Forward, &carried.payload[..40], message.bytes.len());
    assert!(matches!(cut, Err(Undecoded::Failed(_))));
}

#[test]
fn bloat_and_stalls_cost_what_their_limits_say() {
    let message = tensor(3);
    assert!(matches!(sleeper('B', 1).encode(Direction::Forward, &message, true), Err(Fell::Larger)));
    let stall = sleeper('S', 1).encode(Direction::Forward, &message, true);
    let Err(Fell::Failed(failed)) = stall else { panic!("{stall:?}") };
    assert_eq!(failed.fault, sandbox::Fault::Fuel);
    let empty = Message { dtype: Dtype::Bf16, shape: vec![0], bytes: Vec::new() };
    assert!(matches!(sleeper('H', 1).encode(Direction::Forward, &empty, true), Err(Fell::Larger)));
}

#[test]
fn codecs_that_come_with_judges_need_less_than_half_of_their_fuel() {
    let folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../components/wasm");
    let numbers: Vec<u8> = (0..40).flat_map(|seed| tensor(seed).bytes).collect();
    let meta = sandbox::Meta {
        dtype: sandbox::DType::Bf16,
        shape: vec![640, 24],
        direction: sandbox::Direction::Forward,
    };
    let cap = limits::CHAMPION_FUEL + limits::CHAMPION_FUEL_PER_BYTE * numbers.len() as u64;
    let calls = sandbox::CallLimits {
        fuel: cap / 2,
        wall: limits::CHAMPION_WALL,
        memory_bytes: super::call_memory(numbers.len() as u64),
        output_bytes: numbers.len() as u64,
    };
    for name in ["context", "fast", "huffman", "zstd-3"] {
        let bytes = std::fs::read(folder.join(format!("{name}.wasm"))).unwrap();
        let codec = runtime().compile(&bytes).unwrap();
        let there = codec.call(sandbox::Task::Compress, &numbers, &meta, &calls).unwrap();
        let encoded = there.output.unwrap_or_else(|failed| panic!("{name}: {failed}"));
        let back = codec.call(sandbox::Task::Decompress, &encoded, &meta, &calls).unwrap();
        assert_eq!(back.output.unwrap(), numbers);
        eprintln!("{name}: {} and {} of {cap}", there.fuel, back.fuel);
    }
}

#[test]
fn samples_are_drawn_by_seed_and_about_as_often_as_they_should() {
    let header = |at: u64| FrameHeader { micro_batch: MicroBatch(at), ..frames::tests::header() };
    let every = limits::CHAMPION_COMPARE_EVERY;
    let count = (0..16_000).filter(|at| drawn("x", &header(*at), every)).count();
    assert!((900..1100).contains(&count), "{count}");
    assert_eq!(count, (0..16_000).filter(|at| drawn("x", &header(*at), every)).count());
}

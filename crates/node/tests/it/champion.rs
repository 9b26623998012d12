//! Champions of the arena in real runs: a better one is adopted, and what betrays its users is caught within the epoch.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ledger::fold::Signatures;
use ledger::verify::Replay;
use model::config::{Cut, Dtype};
use net::Link;
use sandbox::{Child, Runtime};
use shoal_node::champion::{PinError, pin, rerun};
use shoal_node::folder::RunFolder;
use shoal_node::follow::Follow;
use shoal_node::orchestrator::{Granted, Wish};
use shoal_node::progress::{ChampionEpoch, Progress, Summary};
use shoal_node::rpc::{Request, code};
use shoal_node::spec::{ClipScope, OuterSpec, RunSpec, TensorCodec};
use swarm::record::{CodecPin, Statement};
use swarm::state::{Phase, State};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::{Direction, FrameHeader, Hash, MicroBatch, NodeId, Seq, SignedFrame};

use super::alone::{losses, statements};
use super::learning::validate;
use super::miners::Swarm;

/// Longest that the orchestrator may take to answer a wish.
const PATIENCE: Duration = Duration::from_secs(30);

/// This test binary as the sandbox's child.
pub(crate) fn child() -> Child {
    let program = std::env::current_exe().expect("a test knows its own path");
    Child::new(program, ["it::sandbox_child", "--exact", "--nocapture", "--quiet", "--test-threads=1"])
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new(child(), None).expect("the engine starts"))
}

/// A committed component.
pub(crate) fn component(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("started by cargo");
    let path = PathBuf::from(folder).join("../../components/wasm").join(format!("{name}.wasm"));
    std::fs::read(path).expect("a committed component")
}

/// The sleeper with another plan: what it does, to one in how many tensors.
pub(crate) fn sleeper(deed: char, one_in: u32) -> Vec<u8> {
    const MARK: &[u8] = b"shoal-sleeper:";
    let mut bytes = component("sleeper");
    let at = bytes.windows(MARK.len()).position(|window| window == MARK).expect("its plan") + MARK.len();
    bytes[at..at + 6].copy_from_slice(format!("{deed}{one_in:05}").as_bytes());
    bytes
}

/// One that sleeps through the golden tensors, so that it is pinned as a lossless one: about so many tensors lie between
/// its deeds.
fn sleeper_of(deed: char, one_in: u32) -> Vec<u8> {
    let mut spec = RunSpec::preset("micro").expect("a preset");
    plain(&mut spec, 1, TensorCodec::Fast);
    let mut plans = (one_in..one_in + 20).map(|one_in| sleeper(deed, one_in));
    plans.find(|bytes| found(bytes, &spec).is_ok_and(|pin| pin.lossy.is_none())).expect("a plan")
}

/// Lock-step, so that two runs give the same bits; plain cuts, so that there is something to compress.
pub(crate) fn plain(spec: &mut RunSpec, epochs: u32, codec: TensorCodec) {
    spec.cut = Cut::Plain { wire: Dtype::Bf16 };
    spec.set_stages(2).expect("enough blocks");
    spec.inner.clip_scope = ClipScope::Model;
    spec.inner.clip_norm = 0.5;
    spec.outer = OuterSpec::Identity {};
    spec.phases.miners_min = 1;
    spec.phases.epochs = epochs;
    spec.codec.activations = codec.into();
    spec.codec.gradients = codec.into();
}

/// What a run gave.
pub(crate) struct Given {
    pub(crate) summary: Summary,
    losses: BTreeMap<MicroBatch, u32>,
    pub(crate) champions: Vec<ChampionEpoch>,
    pub(crate) news: Vec<(u32, String, String)>,
    pub(crate) faults: usize,
    pub(crate) said: Vec<(NodeId, Statement)>,
}

impl Given {
    /// First epoch in which the champion carried tensors: on a busy machine compiling may outlast the first epochs.
    pub(crate) fn in_force(&self) -> u32 {
        self.news("in_force").unwrap_or_else(|| panic!("never: {:?}", self.news)).0
    }

    pub(crate) fn news(&self, wanted: &str) -> Option<(u32, &str)> {
        let found = self.news.iter().find(|(_, news, _)| news == wanted);
        found.map(|(epoch, _, about)| (*epoch, about.as_str()))
    }
}

pub(crate) fn found(bytes: &[u8], spec: &RunSpec) -> Result<CodecPin, PinError> {
    pin(runtime(), bytes, spec, "a test")
}

/// Trains; with a champion that is pinned before the first epoch.
async fn train(epochs: u32, codec: TensorCodec, champion: Option<Vec<u8>>) -> Given {
    train_with(champion, |spec| plain(spec, epochs, codec)).await
}

/// The same, beside a validator if the spec asks for one.
pub(crate) async fn train_with(champion: Option<Vec<u8>>, change: impl FnOnce(&mut RunSpec)) -> Given {
    let mut swarm = Swarm::start(2, change).await;
    let validating = (swarm.spec.phases.validators_min > 0).then(|| validate(&swarm));
    if let Some(bytes) = champion {
        let folder = RunFolder::new(swarm.folder.path());
        let pin = found(&bytes, &swarm.spec).expect("a codec");
        swarm.blobs.put(Bytes::from(bytes)).await.expect("a store");
        Wish::Pin(pin).leave(&folder).expect("a folder");
        let answer = async {
            loop {
                match Granted::read(&folder) {
                    Some(granted) => return granted,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        let granted = tokio::time::timeout(PATIENCE, answer).await.expect("an answer");
        assert_eq!(granted, Granted::Pinned { from: wire::Epoch(1) });
    }
    swarm.miners(1).await;
    let (log, folder, run) = (swarm.log.clone(), swarm.folder.clone(), swarm.spec.run_id());
    let (mut champions, mut news) = (Vec::new(), Vec::new());
    let summary = swarm
        .end_hearing(|event| match event {
            Progress::Champion(champion) => champions.push(champion.clone()),
            Progress::Codec { epoch, news: what, about, .. } => {
                news.push((*epoch, what.clone(), about.clone()));
            }
            _ => {}
        })
        .await;
    if let Some(validating) = validating {
        validating.await.expect("no panic").expect("a clean end");
    }
    let said = statements(&log).await;
    let faults = said.iter().filter(|(_, said)| matches!(said, Statement::CodecFault(_))).count();
    let mut replay = Replay::<State>::new(run, super::miners::key(1).node_id());
    for block in log.read(Seq(0), u32::MAX).await.expect("the log") {
        replay.push(&block, Signatures::Check).expect("every record follows");
    }
    drop(folder);
    let losses = losses(&said).iter().map(|(at, loss)| (*at, loss.to_bits())).collect();
    Given { summary, losses, champions, news, faults, said }
}

/// What must hold of a run whose champion betrays it.
fn harmless(given: &Given, honest: &Given) {
    assert_eq!(given.losses, honest.losses, "the same bits as without it");
    assert_eq!(given.summary.coverage, Some(1.0), "no work was lost");
    given.in_force();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_better_codec_is_adopted_and_bytes_fall() {
    const EPOCHS: u32 = 8;
    let before = train(EPOCHS, TensorCodec::Raw, None).await;
    assert!(before.champions.is_empty() && before.news.is_empty());
    let with = train(EPOCHS, TensorCodec::Raw, Some(component("huffman"))).await;
    harmless(&with, &before);
    assert!(with.news("off").is_none() && with.faults == 0, "{:?}", with.news);
    let epochs: Vec<u32> = with.champions.iter().map(|champion| champion.epoch).collect();
    assert_eq!(epochs, (with.in_force()..EPOCHS).collect::<Vec<_>>());
    for champion in &with.champions {
        // Two tensors per micro-batch: one there, one back.
        assert_eq!((champion.tensors, champion.fallbacks), (48, 0));
        assert!(champion.bytes * 10 < champion.raw_bytes * 9, "{champion:?}");
        assert!(champion.seconds > 0.0);
    }
    let (compared, saved) = with.champions.iter().fold((0, 0), |(compared, saved), champion| {
        let previous = champion.previous_bytes.unwrap_or(0);
        (compared + champion.compared, saved + previous.saturating_sub(champion.bytes))
    });
    assert!(compared > 0 && saved > 0, "{:?}", with.champions);
    // What every micro-batch sent raw before is now sent raw or shorter, and the difference is what the log says.
    let carried = with.champions.iter().fold(0, |sum, champion| sum + champion.raw_bytes - champion.bytes);
    let fewer = before.summary.activation_bytes - with.summary.activation_bytes;
    assert!(fewer * 10 > carried * 9, "{fewer} and {carried}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_corrupt_tensor_in_a_thousand_is_caught_in_its_epoch() {
    // Six hundred micro-batches an epoch, two tensors each.
    let long = |spec: &mut RunSpec| {
        plain(spec, 4, TensorCodec::Fast);
        spec.batch.micro_batches_per_epoch = 600;
    };
    let (honest, given) = tokio::join!(train_with(None, long), train_with(Some(sleeper_of('C', 1000)), long));
    harmless(&given, &honest);
    let (epoch, about) = given.news("off").expect("it was caught");
    assert!(about.contains("gave another tensor back"), "{about}");
    assert!(given.faults > 0);
    let last = given.champions.last().expect("it worked for a while");
    assert_eq!(last.epoch, epoch, "none in the epochs after: {:?}", given.champions);
    assert!(last.tensors > 100, "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codecs_that_corrupt_bloat_or_stall_are_caught_within_the_epoch() {
    const EPOCHS: u32 = 6;
    let honest = train(EPOCHS, TensorCodec::Fast, None).await;

    let corrupt = train(EPOCHS, TensorCodec::Fast, Some(sleeper_of('C', 4))).await;
    harmless(&corrupt, &honest);
    assert_eq!(corrupt.news("off").map(|(epoch, _)| epoch), Some(corrupt.in_force()), "{:?}", corrupt.news);
    assert!(corrupt.news("off").unwrap().1.contains("gave another tensor back"));
    assert!(corrupt.faults > 0);
    assert_eq!(corrupt.champions.len(), 1, "none in the epoch after");

    for (deed, one_in) in [('B', 3), ('S', 3)] {
        let given = train(EPOCHS, TensorCodec::Fast, Some(sleeper_of(deed, one_in))).await;
        harmless(&given, &honest);
        let [epoch] = &given.champions[..] else { panic!("one epoch, not {:?}", given.champions) };
        // A few tries of each of the two senders, then the built-in codec for the rest of the epoch.
        assert!(epoch.fallbacks * 100 > epoch.tensors, "{epoch:?}");
        assert_eq!(given.news("off").map(|(epoch, _)| epoch), Some(given.in_force() + 1), "{:?}", given.news);
        assert!(given.news("off").unwrap().1.contains("more than 1 %"));
        assert_eq!(given.faults, 0);
    }
}

#[test]
fn what_a_run_cannot_use_is_refused_before_it_is_pinned() {
    let mut spec = RunSpec::preset("micro").unwrap();
    assert!(matches!(found(&component("huffman"), &spec), Err(PinError::Packed)));
    plain(&mut spec, 1, TensorCodec::Fast);
    let good = found(&sleeper('H', 1), &spec).expect("an honest codec");
    assert!(good.activations && good.gradients);
    assert_eq!(good.component, wire::Hash::of(&sleeper('H', 1)));
    assert!(matches!(found(&sleeper('S', 1), &spec), Err(PinError::Fails { .. })));
    assert!(matches!(found(b"\0asm no component", &spec), Err(PinError::Component(_))));
    // Bloat is no fault: nothing of it would ever cross.
    found(&sleeper('B', 1), &spec).expect("harmless");
}

/// A payload as miners send it: type, rank and sides in front of what the component made.
fn payload(component: &[u8], shape: &[u32], numbers: &[u8]) -> Vec<u8> {
    let codec = runtime().compile(component).expect("a codec");
    let meta = sandbox::Meta {
        dtype: sandbox::DType::Bf16,
        shape: shape.to_vec(),
        direction: sandbox::Direction::Forward,
    };
    let limits =
        sandbox::CallLimits { fuel: u64::MAX, wall: PATIENCE, memory_bytes: 64 << 20, output_bytes: 1 << 20 };
    let call = codec.call(sandbox::Task::Compress, numbers, &meta, &limits).expect("a machine");
    let mut payload = vec![1, shape.len() as u8];
    payload.extend(shape.iter().flat_map(|side| side.to_le_bytes()));
    payload.extend(call.output.expect("compressed"));
    payload
}

/// Says nothing to anybody.
struct Silent;

#[async_trait::async_trait]
impl net::Handler for Silent {
    async fn handle(&self, _: wire::NodeId, _: net::Message) -> Result<net::Message, net::Refusal> {
        Err(net::Refusal::new(code::NOT_HERE, "nothing here"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_not_what_was_signed_for_is_asked_for_again_and_told() {
    let champion = component("sleeper");
    let mut swarm = Swarm::start(2, |spec| {
        plain(spec, 1000, TensorCodec::Fast);
        // Long enough for all that follows.
        spec.batch.micro_batches_per_epoch = 600;
    })
    .await;
    let (folder, pin) =
        (RunFolder::new(swarm.folder.path()), found(&champion, &swarm.spec).expect("a codec"));
    let name = pin.component.to_string();
    swarm.blobs.put(Bytes::from(champion.clone())).await.expect("a store");
    Wish::Pin(pin).leave(&folder).expect("a folder");
    swarm.until(|event| matches!(event, Progress::Codec { news, .. } if news == "pinned")).await;
    swarm.miners(1).await;
    swarm.until(|event| matches!(event, Progress::Codec { news, .. } if news == "in_force")).await;

    // The head's key, in a second hand.
    let (head, tail) = (super::miners::key(10), super::miners::key(11).node_id());
    let link: Arc<dyn Link> = Arc::new(swarm.network.join(head.node_id(), Arc::new(Silent)));
    link.learn(super::miners::key(1).node_id(), swarm.address.clone());
    let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
    let orchestrator = super::miners::key(1).node_id();
    let run = swarm.spec.run_id();
    let follow = Follow { link: Arc::clone(&link), orchestrator, run, patience: PATIENCE };
    let mut log = follow.start(&mut tasks, &stop).await.expect("a log");
    let opened = log.until(PATIENCE, |view| {
        let state = &view.state;
        let training = matches!(state.phase(), Phase::Training { .. }) && state.codecs().active().is_some();
        training.then(|| (state.epoch(), *state.paths().first_key_value().expect("work").0))
    });
    let (epoch, micro_batch) = opened.await.expect("a log").expect("in force");
    let numbers: Vec<u8> = (0..128 * 64_u32).flat_map(|at| [at as u8, 0x3f]).collect();
    let payload = payload(&champion, &[2, 64, 64], &numbers);
    let frame = |codec: String| {
        let header = FrameHeader {
            run,
            epoch,
            micro_batch,
            lease: wire::LeaseId(0),
            direction: Direction::Forward,
            stage: wire::StageIndex(0),
            from: head.node_id(),
            to: tail,
            grad_mask: 3,
            version: 0,
            ttl: wire::Millis(10_000),
            enc_len: payload.len() as u64,
            enc_hash: Hash::of(&payload),
            tensor_hash: Hash::of(b"another tensor"),
            tokens_hash: Hash::of(b""),
            codec,
            loss: None,
            head: log.head(),
        };
        let signed = Box::new(SignedFrame::sign(&head, header));
        Request::Frame(signed).with_payload(run, Bytes::from(payload.clone()))
    };
    let mut refusals = Vec::new();
    for codec in [Hash::of(b"never pinned").to_string(), name, "zip".to_owned()] {
        match link.call(&tail, frame(codec), PATIENCE).await {
            Err(net::LinkError::Refused { refusal, .. }) => refusals.push(refusal.code),
            other => panic!("not refused: {other:?}"),
        }
    }
    assert_eq!(refusals, [code::RESEND, code::RESEND, code::REFUSED]);
    let off = log.until(PATIENCE, |view| view.state.codecs().active().is_none().then(|| view.state.epoch()));
    assert_eq!(off.await.expect("a log").expect("off"), epoch, "within the epoch");
    let said = statements(&swarm.log).await;
    let told: Vec<_> = said
        .iter()
        .filter_map(|(who, said)| match said {
            Statement::CodecFault(fault) => Some((*who, fault.clone())),
            _ => None,
        })
        .collect();
    let [(who, fault)] = &told[..] else { panic!("one fault, not {told:?}") };
    assert_eq!((*who, fault.encoded), (tail, Hash::of(&payload)));
    let evidence = fault.frame.as_ref().expect("the signed frame");
    assert!(evidence.signed() && evidence.header.tensor_hash == Hash::of(b"another tensor"));
    let frames = swarm.folder.path().join("miner-11/codec-faults");
    let kept =
        std::fs::read(frames.join(format!("{}.payload", fault.encoded))).expect("the evidence is kept");
    assert_eq!(kept, payload);
    // Anybody runs it again: the component is honest, its sender was not.
    let again = rerun(runtime(), &champion, Direction::Forward, &kept, None).expect("a codec");
    assert_eq!(again.decoded.expect("a tensor"), fault.decoded.expect("a tensor"));
}

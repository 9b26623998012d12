//! Valid inputs to start from.

use codec::{CodecId, DType, Level, Target, TensorRef, encode_at, encode_lossy};
use ledger::Chain;
use ledger::file::{LogHeader, block_bytes};
use swarm::record::{
    Control, HaveShard, HopReport, Join, Record, Role, ShardClaim, Statement, StepCommit, Traffic, Work,
    WorkItem,
};
use wire::{
    Direction, Envelope, Epoch, FrameHeader, Hash, Head, LeaseId, MicroBatch, Millis, PROTOCOL_VERSION,
    Receipt, RunId, Seq, SignedFrame, SigningKey, StageIndex, Step,
};

/// A tensor with rows that resemble each other, as 16-bit words.
fn words(rows: u32, cols: u32) -> Vec<u8> {
    let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 16) as u16;
    let word = |r: u32, c: u32| 0x3f00 | noise(c + r % 5 * 97) & 0x80ff ^ noise(r * cols + c) & 3;
    (0..rows).flat_map(|r| (0..cols).flat_map(move |c| word(r, c).to_le_bytes())).collect()
}

pub(crate) fn payloads() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (rows, cols) in [(70, 24), (3, 5), (130, 17)] {
        let bytes = words(rows, cols);
        for dtype in [DType::Bf16, DType::F16, DType::U16, DType::F32] {
            let cols = cols as usize * 2 / dtype.size();
            let used = rows as usize * cols * dtype.size();
            let shape = [rows as usize, cols];
            let tensor = TensorRef::new(dtype, &shape, &bytes[..used]).expect("sizes agree");
            for codec in CodecId::ALL {
                let mut payload = Vec::new();
                let target = Target::similarity(0.97).expect("within 0 and 1");
                let lossy = matches!(codec, CodecId::Uniform | CodecId::Int8);
                let done = if lossy {
                    encode_lossy(Level::detect(), codec, target, tensor, &mut payload)
                } else {
                    encode_at(Level::detect(), codec, tensor, &mut payload)
                };
                if done.is_ok() {
                    all.push(payload);
                }
            }
        }
    }
    all
}

pub(crate) fn tensors() -> Vec<Vec<u8>> {
    let with = |dtype: u8, cols: u8, least: u8| [&[dtype, cols, least][..], &words(60, 40)].concat();
    (0..5).flat_map(|d| [with(d, 39, 250), with(d, 15, 255), with(d, 0, 100)]).collect()
}

pub(crate) fn shared() -> Vec<Vec<u8>> {
    let bytes = words(70, 9);
    let tensor = TensorRef::new(DType::Bf16, &[70, 9], &bytes).expect("sizes agree");
    vec![
        codec::Predictor::learn(&[tensor]).expect("finite").to_bytes().to_vec(),
        codec::Basis::learn(&[tensor]).expect("finite").to_bytes().to_vec(),
        vec![1; 48],
    ]
}

pub(crate) fn logs() -> Vec<Vec<u8>> {
    let key = SigningKey::from_bytes(&[1; 32]);
    let run = RunId([7; 32]);
    let mut chain = Chain::genesis(run, key.node_id());
    let mut bytes = LogHeader { run, orchestrator: key.node_id() }.to_bytes();
    let mut all = vec![bytes.clone()];
    for i in 0..5_u8 {
        let records = vec![vec![i; usize::from(i) * 3]; usize::from(i)];
        let block = chain.append(&key, Millis(u64::from(i)), records).expect("within limits");
        all.push(wire::to_bytes(&block));
        bytes.extend(block_bytes(&block));
    }
    all.push(bytes);
    all
}

pub(crate) fn frame(key: &SigningKey) -> SignedFrame {
    let header = FrameHeader {
        run: RunId([7; 32]),
        epoch: Epoch(1),
        micro_batch: MicroBatch(2),
        lease: LeaseId(3),
        direction: Direction::Forward,
        stage: StageIndex(0),
        from: key.node_id(),
        to: key.node_id(),
        grad_mask: 7,
        version: 4,
        ttl: Millis(5000),
        enc_len: 7,
        enc_hash: Hash::of(b"payload"),
        tensor_hash: Hash::of(b"tensor"),
        tokens_hash: Hash::of(b"tokens"),
        codec: "bf16".into(),
        loss: Some(2.5),
        head: Head { seq: Seq(9), hash: Hash::of(b"head") },
    };
    SignedFrame::sign(key, header)
}

pub(crate) fn envelope(key: &SigningKey) -> Envelope {
    Envelope {
        version: PROTOCOL_VERSION,
        run: RunId([7; 32]),
        sender: key.node_id(),
        time: Millis(1),
        nonce: 2,
        kind: 3,
        body: vec![4; 20],
        signature: frame(key).signature,
    }
}

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let key = SigningKey::from_bytes(&[2; 32]);
    let frame = frame(&key);
    vec![
        wire::to_bytes(&frame.header),
        wire::to_bytes(&Receipt::sign(&key, &frame)),
        wire::to_bytes(&frame),
        wire::to_bytes(&envelope(&key)),
        key.node_id().to_string().into_bytes(),
    ]
}

pub(crate) fn swarm_records() -> Vec<Vec<u8>> {
    let orchestrator = SigningKey::from_bytes(&[255; 32]).node_id();
    let spec = node::spec::RunSpec::preset("micro").expect("known");
    let run_spec = spec.canonical().into_bytes();
    let protocol = spec.swarm_spec();
    let (epoch, stage, hash) = (Epoch(1), StageIndex(0), Hash::of(b"any"));
    let join = Join {
        role: Role::Miner,
        address: vec![1, 2, 3],
        agent: "shoal 0.1.0".into(),
        device: "cpu".into(),
        mflops: 1,
        memory: 1 << 30,
        stage: Some(stage),
    };
    let item = WorkItem {
        micro_batch: MicroBatch(2),
        lease: LeaseId(3),
        direction: Direction::Backward,
        version: 1,
        loss: Some(2.5),
    };
    let work = Work {
        epoch,
        seq: 2,
        items: vec![item],
        steps: vec![StepCommit {
            step: Step(0),
            items: vec![(MicroBatch(2), LeaseId(3))],
            clip: 1.0,
            weights_root: Some(hash),
        }],
        evidence: hash,
        busy: Millis(20),
        hops: vec![HopReport { node: orchestrator, busy: 1, failed: 0 }],
        traffic: Traffic::default(),
        free: 2,
    };
    let statements = [
        Statement::Join(join),
        Statement::LeaseRequest { epoch, want: 3 },
        Statement::Work(work),
        Statement::Squares { epoch, step: Step(0), sums: vec![1.5, 2.0] },
        Statement::Have {
            epoch,
            shards: vec![HaveShard { shard: 0, bitmap: 3, square_sums: vec![1.0, 2.0] }],
        },
        Statement::Claims {
            epoch,
            nonce: hash,
            shards: vec![ShardClaim { shard: 0, result: hash, state: hash }],
        },
        Statement::Ready { epoch, states: vec![hash], traffic: Traffic::default() },
    ];
    let genesis = Record::Control(Control::Genesis { spec: protocol, run_spec, orchestrator });
    statements.iter().map(wire::to_bytes).chain([wire::to_bytes(&genesis)]).collect()
}

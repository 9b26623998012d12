//! Valid inputs to start from.

use codec::{CodecId, DType, Level, Target, TensorRef, encode_at, encode_lossy};
use ledger::Chain;
use ledger::file::{LogHeader, block_bytes};
use wire::{
    Direction, Envelope, Epoch, FrameHeader, Hash, Head, LeaseId, MicroBatch, Millis, PROTOCOL_VERSION,
    Receipt, RunId, Seq, SignedFrame, SigningKey, StageIndex,
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

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let key = SigningKey::from_bytes(&[2; 32]);
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
    let frame = SignedFrame::sign(&key, header.clone());
    let envelope = Envelope {
        version: PROTOCOL_VERSION,
        run: RunId([7; 32]),
        sender: key.node_id(),
        time: Millis(1),
        nonce: 2,
        kind: 3,
        body: vec![4; 20],
        signature: frame.signature,
    };
    vec![
        wire::to_bytes(&header),
        wire::to_bytes(&Receipt::sign(&key, &frame)),
        wire::to_bytes(&frame),
        wire::to_bytes(&envelope),
        key.node_id().to_string().into_bytes(),
    ]
}

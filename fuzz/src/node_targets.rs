//! What nodes ask and answer, tensors in frames, run specs.

use std::sync::LazyLock;

use bytes::Bytes;
use net::Message;
use node::champion::Champions;
use node::miner::frames::{self, tensor_hash};
use node::rpc::{Busy, Opened, OpenedFrame, Reply, Request, Span, What};
use node::spec::RunSpec;
use wire::{
    Direction, Epoch, FrameHeader, Hash, MicroBatch, Millis, NodeId, Receipt, RunId, Seq, SignedFrame,
    SigningKey, StageIndex,
};

use crate::seeds;

const RUN: RunId = RunId([7; 32]);

/// Any bytes as a request or a reply: the first two are the length of the control part.
pub(crate) fn rpc(input: &[u8]) {
    let [low, high, rest @ ..] = input else { return };
    let control = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (control, payload) = rest.split_at(control);
    let message = Message::with_payload(control.to_vec(), Bytes::copy_from_slice(payload));
    if let Ok(request) = Request::parse(&message, &RUN) {
        assert!(request.deadline() <= std::time::Duration::from_hours(1), "{request:?}");
        if let Request::Fetch { span, .. } = &request {
            let _ = span.of(&message.payload);
        }
        let again = request.with_payload(RUN, message.payload.clone());
        let request = Request::parse(&again, &RUN).expect("own bytes are a request");
        assert_eq!(request.with_payload(RUN, message.payload.clone()).control, again.control);
    }
    if let Ok(reply) = Reply::parse(&message) {
        let again = reply.with_payload(message.payload.clone());
        let reply = Reply::parse(&again).expect("own bytes are a reply");
        assert_eq!(reply.with_payload(message.payload.clone()).control, again.control);
    }
}

pub(crate) fn calls() -> Vec<Vec<u8>> {
    let (epoch, stage) = (Epoch(1), StageIndex(0));
    let key = SigningKey::from_bytes(&[2; 32]);
    let frame = seeds::frame(&key);
    let receipt = Receipt::sign(&key, &frame);
    let opened = OpenedFrame { frame: frame.clone(), receipt: receipt.clone(), len: 4 };
    let fetch = |what| Request::Fetch { what, span: Span { from: 2, len: 100 } };
    let requests = [
        Request::State(seeds::envelope(&key)),
        Request::Blocks { after: Some(Seq(4)), wait: Millis(100) },
        fetch(What::Blob(Hash::of(b"blob"))),
        fetch(What::Upload { epoch, stage, shard: 3, of: NodeId([4; 32]) }),
        fetch(What::Predictor { of: NodeId([4; 32]), id: 9 }),
        Request::Frame(Box::new(frame.clone())),
        Request::Open { epoch, micro_batch: MicroBatch(2), direction: Direction::Forward },
        Request::Predictor,
    ];
    let replies = [
        (Reply::Accepted { seq: Seq(3) }, 0),
        (Reply::Blocks { lengths: vec![3, 4], head: None }, 7),
        (Reply::Piece { total: 9 }, 5),
        (Reply::Packed { total: 900, len: 100 }, 50),
        (Reply::Received(receipt), 0),
        (Reply::Busy(Busy::sign(&key, &frame)), 0),
        (Reply::Opened(Box::new(Opened { forward_in: Some(opened), ..Opened::default() })), 4),
        (Reply::Held, 0),
    ];
    let seed = |message: Message| {
        let control = message.control.len() as u16;
        [&control.to_le_bytes()[..], &message.control, &message.payload].concat()
    };
    let payload = |len: usize| Bytes::from(vec![1; len]);
    let requests = requests.into_iter().map(|request| {
        let carries = matches!(request, Request::Frame(_) | Request::Predictor);
        request.with_payload(RUN, payload(if carries { 7 } else { 0 }))
    });
    let replies = replies.into_iter().map(|(reply, len)| reply.with_payload(payload(len)));
    requests.chain(replies).map(seed).collect()
}

/// Longest tensor that crosses the cuts of this run, bytes.
const TENSOR_BYTES: usize = 1 << 16;

/// Any bytes as the payload of a frame; its header names the codec that the payload names.
pub(crate) fn frames(input: &[u8]) {
    static CHAMPIONS: LazyLock<Champions> = LazyLock::new(|| {
        let child = sandbox::Child::new("/nonexistent", std::iter::empty::<&str>());
        Champions::new(child, None)
    });
    let limits =
        codec::Limits { verify_checksum: false, ..codec::Limits::with_max_decoded_bytes(TENSOR_BYTES) };
    let name = codec::Header::parse(input, &limits).map_or("huffman", |header| header.codec.name());
    let key = SigningKey::from_bytes(&[2; 32]);
    let header = FrameHeader { codec: name.into(), ..seeds::frame(&key).header };
    let decoded = frames::decode(&header, input, TENSOR_BYTES, &CHAMPIONS, &codec::Shared::new());
    if let Ok(decoded) = decoded {
        assert_eq!(tensor_hash(&decoded.message), header.tensor_hash);
    }
    let _ = SignedFrame::sign(&key, header);
}

/// Any text as a run spec.
pub(crate) fn spec(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(spec) = RunSpec::parse(&text) {
        let again = RunSpec::parse(&spec.canonical()).expect("its own text is a spec");
        assert_eq!(again, spec);
        assert_eq!(again.run_id(), spec.run_id());
        let _ = spec.check_data();
    }
}

pub(crate) fn specs() -> Vec<Vec<u8>> {
    let whole = RunSpec::preset("micro").expect("known").canonical();
    let short =
        "preset = \"tiny\"\nseed = 4\ncuts = [2, 4]\n[phases]\nepochs = 3\n[codec]\nactivations = \"auto\"\n";
    vec![whole.into_bytes(), short.into(), b"codec = \"arena:matrix\"\n".to_vec()]
}

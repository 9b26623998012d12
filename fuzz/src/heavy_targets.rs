//! Framing, tickets, tokenizers and checkpoints.

use model::checkpoint::TensorFile;
use model::tokenizer::Tokenizer;
use net::frame::{Body, HEAD_BYTES, Head};
use net::{PeerAddress, Ticket};
use std::str::FromStr;
use std::time::Duration;

/// Any bytes as the head of a frame.
pub fn net_frames(input: &[u8]) {
    let mut bytes = [0; HEAD_BYTES];
    for (b, &v) in bytes.iter_mut().zip(input) {
        *b = v;
    }
    if let Ok(head) = Head::decode(&bytes) {
        assert_eq!(head.encode(), bytes, "a head has one encoding");
    }
}

/// Any text as a ticket.
pub fn net_tickets(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(ticket) = Ticket::from_str(&text) {
        let again = Ticket::from_str(&ticket.to_string()).expect("own text is a ticket");
        assert_eq!(again.to_string(), ticket.to_string());
    }
    // Past the checksum, which no mutation meets.
    let _ = wire::from_bytes::<Ticket>(input);
    let _ = wire::from_bytes::<PeerAddress>(input);
}

/// Any bytes as a tokenizer.
pub fn model_tokenizer(input: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_bytes(input) {
        let _ = tokenizer.encode("Shoal of fish, 12 µm \u{1f41f}\n");
        let _ = tokenizer.decode(&[0, 1, 255, 256, u32::MAX]);
    }
}

/// Any bytes as a safetensors file.
pub fn model_tensors(input: &[u8]) {
    let path = std::env::temp_dir().join(format!("shoal-fuzz-{}.safetensors", std::process::id()));
    std::fs::write(&path, input).expect("the temporary folder can be written");
    if let Ok(file) = TensorFile::open(&path) {
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        for name in names {
            let _ = file.read(&name);
        }
    }
    std::fs::remove_file(&path).expect("the file was just written");
}

pub(crate) fn heads() -> Vec<Vec<u8>> {
    let body = Body { call: 7, control: 20, payload: 4096, stripes: 0 };
    vec![
        Head::Request { body, deadline: Duration::from_secs(3) }.encode().to_vec(),
        Head::Answer { body }.encode().to_vec(),
        Head::Refusal { code: 2, reason: 9 }.encode().to_vec(),
        Head::Stripe { call: 7, answer: true, index: 1, len: 4096 }.encode().to_vec(),
    ]
}

pub(crate) fn tickets() -> Vec<Vec<u8>> {
    let address =
        PeerAddress::new(vec!["127.0.0.1:4433".parse().expect("an address")], None).expect("one address");
    vec![wire::to_bytes(&address), b"shoal1aew3ve2wey6bdvwdkafbatiekb".to_vec()]
}

pub(crate) fn tokenizers() -> Vec<Vec<u8>> {
    let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":3,"content":"<|endoftext|>",
"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":null,
"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
"fuse_unk":false,"byte_fallback":false,"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}"#;
    vec![json.into(), Tokenizer::Bytes.to_bytes().to_vec()]
}

pub(crate) fn tensor_files() -> Vec<Vec<u8>> {
    let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend([0; 22]);
    vec![file]
}

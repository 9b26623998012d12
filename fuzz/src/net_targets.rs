//! Framing and tickets.

use std::str::FromStr;
use std::time::Duration;

use net::frame::{Body, HEAD_BYTES, Head};
use net::{PeerAddress, Ticket};

/// Any bytes as the head of a frame.
pub(crate) fn frames(input: &[u8]) {
    let mut bytes = [0; HEAD_BYTES];
    for (b, &v) in bytes.iter_mut().zip(input) {
        *b = v;
    }
    if let Ok(head) = Head::decode(&bytes) {
        assert_eq!(head.encode(), bytes, "a head has one encoding");
    }
}

/// Any text as a ticket.
pub(crate) fn tickets(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(ticket) = Ticket::from_str(&text) {
        let again = Ticket::from_str(&ticket.to_string()).expect("own text is a ticket");
        assert_eq!(again.to_string(), ticket.to_string());
    }
    // Past the checksum, which no mutation meets.
    let _ = wire::from_bytes::<Ticket>(input);
    let _ = wire::from_bytes::<PeerAddress>(input);
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

pub(crate) fn some_tickets() -> Vec<Vec<u8>> {
    let address =
        PeerAddress::new(vec!["127.0.0.1:4433".parse().expect("an address")], None).expect("one address");
    vec![wire::to_bytes(&address), b"shoal1aew3ve2wey6bdvwdkafbatiekb".to_vec()]
}

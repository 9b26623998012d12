//! Any text as a ticket.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shoal_fuzz::net_tickets(input));

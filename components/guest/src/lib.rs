//! What every codec component shares: the bindings of the WIT world `shoal:codec`, and the conversions that ours need.
//!
//! It must never know a codec.
#![expect(missing_docs, reason = "the bindings are generated from codec.wit, which documents them")]

mod bindings {
    wit_bindgen::generate!({
        path: "../../crates/sandbox/wit",
        world: "codec",
        pub_export_macro: true,
        export_macro_name: "export",
    });
}

pub use bindings::*;
pub use bindings::exports::shoal::codec::coder::{Direction, Dtype, Guest, Meta};

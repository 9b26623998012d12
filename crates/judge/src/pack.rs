//! Wraps a core WebAssembly module in the component that an entry is.
//!
//! A module that a compiler of C or a plain Rust crate made has the functions and no types; they are added from the WIT
//! world `shoal:codec`. A module with its own types (wit-bindgen) is wrapped as it is, and a component is left alone.
//!
//! | export of the module | signature |
//! |---|---|
//! | `memory` | |
//! | `cabi_realloc` | (old, old size, alignment, size) → pointer |
//! | `shoal:codec/coder@0.1.0#compress`, `…#decompress` | (data, length, dtype, shape, dimensions, direction) → pointer to {0, data, length}, or {1, text, length} for an error; three `u32` |

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Text of the WIT world.
pub const WIT: &str = include_str!("../../sandbox/wit/codec.wit");

/// Why a module is no entry.
#[derive(Debug, thiserror::Error)]
#[error("not a codec module: {0}")]
pub struct PackError(String);

/// First bytes of every component: magic, version 13 of layer 1.
const COMPONENT: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// The component of a module; a component comes back as it is.
pub fn pack(module: &[u8]) -> Result<Vec<u8>, PackError> {
    if module.starts_with(&COMPONENT) {
        return Ok(module.to_vec());
    }
    let fault = |error: &dyn std::fmt::Display| PackError(format!("{error:#}"));
    let mut typed = module.to_vec();
    if !has_types(module) {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("codec.wit", WIT).map_err(|error| fault(&error))?;
        let world = resolve.select_world(&[package], Some("codec")).map_err(|error| fault(&error))?;
        embed_component_metadata(&mut typed, &resolve, world, StringEncoding::UTF8)
            .map_err(|error| fault(&error))?;
    }
    let encode = || ComponentEncoder::default().validate(true).module(&typed)?.encode();
    encode().map_err(|error| fault(&error))
}

/// Whether a custom section names the world already.
fn has_types(module: &[u8]) -> bool {
    const NAME: &[u8] = b"component-type";
    module.windows(NAME.len()).any(|window| window == NAME)
}

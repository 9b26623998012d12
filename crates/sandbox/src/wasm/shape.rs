//! What a component may import (nothing) and must export (the interface, with exactly its types).

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex};

use super::{INTERFACE, Meta};
use crate::fault::{Error, Fault};

/// Parameters and result of both functions, as the engine's typed calls have them.
pub(super) type Params<'a> = (&'a [u8], &'a Meta);
pub(super) type Results = (Result<Vec<u8>, String>,);

/// Checks a component's imports and exports, and finds `compress` and `decompress`.
pub(super) fn check(
    engine: &Engine,
    component: &Component,
) -> Result<(ComponentExportIndex, ComponentExportIndex), Error> {
    let ty = component.component_type();
    if let Some((name, _)) = ty.imports(engine).next() {
        let name: String = name.chars().take(200).collect();
        return Err(Error::entry(Fault::Forbidden, format!("imports `{name}`; an entry imports nothing")));
    }
    let invalid = |log: String| Error::entry(Fault::Invalid, log);
    let Some(ComponentItem::ComponentInstance(coder)) =
        ty.get_export(engine, INTERFACE).map(|export| export.ty)
    else {
        return Err(invalid(format!("does not export the interface `{INTERFACE}`")));
    };
    let cx = ty.instance_type();
    let interface = component.get_export_index(None, INTERFACE);
    let find = |name: &str| {
        let Some(ComponentItem::ComponentFunc(function)) =
            coder.get_export(engine, name).map(|export| export.ty)
        else {
            return Err(invalid(format!("`{INTERFACE}` lacks the function `{name}`")));
        };
        if function.async_() {
            return Err(invalid(format!("`{name}` is async")));
        }
        function
            .typecheck::<Params<'_>, Results>(&cx)
            .map_err(|error| invalid(format!("`{name}` has another type than codec.wit's: {error:#}")))?;
        component
            .get_export_index(interface.as_ref(), name)
            .ok_or_else(|| invalid(format!("`{INTERFACE}` lacks the function `{name}`")))
    };
    Ok((find("compress")?, find("decompress")?))
}

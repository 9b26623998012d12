mod bindings {
    wit_bindgen::generate!({ path: "/tmp/wit", world: "codec", pub_export_macro: true, export_macro_name: "export" });
}
pub use bindings::*;

//! What a file is: a component, a Python program, a native one. Its first bytes say so, and its name must agree.

use arena::spec::Form;

use crate::archive::{self, ArchiveError};

/// Why a file is no code that can be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Nothing in it.
    #[error("it is empty: is it the right file, and was it written to its end?")]
    Empty,
    /// Text that does not call itself Python.
    #[error("it is text and its name does not end in .py: say --form python if it is a Python program")]
    Text,
    /// The name promises something else.
    #[error("its name ends in .{extension}, but it {found}: is it damaged, or misnamed?")]
    Misnamed {
        /// Extension.
        extension: String,
        /// What its bytes say.
        found: &'static str,
    },
    /// Neither of the forms.
    #[error(
        "it is neither WebAssembly nor an ELF executable nor a zip nor UTF-8 text (Python): say what it is with --form"
    )]
    Unknown,
    /// A zip that holds no program.
    #[error("{0}")]
    Archive(#[from] ArchiveError),
}

/// Form of code by its first bytes. `name` is the file's, where there is one: an extension that is known must agree, so
/// that a damaged component is not taken for a Python program.
///
/// A zip is a program's folder: with `solution.py` at its top a Python one, with `solution` a native one.
///
/// # Errors
/// It is none of them, or its name says that it is another.
pub fn tell(name: Option<&str>, code: &[u8]) -> Result<Form, FormError> {
    let (form, found) = match code {
        [] => return Err(FormError::Empty),
        [0, b'a', b's', b'm', ..] => (Some(Form::Component), "is WebAssembly"),
        [0x7f, b'E', b'L', b'F', ..] => (Some(Form::Native), "is a native executable"),
        _ if archive::is_archive(code) => (None, "is a zip"),
        _ if is_text(code) => (Some(Form::Python), "is text"),
        _ => {
            let found = "does not begin like one";
            return Err(known(name).map_or(FormError::Unknown, |extension| misnamed(extension, found)));
        }
    };
    let agrees = match known(name) {
        None => true,
        Some("wasm") => form == Some(Form::Component),
        Some("py") => form == Some(Form::Python),
        Some(_) => form.is_none(),
    };
    match (known(name).filter(|_| !agrees), form) {
        (Some(extension), _) => Err(misnamed(extension, found)),
        (None, Some(Form::Python)) if other_extension(name) => Err(FormError::Text),
        (None, Some(form)) => Ok(form),
        (None, None) => Ok(archive::form(code)?),
    }
}

fn misnamed(extension: &str, found: &'static str) -> FormError {
    FormError::Misnamed { extension: extension.to_owned(), found }
}

/// The extension of a name, if it promises a form.
fn known(name: Option<&str>) -> Option<&'static str> {
    let (_, extension) = name?.rsplit_once('.')?;
    ["wasm", "py", "zip"].into_iter().find(|known| extension.eq_ignore_ascii_case(known))
}

/// Whether a name promises something that is no form; the number of a version promises nothing.
fn other_extension(name: Option<&str>) -> bool {
    let extension =
        name.and_then(|name| name.trim_start_matches('.').rsplit_once('.')).map(|(_, extension)| extension);
    known(name).is_none()
        && extension.is_some_and(|extension| extension.chars().all(|c| c.is_ascii_alphabetic()))
}

fn is_text(code: &[u8]) -> bool {
    !code.contains(&0) && std::str::from_utf8(code).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_tell_and_names_must_agree() {
        let module = b"\0asm\x01\0\0\0";
        for name in [None, Some("codec"), Some("codec.wasm"), Some("dir.py/codec.WASM")] {
            assert_eq!(tell(name, module), Ok(Form::Component), "{name:?}");
        }
        assert_eq!(tell(Some("a.out"), b"\x7fELF\x02"), Ok(Form::Native));
        assert_eq!(tell(Some("solution.py"), b"import zlib\n"), Ok(Form::Python));
        assert_eq!(tell(None, b"import zlib\n"), Ok(Form::Python));
        assert_eq!(tell(Some("solution"), b"import zlib\n"), Ok(Form::Python));
        assert_eq!(tell(Some("codec-v1.2"), b"import zlib\n"), Ok(Form::Python));
        assert_eq!(tell(Some("spec.toml"), b"import zlib\n"), Err(FormError::Text));
        for (name, code) in [
            ("codec.wasm", &b"\0as"[..]),
            ("codec.wasm", b"import zlib\n"),
            ("codec.wasm", b"\xff\xfe"),
            ("solution.py", module),
            ("solution.py", b"\xff\xfe"),
            ("solution.zip", b"import zlib\n"),
        ] {
            let error = tell(Some(name), code).unwrap_err();
            assert!(matches!(error, FormError::Misnamed { .. }), "{name} {error}");
        }
        assert_eq!(tell(None, b""), Err(FormError::Empty));
        assert_eq!(tell(None, b"\xff\xfe"), Err(FormError::Unknown));
        assert_eq!(tell(None, b"nul \0 in it"), Err(FormError::Unknown));
    }
}

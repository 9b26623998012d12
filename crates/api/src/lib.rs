//! The arena over HTTP.
//! must never

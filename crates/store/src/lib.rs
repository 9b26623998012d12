//! State and blobs: SQLite and a folder.

//! Links between nodes: iroh and in-memory.

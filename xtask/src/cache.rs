//! Where tools are kept that cost minutes to build or fetch: the tests look there too.

pub use probe_tests::tool_cache as directory;

//! An API server for tests: it says what it is told to say.

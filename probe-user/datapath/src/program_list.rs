//! The names of the BPF programs that were loaded when this process started.
//!
//! Opening a program of another process requires `CAP_SYS_ADMIN`, which the daemon drops. So the names are read once
//! before that, for errors that name a conflicting program.

use std::{collections::HashMap, sync::OnceLock};

use aya::programs::loaded_programs;

static NAMES: OnceLock<HashMap<u32, String>> = OnceLock::new();

/// Reads the names, as far as permitted. Later calls have no effect.
pub fn read() {
    NAMES.get_or_init(|| {
        loaded_programs()
            .flatten()
            .filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())))
            .collect()
    });
}

/// The name of the program with this ID; `None` if it is unknown.
pub(super) fn program_name(id: u32) -> Option<&'static str> {
    read();
    NAMES.get()?.get(&id).map(String::as_str)
}

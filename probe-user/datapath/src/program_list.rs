//! The names of the BPF programs that were there when this one started.
//!
//! Opening somebody else's program takes `CAP_SYS_ADMIN`, which the daemon drops; an error that names the
//! program in the way wants it nevertheless. So the names are read once, while that is still allowed.

use std::{collections::HashMap, sync::OnceLock};

use aya::programs::loaded_programs;

static NAMES: OnceLock<HashMap<u32, String>> = OnceLock::new();

/// Reads the names, as far as that is allowed. Later calls change nothing.
pub fn read() {
    NAMES.get_or_init(|| {
        loaded_programs()
            .flatten()
            .filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())))
            .collect()
    });
}

/// The name of a program, by its number.
pub(super) fn program_name(id: u32) -> Option<&'static str> {
    read();
    NAMES.get()?.get(&id).map(String::as_str)
}

//! Little memory on every node.
//!
//! glibc gives each thread that allocates at the same time as another an arena of its own, and what was freed in one is no
//! use to the others: with 10,000 mappings and blocks of 1,000 ports coming and going the agent had 35 MiB resident, and
//! with one arena 28. The proxy reads lists in several threads. The number of arenas is read from the environment when a
//! program starts (mallopt(3)).

use std::{env, os::unix::process::CommandExt as _, process::Command};

/// How the number is told.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Begins this program anew, with one arena, unless somebody has said how many. Call it before anything was begun.
pub(crate) fn with_one_arena() {
    if !cfg!(target_env = "gnu") || env::var_os(ARENAS).is_some() {
        return;
    }
    let error = match env::current_exe() {
        Ok(program) => Command::new(program).args(env::args_os().skip(1)).env(ARENAS, "1").exec(),
        Err(error) => error,
    };
    tracing::debug!(%error, "going on with as many arenas as there are threads");
}

//! The CNI plugin: what a container runtime starts for each container.
//!
//! A runtime starts it with `CNI_COMMAND` in its environment and no arguments: [`call`] answers, without a thread or an
//! async runtime, and starts no other program. What the runtime says is read by [`portolan_cni`]; the work is done by
//! the agent behind its socket ([`ask`]), or here, in turns with others of its kind (`alone`), where there is no agent.
//!
//! It is a program of its own, `portolan-cni`, because each start of a container waits for its process: to map a large
//! program and to relocate it takes longer than all of the work. `portolan` can do the same, for where there is nothing
//! else. When ports are held without an agent, the plugin starts itself as their [`holder`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod alone;
pub mod ask;
pub mod call;
pub mod files;
pub mod holder;
mod log;
pub mod spool;

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

/// The name of the program.
pub const PROGRAM: &str = "portolan-cni";

/// What `portolan-cni --version` prints: `portolan` installs none of another version.
pub const VERSION: &str = concat!("portolan-cni ", env!("CARGO_PKG_VERSION"));

/// The program `portolan-cni`.
pub fn main() -> ExitCode {
    if call::is_called() {
        return call::main();
    }
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    let done = match words.split_first() {
        Some((verb, arguments)) if verb == "holder" => holder::main(arguments),
        Some((flag, _)) if flag == "--version" => {
            writeln!(io::stdout(), "{VERSION}").map_err(anyhow::Error::from)
        }
        _ => Err(anyhow::anyhow!(
            "this is the CNI plugin of Portolan: a container runtime starts it, with CNI_COMMAND in its environment. \
             `portolan cni install` puts it in its place"
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{PROGRAM}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

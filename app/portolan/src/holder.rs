//! `portolan holder`, hidden: the process that keeps bound sockets while `up` is restarted.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use portolan_cli::{Global, HolderArgs};
use portolan_ports::holder::{IDLE, ServeOptions, serve};

/// Serves until it is told to end, or until nobody has asked for it for a while. Its arguments are those that
/// [`portolan_ports::holder::HolderClient`] gives to the program it starts: `--socket PATH`.
pub(crate) fn main(_: Global, args: HolderArgs) -> anyhow::Result<ExitCode> {
    let socket = match args.arguments.as_slice() {
        [flag, path] if flag == "--socket" => PathBuf::from(path),
        _ => anyhow::bail!("the holder is started by `portolan up`, with --socket PATH"),
    };
    serve(&ServeOptions { socket, idle: IDLE, limit: None }).context("holding ports")?;
    Ok(ExitCode::SUCCESS)
}

//! `portolan cni install`, `uninstall` and `status`.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::Duration,
};

use portolan_cli::{CniArgs, CniInstallArgs, CniPlaceArgs, CniVerb, Global};
use portolan_model::{AgentReply, AgentRequest};
use portolan_plugin::ask::ask;

use super::install::{self, InstallConfig};

/// Runs `portolan cni`. It blocks: the program has nothing else to do.
pub(crate) fn main(_: Global, args: CniArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        CniVerb::Install(args) => install(args),
        CniVerb::Uninstall(place) => uninstall(place),
        CniVerb::Status(place) => status(&place),
    }
}

fn config(place: CniPlaceArgs, standalone: bool, keep_portmap: bool) -> InstallConfig {
    InstallConfig {
        bin_dir: Some(place.bin_dir),
        conf_dir: place.conf_dir,
        agent_socket: (!standalone).then_some(place.agent_socket),
        keep_portmap,
    }
}

fn install(args: CniInstallArgs) -> anyhow::Result<ExitCode> {
    let config = config(args.place, args.standalone, args.keep_portmap);
    let binary = config.binary().unwrap_or_default();
    let copied = install::copy_binary(&config)?;
    said(&binary, copied.changed, "installed", "is there already")?;
    if let Some(instead) = copied.instead {
        writeln!(anstream::stderr(), "hint: {instead}")?;
    }
    if args.watch {
        // Until the program is ended by a signal: nothing of it needs to be taken back.
        install::watch(&config, &AtomicBool::new(false));
        return Ok(ExitCode::SUCCESS);
    }
    let (path, changed) = install::chain(&config)?;
    said(&path, changed, "chained into", "has the plugin already")?;
    Ok(ExitCode::SUCCESS)
}

fn said(path: &Path, changed: bool, done: &str, already: &str) -> anyhow::Result<()> {
    let path = path.display();
    print(&match changed {
        true => format!("{done} {path}\n"),
        false => format!("{path} {already}\n"),
    })
}

fn uninstall(place: CniPlaceArgs) -> anyhow::Result<ExitCode> {
    let done = install::uninstall(&config(place, false, false))?;
    let lines: String = done.iter().map(|line| format!("{line}\n")).collect();
    print(if lines.is_empty() { "nothing of Portolan was there\n" } else { &lines })?;
    Ok(ExitCode::SUCCESS)
}

/// One line for each part, and whether all of them are right.
fn status(place: &CniPlaceArgs) -> anyhow::Result<ExitCode> {
    let config = config(place.clone(), false, false);
    let binary = config.binary().unwrap_or_default();
    let mut all = true;
    let mut text = String::new();
    let mut line = |good: bool, what: &str, detail: String| {
        all &= good;
        text += &format!("{:<5}{what:<8}{detail}\n", if good { "ok" } else { "fail" });
    };
    match install::is_current(&config) {
        Ok(true) => line(true, "plugin", binary.display().to_string()),
        Ok(false) => {
            line(false, "plugin", format!("{} is another version: install it again", binary.display()))
        }
        Err(error) => line(false, "plugin", format!("{error:#}")),
    }
    match install::chained(&place.conf_dir)? {
        Some((path, true)) => line(true, "chain", path.display().to_string()),
        Some((path, false)) => line(false, "chain", format!("{} has no entry of it", path.display())),
        None => line(false, "chain", format!("no network configuration in {}", place.conf_dir.display())),
    }
    let socket: &PathBuf = &place.agent_socket;
    match ask(socket, &AgentRequest::Status, Duration::ZERO, Duration::from_secs(5)) {
        Ok(AgentReply::Error { message, .. }) => line(false, "agent", message),
        Ok(_) => line(true, "agent", socket.display().to_string()),
        Err(error) => line(false, "agent", error.to_string()),
    }
    print(&text)?;
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

//! The process that keeps bound sockets while the plugin's calls come and go, and while `up` or the agent is restarted.
//!
//! The plugin starts it where there is no agent, as `portolan-cni holder`; `up` as `portolan holder`, which is also a
//! container of its own beside the agent's on Kubernetes.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use portolan_ports::{
    HolderMode,
    holder::{ABANDONED, IDLE, ServeOptions, serve},
};

const USAGE: &str = "holder --socket PATH [--idle DURATION|never] [--abandoned DURATION|never]";

/// Serves until it is told to end.
///
/// While nothing is held and nobody is connected it ends after `--idle`; with something held it stays, unless
/// `--abandoned` says how long.
pub fn main(arguments: &[OsString]) -> anyhow::Result<()> {
    serve(&options(arguments)?).context("holding ports")
}

/// This program as a holder that `up` starts: it goes away some time after an `up` that does not come back.
pub fn spawned() -> anyhow::Result<HolderMode> {
    let abandoned = humantime::format_duration(ABANDONED).to_string();
    Ok(HolderMode::Spawn {
        program: program()?,
        args: vec!["holder".into(), "--abandoned".into(), abandoned.into()],
    })
}

/// This program as a holder that the CNI plugin starts: it stays as long as it holds anything.
pub fn spawned_to_stay() -> anyhow::Result<HolderMode> {
    Ok(HolderMode::Spawn { program: program()?, args: vec!["holder".into()] })
}

fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("finding this program")
}

fn options(arguments: &[OsString]) -> anyhow::Result<ServeOptions> {
    let mut options = ServeOptions { socket: PathBuf::new(), idle: Some(IDLE), abandoned: None, limit: None };
    for pair in arguments.chunks(2) {
        let [flag, value] = pair else { bail!("{flag:?} needs a value: {USAGE}", flag = pair[0]) };
        match flag.to_str() {
            Some("--socket") => options.socket = value.into(),
            Some("--idle") => options.idle = duration(value)?,
            Some("--abandoned") => options.abandoned = duration(value)?,
            _ => bail!("{flag:?} is no flag of the holder: {USAGE}"),
        }
    }
    if options.socket.as_os_str().is_empty() {
        bail!("the holder needs a socket: {USAGE}");
    }
    Ok(options)
}

fn duration(text: &OsString) -> anyhow::Result<Option<Duration>> {
    let text = text.to_string_lossy();
    if text == "never" {
        return Ok(None);
    }
    let duration = humantime::parse_duration(&text);
    duration.map(Some).with_context(|| format!("{text:?} is no time: write 15min, or never"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<ServeOptions> {
        options(&text.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_holder_that_holds_something_stays_unless_told_otherwise() {
        let options = read("--socket /run/h.sock").unwrap();
        assert_eq!((options.idle, options.abandoned), (Some(IDLE), None));
        let options = read("--socket /run/h.sock --idle never --abandoned 15min").unwrap();
        assert_eq!((options.idle, options.abandoned), (None, Some(ABANDONED)));
        assert!(read("--socket").unwrap_err().to_string().contains("needs a value"));
        assert!(read("--idle 1s").unwrap_err().to_string().contains("needs a socket"));
        assert!(read("--socket /h --idle soon").unwrap_err().to_string().contains("is no time"));
        assert!(read("--what 1").unwrap_err().to_string().contains("is no flag"));
    }
}

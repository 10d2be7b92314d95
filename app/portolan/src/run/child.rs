//! Starts the command through `portolan launch` and waits for it.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, IsTerminal},
    path::Path,
    process::Stdio,
};

use portolan_model::{LeaseReply, Name, Network, environment};
use tokio::process::{Child, Command};

use super::plan::{Output, RunPlan};

/// A command that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// Its number, valid until it has been waited for.
    pub(crate) pid: u32,
    /// Whether it leads a process group of its own.
    pub(crate) own_group: bool,
}

/// Starts one copy. `ports_file` is where the JSON of its ports was written.
pub(crate) fn start(
    plan: &RunPlan,
    name: &Name,
    lease: &LeaseReply,
    ports_file: &Path,
) -> io::Result<Running> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("portolan").arg("launch");
    command.args(["--parent", &std::process::id().to_string()]);
    if let Some(namespace) = &lease.namespace {
        command.args(["--namespace", namespace]);
    }
    if let Some(resolv_conf) = &lease.resolv_conf {
        command.args(["--resolv-conf", resolv_conf]);
    }
    if plan.socket_activation {
        command.args(["--holder", &lease.holder]);
        for port in &lease.ports {
            let json = serde_json::to_string(port).map_err(io::Error::other)?;
            command.args(["--activate", &json]);
        }
    }
    command.arg("--").arg(&plan.program).args(&plan.arguments);
    command.envs(variables(plan, name, lease, ports_file));

    // One copy at a terminal keeps the terminal's group, or reading from it would stop the command (SIGTTIN).
    let own_group = plan.names.len() > 1 || !io::stdin().is_terminal();
    if own_group {
        command.process_group(0);
    }
    match &plan.output {
        Output::Inherit => {}
        Output::Folder(folder) => {
            let log = log_file(&folder.join(format!("{name}.log")))?;
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        }
    }
    // Should the supervisor be dropped in a panic, the command goes with it.
    let child = command.kill_on_drop(true).spawn()?;
    let pid = child.id().ok_or_else(|| io::Error::other("the command ended before it was known"))?;
    Ok(Running { child, pid, own_group })
}

/// What the command finds in its environment, beside what it inherits.
fn variables(plan: &RunPlan, name: &Name, lease: &LeaseReply, ports_file: &Path) -> Vec<(String, OsString)> {
    let advertised = lease.addresses.first().copied().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    let mut variables: Vec<(String, OsString)> =
        environment(&lease.ports, advertised).into_iter().map(|(key, value)| (key, value.into())).collect();
    let network = match lease.network {
        Network::Own => "own",
        Network::Host => "host",
    };
    variables.extend([
        ("PORTOLAN_INSTANCE".to_owned(), name.to_string().into()),
        ("PORTOLAN_SERVICE".to_owned(), plan.service.to_string().into()),
        ("PORTOLAN_NODE".to_owned(), lease.node.clone().into()),
        ("PORTOLAN_NETWORK".to_owned(), network.into()),
        ("PORTOLAN_PORTS_FILE".to_owned(), ports_file.as_os_str().to_owned()),
    ]);
    variables
}

fn log_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

//! `portolan launch`, hidden: the last step before a command runs. It becomes the command by `exec`.
//!
//! Entering a namespace, mounting a file over `/etc/resolv.conf` and setting `LISTEN_PID` all have to happen in the
//! process that will be the command, after fork and before exec. A program of our own does them in ordinary safe
//! code; a hook between fork and exec could not (`std::os::unix::process::CommandExt::pre_exec` is unsafe for
//! good reason). The price is one more exec, which `make bench` measures.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};
use portolan_cli::{Global, LaunchArgs};
use portolan_model::Protocol;
use portolan_ports::{hold::Hold, holder::HolderClient};
use rustix::{
    io::FdFlags,
    mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount},
    process::{Pid, Signal},
    thread::LinkNameSpaceType,
};

/// The first descriptor of socket activation: `SD_LISTEN_FDS_START` of sd_listen_fds(3).
const FIRST_LISTEN_FD: i32 = 3;

/// Does what the flags say, then becomes the command. Returns only when that failed.
pub(crate) fn main(_: Global, args: LaunchArgs) -> anyhow::Result<ExitCode> {
    die_with(args.parent)?;
    let sockets = match &args.holder {
        Some(holder) => listening_sockets(holder, &args)?,
        None => Vec::new(),
    };
    if let Some(namespace) = &args.namespace {
        enter(namespace)?;
    }
    if let Some(resolv_conf) = &args.resolv_conf {
        mount_over_resolv_conf(resolv_conf)?;
    }
    let (program, arguments) = args.command.split_first().context("launch needs a command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    let _kept = hand_over(sockets, &mut command)?;
    let error = command.exec();
    bail!("cannot execute {}: {error}", program.to_string_lossy())
}

/// The command must not outlive its supervisor: nobody would renew its registration or give back its ports.
fn die_with(parent: u32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("PR_SET_PDEATHSIG")?;
    // The parent may have died before the line above took effect: prctl(2), PR_SET_PDEATHSIG.
    if rustix::process::getppid().map(Pid::as_raw_nonzero).map(|p| p.get().unsigned_abs()) != Some(parent) {
        bail!("the supervisor {parent} is gone");
    }
    Ok(())
}

fn enter(namespace: &Path) -> anyhow::Result<()> {
    let file = File::open(namespace).with_context(|| format!("the namespace {}", namespace.display()))?;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("entering the namespace {}", namespace.display()))
}

/// In a mount namespace of the command's own, so that nobody else sees another `/etc/resolv.conf`.
fn mount_over_resolv_conf(resolv_conf: &Path) -> anyhow::Result<()> {
    const TARGET: &str = "/etc/resolv.conf";
    portolan_netlink::namespace::isolate_mounts().context("a mount namespace")?;
    // A slave still learns of the host's later mounts; nothing of ours goes back.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("mounts made private")?;
    match mount_bind(resolv_conf, TARGET) {
        Ok(()) => {}
        // A machine without the file has nothing to hide, and nothing to mount over.
        Err(error) if io::Error::from(error).kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{} over {TARGET}", resolv_conf.display())),
    }
    mount_remount(TARGET, MountFlags::BIND | MountFlags::RDONLY, c"").context("resolv.conf made read-only")
}

/// The bound sockets of the lease, taken from the holder, listening where the protocol has such a thing.
fn listening_sockets(holder: &Path, args: &LaunchArgs) -> anyhow::Result<Vec<(String, OwnedFd)>> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut client = HolderClient::connect_or_spawn(&program, &["holder".into()], holder)
        .with_context(|| format!("the holder at {}", holder.display()))?;
    let mut sockets = Vec::new();
    for port in &args.activate {
        for hold in Hold::of(port).flat_map(Hold::each) {
            let socket = client
                .take(hold)
                .with_context(|| format!("taking {hold} from the holder"))?
                .with_context(|| format!("the holder has no socket for {hold}"))?;
            if hold.protocol == Protocol::Tcp {
                rustix::net::listen(&socket, 4096).with_context(|| format!("listening on {hold}"))?;
            }
            sockets.push((port.name.to_string(), socket));
        }
    }
    Ok(sockets)
}

/// Numbers the sockets from 3 on and tells the command, as sd_listen_fds(3) has it.
///
/// What is returned must live until exec: dropping it would close the descriptors.
fn hand_over(sockets: Vec<(String, OwnedFd)>, command: &mut Command) -> anyhow::Result<Vec<OwnedFd>> {
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<OsString> = sockets.iter().map(|(name, _)| name.into()).collect();
    command
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_PID", std::process::id().to_string())
        .env("LISTEN_FDNAMES", names.join(":".as_ref()));
    // First out of the way of the numbers that they are to have, then into place in order: no copy lands on another.
    let last = FIRST_LISTEN_FD + i32::try_from(sockets.len()).context("too many sockets")?;
    let parked = sockets
        .into_iter()
        .map(|(_, socket)| rustix::io::fcntl_dupfd_cloexec(&socket, last))
        .collect::<Result<Vec<_>, _>>()?;
    let mut placed = Vec::with_capacity(parked.len());
    for (number, socket) in (FIRST_LISTEN_FD..).zip(parked) {
        let copy = rustix::io::fcntl_dupfd_cloexec(&socket, number)?;
        if copy.as_raw_fd() != number {
            bail!("descriptor {number} is taken: start `portolan run` without open descriptors above 2");
        }
        rustix::io::fcntl_setfd(&copy, FdFlags::empty())?;
        placed.push(copy);
    }
    Ok(placed)
}

//! A call by a container runtime, from the environment to the exit code.
//!
//! | | with an agent | alone |
//! | --- | --- | --- |
//! | ADD, CHECK | it decides and does; away for longer than some seconds: code 11, and the runtime tries again | done here |
//! | ADD that asks for nothing | done, without the agent: containers without ports start while it is away | done |
//! | DEL | it does; away: kept for it, and done | done here |
//! | GC | it does; away: code 11, it collects by itself when it is back | done here |
//! | STATUS | away for longer than some seconds: code 50 | whether the kernel and the folder allow it |

use std::{
    env,
    io::{self, IsTerminal as _, Read as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use portolan_cni::{Call, CniError, Command, Environment, Settings, SpecVersion, Task, code, version_reply};
use portolan_model::{AddRequest, AgentReply, AgentRequest, Attachment};

use crate::{
    alone,
    ask::{AskError, ask},
    spool,
};

/// How long an agent that is being started again is waited for: an upgrade takes no Pod start and no node down.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long it may work. kubelet gives a sandbox some minutes.
const LIMIT: Duration = Duration::from_secs(60);

/// No configuration is longer.
const STDIN: u64 = 16 << 20;

/// Whether a container runtime started this process.
pub fn is_called() -> bool {
    env::var_os("CNI_COMMAND").is_some() && env::args_os().len() <= 1
}

/// Answers the call.
pub fn main() -> ExitCode {
    let environment = Environment::read(|name| env::var(name).ok());
    let (reply, code) = match answer(&environment) {
        Ok(reply) => (reply, ExitCode::SUCCESS),
        Err((version, error)) => (error.json(version), ExitCode::FAILURE),
    };
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(reply.as_bytes()).and_then(|()| stdout.flush());
    if written.is_ok() { code } else { ExitCode::FAILURE }
}

fn answer(environment: &Environment) -> Result<String, (SpecVersion, CniError)> {
    let untold = |error| (SpecVersion::NEWEST, error);
    let command = environment.command().map_err(untold)?;
    let stdin = stdin(command).map_err(untold)?;
    if command == Command::Version {
        return Ok(version_reply(&stdin));
    }
    let call = Call::read(command, environment, &stdin).map_err(|e| (SpecVersion::of(&stdin), e))?;
    serve(&call).map_err(|error| (call.version, error))
}

fn stdin(command: Command) -> Result<Vec<u8>, CniError> {
    let stdin = io::stdin().lock();
    // What a pipe has: a block of 1,000 ports nearly fills it.
    let mut text = Vec::with_capacity(64 << 10);
    if command == Command::Version && stdin.is_terminal() {
        return Ok(text);
    }
    let read = stdin.take(STDIN).read_to_end(&mut text);
    read.map_err(|e| {
        CniError::new(code::IO, "cannot read the network configuration").with_details(e.to_string())
    })?;
    Ok(text)
}

/// Does the task; what comes back is for standard output.
fn serve(call: &Call) -> Result<String, CniError> {
    let settings = &call.settings;
    match &call.task {
        Task::Add { request, result } => {
            add(settings, request)?;
            Ok(result.get().to_owned())
        }
        Task::Check(request) => {
            if asks(request) {
                check_addresses(request)?;
                match settings.agent(request.pod.as_ref()) {
                    Some(_) => done(settings, &AgentRequest::Check(request.clone()))?,
                    None => alone::check(settings, request)?,
                }
            }
            Ok(String::new())
        }
        Task::Del { attachment, pod } => {
            match settings.agent(pod.as_ref()) {
                Some(_) => {
                    let request = AgentRequest::Del { attachment: attachment.clone(), pod: pod.clone() };
                    release(settings, attachment, &request)?;
                }
                None => alone::del(settings, attachment)?,
            }
            Ok(String::new())
        }
        Task::Gc { valid: None, .. } => {
            log("GC does not say which attachments are valid: nothing is taken back");
            Ok(String::new())
        }
        Task::Gc { network, valid: Some(valid) } => {
            // GC has no CNI_ARGS to tell Kubernetes by.
            if settings.agent(None).is_some() || (settings.is_open() && settings.agent_socket().exists()) {
                done(settings, &AgentRequest::Gc { network: network.clone(), valid: valid.clone() })?;
            }
            if settings.agent(None).is_none() {
                alone::gc(settings, network, valid)?;
            }
            Ok(String::new())
        }
        Task::Status => {
            if settings.agent(None).is_some() || (settings.is_open() && settings.agent_socket().exists()) {
                let not_available = |error: CniError| CniError { code: code::NOT_AVAILABLE, ..error };
                done(settings, &AgentRequest::Status).map_err(not_available)?;
            } else {
                alone::status(settings)?;
            }
            Ok(String::new())
        }
    }
}

fn add(settings: &Settings, request: &AddRequest) -> Result<(), CniError> {
    if !asks(request) {
        return Ok(());
    }
    check_namespace(request)?;
    check_addresses(request)?;
    match settings.agent(request.pod.as_ref()) {
        None => alone::add(settings, request),
        Some(_) => {
            done(settings, &AgentRequest::Add(request.clone()))?;
            spool::forget(settings.agent_socket(), &request.attachment);
            Ok(())
        }
    }
}

/// Whether anybody may want ports. Without the annotations nobody knows but the agent.
fn asks(request: &AddRequest) -> bool {
    let by_annotation = match &request.annotations {
        Some(annotations) => {
            annotations.keys().any(|key| key.starts_with("portolan.dev/") || key == "tkestack.io/portmapping")
        }
        None => request.pod.is_some(),
    };
    by_annotation || !request.ports.is_empty()
}

/// Ports mapped to the namespace of the runtime would be mapped to the host.
fn check_namespace(request: &AddRequest) -> Result<(), CniError> {
    let path = request.netns.as_deref().unwrap_or_default();
    let wrong = |what: String| CniError::new(code::ENVIRONMENT, format!("CNI_NETNS {path}: {what}"));
    let theirs = rustix::fs::stat(path).map_err(|error| wrong(error.to_string()))?;
    let ours = rustix::fs::stat("/proc/self/ns/net").map_err(|error| wrong(error.to_string()))?;
    match (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino) {
        true => Err(wrong("it is the network namespace of the plugin itself, not of a container".to_owned())),
        false => Ok(()),
    }
}

fn check_addresses(request: &AddRequest) -> Result<(), CniError> {
    if request.addresses.is_empty() && !request.ports.is_empty() {
        let interface = &request.attachment.interface;
        return Err(CniError::new(
            code::CONFIG,
            format!("prevResult has no address for {interface}: there is nothing to map ports to"),
        ));
    }
    Ok(())
}

/// Has the agent do it.
fn done(settings: &Settings, request: &AgentRequest) -> Result<(), CniError> {
    match ask(settings.agent_socket(), request, PATIENCE, LIMIT) {
        Ok(reply) => accept(reply),
        Err(error) => Err(unanswered(&error)),
    }
}

fn accept(reply: AgentReply) -> Result<(), CniError> {
    match reply {
        AgentReply::Done { .. } | AgentReply::Ports(_) => Ok(()),
        AgentReply::Error { code, message, details } => Err(CniError { code, message, details }),
    }
}

fn unanswered(error: &AskError) -> CniError {
    let code = match error {
        AskError::Away { .. } | AskError::Silent { .. } => code::TRY_AGAIN,
        AskError::Strange { .. } => code::FAILED,
    };
    CniError::new(code, error.to_string())
}

/// A DEL that the agent does, now or when it is back.
fn release(settings: &Settings, attachment: &Attachment, request: &AgentRequest) -> Result<(), CniError> {
    let socket = settings.agent_socket();
    let error = match ask(socket, request, Duration::ZERO, LIMIT) {
        Ok(reply) => return accept(reply),
        Err(error @ AskError::Strange { .. }) => return Err(unanswered(&error)),
        Err(error) => error,
    };
    match spool::keep(socket, attachment, request) {
        Ok(true) => {}
        Ok(false) => {
            log(&format!("{error}; it has not run here, so there is nothing to release"));
            return Ok(());
        }
        Err(io) => {
            log(&format!(
                "{error}; the release cannot be kept for it ({io}): it will find the namespace gone"
            ));
            return Ok(());
        }
    }
    // It may have begun to listen, and read what was kept, before this release was.
    if let Ok(AgentReply::Done { .. }) = ask(socket, request, Duration::ZERO, LIMIT) {
        spool::forget(socket, attachment);
        return Ok(());
    }
    log(&format!("{error}; the release is kept until it is back"));
    Ok(())
}

/// Unstructured output is for standard error; runtimes put it into their log.
fn log(text: &str) {
    let _ = writeln!(io::stderr(), "portolan: {text}");
}

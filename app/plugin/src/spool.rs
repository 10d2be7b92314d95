//! Releases that came while the agent was away.
//!
//! DEL must succeed when it can, and the release must not be lost. Most sandboxes take their network namespace with
//! them, by which the agent finds their leases; some callers keep the namespace, so the DEL itself is kept too: a file
//! for each in the folder `released` beside the agent's socket. The agent takes them once it listens.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use portolan_model::{AgentRequest, Attachment};

/// Keeps a DEL of `attachment` for the agent of `socket`. `false` when no agent has run since the machine started: then
/// there is nothing to release.
pub fn keep(socket: &Path, attachment: &Attachment, request: &AgentRequest) -> io::Result<bool> {
    let file = file(socket, attachment);
    let folder = folder(socket);
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Another DEL of the same attachment would write the same.
    let new = folder.join(format!(".{}", std::process::id()));
    fs::write(&new, serde_json::to_vec(request)?)?;
    fs::rename(new, file)?;
    Ok(true)
}

/// Forgets a DEL that was kept: it has been done, or the attachment is there again.
pub fn forget(socket: &Path, attachment: &Attachment) {
    // Nearly always there is none, and there is nothing to do about a failure: the release is done twice.
    let _ = fs::remove_file(file(socket, attachment));
}

/// Takes the DELs that were kept, for the agent. Call it when the socket listens: what is kept after that, its plugin
/// tries to deliver once more.
pub fn take(socket: &Path) -> Vec<AgentRequest> {
    let Ok(files) = fs::read_dir(folder(socket)) else { return Vec::new() };
    let mut requests = Vec::new();
    for file in files.flatten().filter(|file| !file.file_name().as_encoded_bytes().starts_with(b".")) {
        let request = fs::read(file.path()).ok().and_then(|json| serde_json::from_slice(&json).ok());
        match request {
            Some(request @ AgentRequest::Del { .. }) => requests.push(request),
            _ => tracing::warn!(file = %file.path().display(), "no release is in this file; removing it"),
        }
        let _ = fs::remove_file(file.path());
    }
    requests
}

/// Where they are kept for the agent of `socket`.
pub fn folder(socket: &Path) -> PathBuf {
    socket.with_file_name("released")
}

/// The characters of container IDs and interfaces are checked when they are read: they can be part of a file's name.
fn file(socket: &Path, attachment: &Attachment) -> PathBuf {
    folder(socket).join(format!("{}@{}", attachment.container, attachment.interface))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(container: &str) -> (Attachment, AgentRequest) {
        let attachment =
            Attachment { container: container.into(), interface: "eth0".into(), network: "net".into() };
        (attachment.clone(), AgentRequest::Del { attachment, pod: None })
    }

    #[test]
    fn a_release_is_kept_once_and_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let (first, request) = release("a");
        assert!(keep(&socket, &first, &request).unwrap() && keep(&socket, &first, &request).unwrap());
        let (second, other) = release("b");
        assert!(keep(&socket, &second, &other).unwrap());
        forget(&socket, &second);
        assert_eq!(take(&socket), [request]);
        assert_eq!(take(&socket), []);
    }

    #[test]
    fn nothing_is_kept_where_no_agent_has_been() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("absent/agent.sock");
        let (attachment, request) = release("a");
        assert!(!keep(&socket, &attachment, &request).unwrap());
        assert_eq!(take(&socket), []);
    }
}

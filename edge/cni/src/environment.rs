//! The parameters of a call: environment variables (specification, section 2, "Parameters").

use crate::{CniError, code};

/// The operation, `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Publish the ports of an attachment.
    Add,
    /// Take them back.
    Del,
    /// Whether they are as ADD left them.
    Check,
    /// Take back what belongs to attachments that are no more.
    Gc,
    /// Whether ADD would be served.
    Status,
    /// Which versions are served.
    Version,
}

/// The variables as they are set; empty is as unset, as in libcni.
///
/// `CNI_PATH` is not read, because this plugin executes no other, and neither is `CNI_NETNS_OVERRIDE`: ports mapped to
/// the network namespace that the plugin itself is in would be mapped to the host.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    command: Option<String>,
    container: Option<String>,
    netns: Option<String>,
    interface: Option<String>,
    arguments: Option<String>,
}

impl Environment {
    /// Reads them by `get`, such as `|name| std::env::var(name).ok()`.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name| get(name).filter(|value| !value.is_empty());
        Self {
            command: get("CNI_COMMAND"),
            container: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            interface: get("CNI_IFNAME"),
            arguments: get("CNI_ARGS"),
        }
    }

    /// What is to be done.
    ///
    /// # Errors
    /// Code 4 when `CNI_COMMAND` is none of the specification's.
    pub fn command(&self) -> Result<Command, CniError> {
        match self.command.as_deref().unwrap_or_default() {
            "ADD" => Ok(Command::Add),
            "DEL" => Ok(Command::Del),
            "CHECK" => Ok(Command::Check),
            "GC" => Ok(Command::Gc),
            "STATUS" => Ok(Command::Status),
            "VERSION" => Ok(Command::Version),
            "" => Err(missing(&["CNI_COMMAND"])),
            other => Err(CniError::new(code::ENVIRONMENT, format!("unknown CNI_COMMAND: {other}"))),
        }
    }

    /// `CNI_CONTAINERID` and `CNI_IFNAME`, which every operation on an attachment needs.
    pub(crate) fn attachment(&self) -> Result<(&str, &str), CniError> {
        match (self.container.as_deref(), self.interface.as_deref()) {
            (Some(container), Some(interface)) => {
                check_container(container)?;
                check_interface(interface)?;
                Ok((container, interface))
            }
            (container, interface) => {
                let unset = [(container, "CNI_CONTAINERID"), (interface, "CNI_IFNAME")];
                let names = unset.iter().filter(|(value, _)| value.is_none()).map(|(_, name)| *name);
                Err(missing(&names.collect::<Vec<_>>()))
            }
        }
    }

    /// `CNI_NETNS`, which ADD and CHECK need.
    pub(crate) fn netns(&self) -> Result<&str, CniError> {
        self.netns.as_deref().ok_or_else(|| missing(&["CNI_NETNS"]))
    }

    /// `CNI_ARGS`.
    pub(crate) fn arguments(&self) -> &str {
        self.arguments.as_deref().unwrap_or_default()
    }
}

fn missing(names: &[&str]) -> CniError {
    CniError::new(
        code::ENVIRONMENT,
        format!("required environment variables are not set: {}", names.join(", ")),
    )
}

/// "Must start with an alphanumeric character, optionally followed by any combination of one or more alphanumeric
/// characters, underscore, dot or hyphen": so it can be part of a file's name.
fn check_container(container: &str) -> Result<(), CniError> {
    if is_plain(container) {
        return Ok(());
    }
    Err(CniError::new(code::ENVIRONMENT, format!("invalid CNI_CONTAINERID: {container:?}")).with_details(
        "it begins with a letter or digit and has letters, digits, underscores, dots and hyphens only",
    ))
}

/// The kernel's rules for the name of an interface: `dev_valid_name()` in net/core/dev.c.
fn check_interface(interface: &str) -> Result<(), CniError> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if interface.len() <= 15 && !matches!(interface, "." | "..") && !interface.contains(bad) {
        return Ok(());
    }
    Err(CniError::new(code::ENVIRONMENT, format!("invalid CNI_IFNAME: {interface:?}"))
        .with_details("the kernel takes 1 to 15 characters without '/', ':' and white space"))
}

/// The characters of container IDs and network names.
pub(crate) fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

//! A call: the variables of the environment and the configuration on standard input, checked and put together.

use portolan_model::{AddRequest, Attachment, PodRef};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    CniError, Command, Environment, Settings, SpecVersion, arguments, code,
    config::{Config, Runtime},
    environment::is_plain,
    portmap::Options,
    result,
};

/// The capability by which containerd tells the annotations of a Pod.
pub const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// What the runtime wants, checked.
#[derive(Clone, Debug)]
pub struct Call {
    /// The version in which to answer.
    pub version: SpecVersion,
    /// Our own settings.
    pub settings: Settings,
    /// What to do.
    pub task: Task,
}

/// What to do. VERSION is [`crate::version_reply`]'s.
#[derive(Clone, Debug)]
pub enum Task {
    /// ADD.
    Add {
        /// Of whom and what.
        request: AddRequest,
        /// What to answer with: `prevResult`, not a byte of it changed.
        result: Box<RawValue>,
    },
    /// CHECK.
    Check(AddRequest),
    /// DEL.
    Del {
        /// Of whom.
        attachment: Attachment,
        /// With Kubernetes, the Pod.
        pod: Option<PodRef>,
    },
    /// GC.
    Gc {
        /// The network.
        network: String,
        /// The attachments that exist. `None`, the runtime does not say: then nothing is known to be stale, and
        /// running containers do not lose their ports.
        valid: Option<Vec<Attachment>>,
    },
    /// STATUS.
    Status,
}

/// The parts that every command needs; the rest is read when it is needed, because DEL fails on as little as possible.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(rename = "cniVersion", default)]
    version: String,
    #[serde(default)]
    name: String,
    #[serde(rename = "prevResult", borrow)]
    previous: Option<&'a RawValue>,
    #[serde(rename = "cni.dev/valid-attachments", borrow)]
    valid: Option<&'a RawValue>,
    /// What libcni 1.2.0 called it, before the specification was followed.
    #[serde(rename = "cni.dev/attachments", borrow)]
    valid_before: Option<&'a RawValue>,
}

impl Call {
    /// Reads a call of `command`, which is not [`Command::Version`].
    ///
    /// # Errors
    /// With the specification's code for what is wrong.
    pub fn read(command: Command, environment: &Environment, stdin: &[u8]) -> Result<Self, CniError> {
        let (config, runtime) = match command {
            Command::Add | Command::Check => Config::read::<Runtime<'_>>(stdin)?,
            _ => (Config::read::<IgnoredAny>(stdin)?.0, None),
        };
        let parts: Parts<'_> = config.part()?;
        let version: SpecVersion = parts.version.parse()?;
        if version < since(command) {
            return Err(CniError::new(code::VERSION, "incompatible CNI versions").with_details(format!(
                "the configuration has cniVersion {version}, and {command:?} is part of {} and later",
                since(command)
            )));
        }
        if !is_plain(&parts.name) {
            return Err(CniError::new(code::CONFIG, format!("{:?} is no network name", parts.name)).with_details(
                "it begins with a letter or digit and has letters, digits, underscores, dots and hyphens only",
            ));
        }
        let settings = config.part()?;
        let task = match command {
            Command::Add => {
                let request = add_request(environment, &config, &parts, runtime)?;
                Task::Add { request, result: previous(&parts)?.to_owned() }
            }
            Command::Check => Task::Check(add_request(environment, &config, &parts, runtime)?),
            Command::Del => {
                let pod = arguments::pod(environment.arguments());
                Task::Del { attachment: attachment(environment, &parts)?, pod }
            }
            Command::Gc => Task::Gc { valid: valid_attachments(&parts)?, network: parts.name },
            Command::Status | Command::Version => Task::Status,
        };
        Ok(Self { version, settings, task })
    }
}

/// The first version of the specification that has the command.
const fn since(command: Command) -> SpecVersion {
    match command {
        Command::Add | Command::Del | Command::Version => SpecVersion::V0_1_0,
        Command::Check => SpecVersion::V0_4_0,
        Command::Gc | Command::Status => SpecVersion::V1_1_0,
    }
}

fn attachment(environment: &Environment, parts: &Parts<'_>) -> Result<Attachment, CniError> {
    let (container, interface) = environment.attachment()?;
    Ok(Attachment {
        container: container.to_owned(),
        interface: interface.to_owned(),
        network: parts.name.clone(),
    })
}

fn previous<'a>(parts: &Parts<'a>) -> Result<&'a RawValue, CniError> {
    parts.previous.ok_or_else(|| {
        CniError::new(
            code::CONFIG,
            "there is no prevResult: chain this plugin behind one that makes the interface",
        )
    })
}

fn add_request(
    environment: &Environment,
    config: &Config<'_>,
    parts: &Parts<'_>,
    runtime: Option<Runtime<'_>>,
) -> Result<AddRequest, CniError> {
    let attachment = attachment(environment, parts)?;
    let netns = environment.netns()?.to_owned();
    config.part::<Options>()?.check()?;
    let runtime = runtime.unwrap_or_default();
    let pod = arguments::pod(environment.arguments());
    let mut ports = runtime.mappings.unwrap_or_default().check()?;
    if pod.is_some() {
        // kubelet lists every container port, with host port 0 for those that are to have none. Random ports of a Pod
        // are asked for by annotation, where policy looks at them.
        ports.retain(|port| port.host_port != 0);
    }
    let addresses = result::addresses(previous(parts)?.get(), &attachment.interface)?;
    Ok(AddRequest { attachment, netns: Some(netns), pod, addresses, ports, annotations: runtime.annotations })
}

fn valid_attachments(parts: &Parts<'_>) -> Result<Option<Vec<Attachment>>, CniError> {
    #[derive(Deserialize)]
    struct Valid {
        #[serde(rename = "containerID")]
        container: String,
        ifname: String,
    }
    let Some(json) = parts.valid.or(parts.valid_before) else { return Ok(None) };
    let valid: Vec<Valid> = serde_json::from_str(json.get()).map_err(|error| {
        CniError::new(code::DECODE, "cannot read cni.dev/valid-attachments").with_details(error.to_string())
    })?;
    let attachment = |Valid { container, ifname }| Attachment {
        container,
        interface: ifname,
        network: parts.name.clone(),
    };
    Ok(Some(valid.into_iter().map(attachment).collect()))
}

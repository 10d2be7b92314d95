//! A call: the variables of the environment and the configuration on standard input, checked and put together.

use std::collections::BTreeMap;

use portolan_model::{AddRequest, Attachment, PodRef};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{
    CniError, Command, Environment, Settings, SpecVersion, arguments, code, environment::is_plain, mappings,
    portmap::Options, result,
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
struct Config<'a> {
    #[serde(rename = "cniVersion", default)]
    version: String,
    #[serde(default)]
    name: String,
    #[serde(rename = "prevResult", borrow)]
    previous: Option<&'a RawValue>,
    #[serde(rename = "runtimeConfig", borrow)]
    runtime: Option<&'a RawValue>,
    #[serde(rename = "cni.dev/valid-attachments", borrow)]
    valid: Option<&'a RawValue>,
    /// What libcni 1.2.0 called it, before the specification was followed.
    #[serde(rename = "cni.dev/attachments", borrow)]
    valid_before: Option<&'a RawValue>,
}

impl Config<'_> {
    /// The configuration that this was read from with `null` in the place of what may be long.
    fn without_large(&self, stdin: &[u8]) -> Vec<u8> {
        let mut small = Vec::new();
        let mut rest = stdin;
        let mut parts: Vec<&[u8]> =
            [self.previous, self.runtime].into_iter().flatten().map(|json| json.get().as_bytes()).collect();
        parts.sort_by_key(|part| part.as_ptr());
        for part in parts {
            // It is borrowed from there.
            let start = part.as_ptr().addr().wrapping_sub(rest.as_ptr().addr());
            let Some((before, after)) = rest.split_at_checked(start) else { continue };
            small.extend_from_slice(before);
            small.extend_from_slice(b"null");
            rest = after.get(part.len()..).unwrap_or_default();
        }
        small.extend_from_slice(rest);
        small
    }
}

#[derive(Default, Deserialize)]
struct Runtime<'a> {
    #[serde(rename = "portMappings", borrow)]
    mappings: Option<&'a RawValue>,
    /// Told, and null when the Pod has none; or not told at all.
    #[serde(rename = "io.kubernetes.cri.pod-annotations", default, deserialize_with = "told")]
    annotations: Option<BTreeMap<String, String>>,
}

fn told<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    Option::deserialize(from).map(|annotations| Some(annotations.unwrap_or_default()))
}

impl Call {
    /// Reads a call of `command`, which is not [`Command::Version`].
    ///
    /// # Errors
    /// With the specification's code for what is wrong.
    pub fn read(command: Command, environment: &Environment, stdin: &[u8]) -> Result<Self, CniError> {
        let config: Config<'_> = decode(stdin)?;
        let version: SpecVersion = config.version.parse()?;
        if version < since(command) {
            return Err(CniError::new(code::VERSION, "incompatible CNI versions").with_details(format!(
                "the configuration has cniVersion {version}, and {command:?} is part of {} and later",
                since(command)
            )));
        }
        if !is_plain(&config.name) {
            return Err(CniError::new(code::CONFIG, format!("{:?} is no network name", config.name)).with_details(
                "it begins with a letter or digit and has letters, digits, underscores, dots and hyphens only",
            ));
        }
        // A list of 1,000 mappings is read once and passed over once, not for every question.
        let small = config.without_large(stdin);
        let settings = decode(&small)?;
        let task = match command {
            Command::Add => {
                let request = add_request(environment, &config, &small)?;
                Task::Add { request, result: previous(&config)?.to_owned() }
            }
            Command::Check => Task::Check(add_request(environment, &config, &small)?),
            Command::Del => {
                let pod = arguments::pod(environment.arguments());
                Task::Del { attachment: attachment(environment, &config)?, pod }
            }
            Command::Gc => Task::Gc { valid: valid_attachments(&config)?, network: config.name },
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

fn decode<'a, T: Deserialize<'a>>(stdin: &'a [u8]) -> Result<T, CniError> {
    serde_json::from_slice(stdin).map_err(|error| {
        CniError::new(code::DECODE, "cannot read the network configuration").with_details(error.to_string())
    })
}

fn attachment(environment: &Environment, config: &Config<'_>) -> Result<Attachment, CniError> {
    let (container, interface) = environment.attachment()?;
    Ok(Attachment {
        container: container.to_owned(),
        interface: interface.to_owned(),
        network: config.name.clone(),
    })
}

fn previous<'a>(config: &Config<'a>) -> Result<&'a RawValue, CniError> {
    config.previous.ok_or_else(|| {
        CniError::new(
            code::CONFIG,
            "there is no prevResult: chain this plugin behind one that makes the interface",
        )
    })
}

fn add_request(environment: &Environment, config: &Config<'_>, small: &[u8]) -> Result<AddRequest, CniError> {
    let attachment = attachment(environment, config)?;
    let netns = environment.netns()?.to_owned();
    decode::<Options>(small)?.check()?;
    let runtime = match config.runtime {
        Some(json) => decode::<Runtime<'_>>(json.get().as_bytes())?,
        None => Runtime::default(),
    };
    let pod = arguments::pod(environment.arguments());
    let mut ports = match runtime.mappings {
        Some(json) => mappings::read(json.get())?,
        None => Vec::new(),
    };
    if pod.is_some() {
        // kubelet lists every container port, with host port 0 for those that are to have none. Random ports of a Pod
        // are asked for by annotation, where policy looks at them.
        ports.retain(|port| port.host_port != 0);
    }
    let addresses = result::addresses(previous(config)?.get(), &attachment.interface)?;
    Ok(AddRequest { attachment, netns: Some(netns), pod, addresses, ports, annotations: runtime.annotations })
}

fn valid_attachments(config: &Config<'_>) -> Result<Option<Vec<Attachment>>, CniError> {
    #[derive(Deserialize)]
    struct Valid {
        #[serde(rename = "containerID")]
        container: String,
        ifname: String,
    }
    let Some(json) = config.valid.or(config.valid_before) else { return Ok(None) };
    let valid: Vec<Valid> = serde_json::from_str(json.get()).map_err(|error| {
        CniError::new(code::DECODE, "cannot read cni.dev/valid-attachments").with_details(error.to_string())
    })?;
    let attachment = |Valid { container, ifname }| Attachment {
        container,
        interface: ifname,
        network: config.name.clone(),
    };
    Ok(Some(valid.into_iter().map(attachment).collect()))
}

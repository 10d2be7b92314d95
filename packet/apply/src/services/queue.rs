//! What the owner can be asked to do.

use std::{collections::HashSet, fmt, net::IpAddr, sync::Arc};

use portolan_model::{EndpointSlice, Service};
use portolan_plan::Flow;
use portolan_services::{Services, ServicesConfig, Touched};

use super::event::ServiceEvent;
use crate::{ApplyError, queue::Reply};

/// Events that become true together.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) events: Vec<ServiceEvent>,
    pub(crate) reply: Reply<Result<(), ApplyError>>,
}

/// A question to the Services as the owner knows them.
pub(crate) struct Question(pub(crate) Box<dyn FnOnce(&Services) + Send>);

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

/// What the owner is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Events.
    Change(Request),
    /// These Services and slices, and no others.
    Replace { services: Vec<Service>, slices: Vec<EndpointSlice>, reply: Reply<Result<(), ApplyError>> },
    /// Another configuration, the same Services.
    Reconfigure { config: Box<ServicesConfig>, reply: Reply<Result<(), ApplyError>> },
    /// Look at the Services.
    Ask(Question),
    /// Which of these flows are stale? One answer for each.
    Judge { flows: Vec<Flow>, touched: Arc<Touched>, local: Arc<HashSet<IpAddr>>, reply: Reply<Vec<bool>> },
    /// The number of looks at the connections asked for so far.
    Flushes { reply: Reply<u64> },
    /// Delete the table and end.
    Stop { reply: Reply<Result<(), ApplyError>> },
    /// End and leave the table.
    Leave,
}

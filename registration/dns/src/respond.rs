//! From a packet to what is sent back: the decision which questions are ours.
//!
//! Ours are the names in the zone, answered at once from the catalog. Others are forwarded for those clients who
//! have nobody else to ask, and refused to all others, so that a listener never becomes an open resolver.

use std::{net::IpAddr, sync::Arc};

use hickory_proto::{
    op::ResponseCode,
    rr::{DNSClass, RecordType},
};
use ipnet::IpNet;
use portolan_telemetry::metrics::Metrics;

use crate::{
    answer::{View, answer},
    forward::{Forwarder, Permit},
    message::{Received, Request, Transport, read},
    zone::Zone,
};

/// Where the answers come from.
pub trait Catalog: Send + Sync + 'static {
    /// One moment of it.
    type View: View;
    /// The catalog now; `None` while it is still being loaded. Then every name gets SERVFAIL, which no client keeps,
    /// and never "no such name", which they would.
    fn now(&self) -> Option<Self::View>;
}

/// All that one listener needs to answer.
pub(crate) struct Responder<C> {
    pub(crate) catalog: Arc<C>,
    pub(crate) zone: Zone,
    pub(crate) forwarder: Arc<Forwarder>,
    /// For whom names outside the zone are forwarded.
    pub(crate) forward_for: Vec<IpNet>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What to do about a packet.
pub(crate) enum Response {
    /// Send this.
    Now(Vec<u8>),
    /// Ask others first: [`Responder::forward`].
    Forward(Box<Request>, Permit),
    /// Nothing.
    Silence,
}

impl<C: Catalog> Responder<C> {
    /// Decides, and answers what can be answered without waiting.
    pub(crate) fn respond(&self, packet: &[u8], client: IpAddr, transport: Transport) -> Response {
        let mut request = match read(packet, transport) {
            Received::Noise => return Response::Silence,
            Received::Refused(bytes, code) => {
                self.count(code);
                return Response::Now(bytes);
            }
            Received::Request(request) => request,
        };
        let forwards = self.forwards_for(client);
        let refuse = |request: &Request, code| {
            let mut metadata = request.reply(code);
            metadata.recursion_available = forwards;
            self.count(code);
            Response::Now(request.refuse(metadata))
        };
        if request.has_unknown_edns() {
            return refuse(&request, ResponseCode::BADVERS);
        }
        let kind = request.query.query_type();
        if !matches!(request.query.query_class(), DNSClass::IN | DNSClass::ANY)
            || matches!(kind, RecordType::AXFR | RecordType::IXFR)
        {
            return refuse(&request, ResponseCode::Refused);
        }
        if self.zone.asked(request.query.name()).is_none() {
            if !forwards {
                return refuse(&request, ResponseCode::Refused);
            }
            return match self.forwarder.permit() {
                Some(permit) => Response::Forward(request, permit),
                None => refuse(&request, ResponseCode::ServFail),
            };
        }
        let Some(view) = self.catalog.now() else { return refuse(&request, ResponseCode::ServFail) };
        let most = request.most_records();
        let answer = answer(&self.zone, &view, request.query.name(), kind, most, &mut rand::rng());
        // `None` is a name outside the zone, which was seen above.
        let Some(answer) = answer else { return refuse(&request, ResponseCode::Refused) };
        // Whom nobody else resolves names for is told where the alias leads to; all others find out by themselves.
        if answer.leads_to.is_some()
            && forwards
            && request.metadata.recursion_desired
            && let Some(permit) = self.forwarder.permit()
        {
            request.aliases = answer.answers;
            return Response::Forward(request, permit);
        }
        let mut metadata = request.reply(answer.code);
        metadata.authoritative = true;
        metadata.recursion_available = forwards;
        self.count(answer.code);
        Response::Now(request.write(metadata, &answer))
    }

    /// Asks the resolvers of this machine.
    pub(crate) async fn forward(&self, request: &Request, permit: Permit) -> Vec<u8> {
        let (bytes, code) = self.forwarder.forward(request, permit).await;
        self.count(code);
        bytes
    }

    fn forwards_for(&self, client: IpAddr) -> bool {
        // A listener of both families sees IPv4 clients as ::ffff:a.b.c.d.
        let client = client.to_canonical();
        self.forward_for.iter().any(|net| net.contains(&client))
    }

    fn count(&self, code: ResponseCode) {
        self.metrics.dns_query(mnemonic(code));
    }
}

/// The name of a code for metrics (RFC 6895 section 2.3). Bounded: upstream resolvers may send any number.
const fn mnemonic(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "OTHER",
    }
}

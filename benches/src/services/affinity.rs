//! Clients that come back to the endpoint of last time: what that costs the first packet, with few endpoints and many.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use portolan_model::EndpointSlice;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::{
    alone::or_dash,
    etcd::Etcd,
    objects::{PORT, Size, cluster_address, name, slices, stored_service, stored_slice},
    place::{CLIENTS as ADDRESSES, Place},
};
use crate::{stats::Samples, table::Table};

/// Clients, each with an address of its own.
pub(crate) const CLIENTS: u32 = 1_000;
/// The number of the Service; no other has it.
const NUMBER: u32 = 46_000;
const ENDPOINTS: [u32; 2] = [2, 200];

/// Adds a row for each number of endpoints.
pub(crate) fn measure(etcd: &Etcd, place: &Place, heading: &str, table: &mut Table) -> Result<()> {
    for endpoints in ENDPOINTS {
        let (key, mut service) = stored_service(NUMBER);
        service["spec"]["sessionAffinity"] = json!("ClientIP");
        service["spec"]["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": 10_800 } });
        let slices =
            slices(Size { services: 1, endpoints }, 0).enumerate().map(|(at, slice)| EndpointSlice {
                name: portolan_model::ObjectName::new("default", format!("s-{NUMBER}-{at}")),
                service: name(NUMBER),
                ..slice
            });
        let objects: Vec<_> =
            slices.map(|slice| stored_slice(&slice, NUMBER)).chain([(key, service)]).collect();
        etcd.put(objects.into_iter())?;
        place
            .reach(NUMBER, Duration::from_secs(60))
            .context("a Service with affinity is not served in a minute")?;
        let (mut new, mut again) = (Samples::default(), Samples::default());
        for samples in [&mut new, &mut again] {
            samples.begin_round();
            place.client.run(|| (0..CLIENTS).try_for_each(|client| connect(client, samples)))?;
        }
        table.row([
            endpoints.to_string(),
            heading.to_owned(),
            or_dash(new.percentile(50.0)),
            or_dash(new.percentile(99.0)),
            or_dash(again.percentile(50.0)),
            or_dash(again.percentile(99.0)),
        ]);
        etcd.delete_one(&format!("/registry/services/specs/default/s-{NUMBER}"))?;
        etcd.delete(&format!("/registry/endpointslices/default/s-{NUMBER}-"))?;
        ensure!(
            place.unreachable(NUMBER, Duration::from_secs(60)),
            "a Service that is gone is served for a minute"
        );
    }
    Ok(())
}

fn connect(client: u32, samples: &mut Samples) -> Result<()> {
    let own = Ipv4Addr::from_bits(ADDRESSES.to_bits() + client);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    let target = SocketAddr::V4(SocketAddrV4::new(cluster_address(NUMBER), PORT));
    samples.time(|| socket.connect_timeout(&target.into(), Duration::from_secs(2))).context("no answer")
}

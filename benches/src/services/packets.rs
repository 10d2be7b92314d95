//! The first packet of a connection: how long it takes, and how many there can be.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::{
    alone::or_dash,
    beside::name,
    objects::{PORT, Size, TARGET, cluster_address, endpoint_address},
    place::Place,
};
use crate::{
    stats::Samples,
    table::{Table, thousands},
};

/// First packets that are timed.
const CONNECTIONS: u32 = 2_000;
/// How long connections are made as fast as they can be.
const RATE: Duration = Duration::from_secs(3);

/// Adds a row, and one for the endpoints' own addresses if the floor is wanted.
pub(crate) fn measure(place: &Place, size: Size, floor: bool, heading: &str, table: &mut Table) {
    let mut row = |heading: &str, target: &(dyn Fn(u32) -> SocketAddr + Sync)| {
        let (samples, rate) = connect(place, size, target);
        table.row([
            name(size),
            heading.to_owned(),
            or_dash(samples.percentile(50.0)),
            or_dash(samples.percentile(90.0)),
            or_dash(samples.percentile(99.0)),
            thousands(rate as u64),
        ]);
    };
    if floor {
        row("no Service: the endpoint's own address", &|n| {
            SocketAddr::from((endpoint_address(size, n, 0), TARGET))
        });
    }
    row(heading, &|n| SocketAddr::from((cluster_address(n), PORT)));
}

fn connect(place: &Place, size: Size, target: &(dyn Fn(u32) -> SocketAddr + Sync)) -> (Samples, f64) {
    place.client.run(|| {
        let mut samples = Samples::default();
        samples.begin_round();
        let mut number = 12_345_u32;
        let mut next = || {
            // Any sequence does that visits all Services (Numerical Recipes, "quick and dirty" generator).
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 8) % size.services
        };
        for _ in 0..CONNECTIONS {
            let target = target(next());
            let _ = samples.time(|| TcpStream::connect_timeout(&target, Duration::from_secs(2)));
        }
        let (start, mut made) = (Instant::now(), 0_u32);
        while start.elapsed() < RATE {
            made += u32::from(TcpStream::connect_timeout(&target(next()), Duration::from_secs(2)).is_ok());
        }
        (samples, f64::from(made) / start.elapsed().as_secs_f64())
    })
}

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

/// The contenders take turns so often.
const ROUNDS: u32 = 20;
/// First packets that are timed in a turn.
const CONNECTIONS: u32 = 500;
/// How long connections are made as fast as they can be, in a turn.
const RATE: Duration = Duration::from_millis(200);

/// One that takes turns: a place, and what is asked there.
struct Contender<'a> {
    heading: &'a str,
    place: &'a Place,
    target: &'a (dyn Fn(u32) -> SocketAddr + Sync),
    samples: Samples,
    made: u32,
    took: Duration,
}

/// Adds a row for each place, and one for the endpoints' own addresses on a node without any rule.
///
/// The proxies of the places need not run any more: the rules that they made are what is asked.
pub(crate) fn measure(places: &[(String, Place)], size: Size, table: &mut Table) {
    let bare = Place::new();
    let endpoint = |n| SocketAddr::from((endpoint_address(size, n, 0), TARGET));
    let service = |n| SocketAddr::from((cluster_address(n), PORT));
    let contender = |heading, place, target| Contender {
        heading,
        place,
        target,
        samples: Samples::default(),
        made: 0,
        took: Duration::ZERO,
    };
    let mut all = vec![contender("no Service: the endpoint's own address", &bare, &endpoint as _)];
    all.extend(places.iter().map(|(heading, place)| contender(heading, place, &service as _)));
    for round in 0..ROUNDS {
        for one in &mut all {
            turn(one, size, round);
        }
    }
    for one in all {
        table.row([
            name(size),
            one.heading.to_owned(),
            one.samples.median_and_spread(),
            or_dash(one.samples.percentile(90.0)),
            or_dash(one.samples.percentile(99.0)),
            thousands((f64::from(one.made) / one.took.as_secs_f64()) as u64),
        ]);
    }
}

fn turn(one: &mut Contender<'_>, size: Size, round: u32) {
    let Contender { place, target, samples, made, took, .. } = one;
    let target = *target;
    place.client.run(|| {
        samples.begin_round();
        let mut number = 12_345_u32 + round;
        let mut next = || {
            // Any sequence does that visits all Services (Numerical Recipes, "quick and dirty" generator).
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 8) % size.services
        };
        for _ in 0..CONNECTIONS {
            let target = target(next());
            let stream = samples.time(|| TcpStream::connect_timeout(&target, Duration::from_secs(2)));
            if let Ok(stream) = stream {
                reset(&stream);
            }
        }
        let start = Instant::now();
        while start.elapsed() < RATE {
            if let Ok(stream) = TcpStream::connect_timeout(&target(next()), Duration::from_secs(2)) {
                *made += 1;
                reset(&stream);
            }
        }
        *took += start.elapsed();
    });
}

/// Closing it will be a reset: ports of closed connections would be kept for a minute (TIME_WAIT), and with one Service
/// the kernel soon looks for a free one for longer than the packet takes.
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

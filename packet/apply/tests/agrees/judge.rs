//! One world: what the kernel did is among what the reference allows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use portolan_model::Protocol;
use portolan_nft::evaluate::Packet;
use portolan_testkit::eventually_ok;

use crate::{
    agree,
    ask::{SILENCE, Seen, ask},
    observe::{self, End},
    reference::{self, Answer, Asked, World},
    site::Site,
};

/// How often each kind of answer was met.
pub type Met = BTreeMap<&'static str, usize>;

/// The packets of [`reference::random`], by the links that this site has. What a host asks of itself never leaves it.
pub fn packets(site: &Site, world: &World) -> Vec<Asked> {
    let all = reference::random::packets(world).into_iter();
    let leave = all.filter(|asked| asked.interface.is_none() || asked.source != asked.destination.ip());
    leave
        .map(|mut asked| {
            if asked.interface.is_some() {
                asked.interface = site.host_of(asked.source).map(|host| host.interface.to_owned());
            }
            asked
        })
        .collect()
}

/// Real clients and servers: whom they reach and as whom, or what they hear instead. TCP and UDP.
pub fn answered(site: &Site, world: &World, questions: &[Asked], met: &mut Met) -> Result<(), String> {
    let mut seen = ask(site, questions, SILENCE);
    let silent = |seen: &[Seen], with_cause: bool| -> Vec<usize> {
        let indices = 0..questions.len();
        let may_drop = |index: &usize| {
            reference::answers(world, &questions[*index]).contains(&Answer::Dropped) == with_cause
        };
        indices.filter(|index| seen[*index] == Seen::Silent).filter(may_drop).collect()
    };
    // Silence counts when it comes twice; unexpected silence gets the time that a busy machine needs.
    for (with_cause, patience) in [(true, SILENCE), (false, Duration::from_secs(3))] {
        let again = silent(&seen, with_cause);
        let asked: Vec<Asked> = again.iter().map(|index| questions[*index].clone()).collect();
        for (index, answer) in again.into_iter().zip(ask(site, &asked, patience)) {
            seen[index] = answer;
        }
    }
    for (asked, seen) in questions.iter().zip(&seen) {
        let allowed = reference::answers(world, asked);
        let Some(answer) = allowed.iter().find(|answer| is_seen(world, asked, answer, seen)) else {
            return Err(format!("{asked:?}\nallowed: {allowed:?}\nseen: {seen:?}"));
        };
        count(met, answer);
    }
    stays(site, world, questions, &seen, met)
}

fn is_seen(world: &World, asked: &Asked, answer: &Answer, seen: &Seen) -> bool {
    match (answer, seen) {
        (Answer::To { endpoint, masqueraded }, Seen::Answered { by, source }) => {
            by == endpoint && is_source(world, asked, *masqueraded, source.ip())
        }
        (Answer::Untouched, Seen::Answered { by, source }) => {
            *by == asked.destination && source.ip() == asked.source
        }
        (Answer::Rejected, Seen::Refused) | (Answer::Dropped, Seen::Silent) => true,
        _ => false,
    }
}

/// Masqueraded: an address of the node. Over its loopback, IPv6 has the destination as source.
fn is_source(world: &World, asked: &Asked, masqueraded: bool, source: IpAddr) -> bool {
    if masqueraded { world.own.contains(&source) } else { source == asked.source }
}

/// A client of a Service with affinity asks again, and again.
fn stays(
    site: &Site,
    world: &World,
    questions: &[Asked],
    seen: &[Seen],
    met: &mut Met,
) -> Result<(), String> {
    let sticky = questions
        .iter()
        .zip(seen)
        .filter(|(asked, seen)| matches!(seen, Seen::Answered { .. }) && reference::keeps(world, asked));
    for (asked, _) in sticky.take(6) {
        let mut by = BTreeSet::new();
        for _ in 0..4 {
            match &ask(site, std::slice::from_ref(asked), Duration::from_secs(3))[0] {
                Seen::Answered { by: endpoint, .. } => by.insert(*endpoint),
                other => return Err(format!("{asked:?} is answered, and then {other:?}")),
            };
        }
        if by.len() > 1 {
            return Err(format!("{asked:?} has affinity and reaches {by:?}"));
        }
        *met.entry("stays").or_default() += 1;
    }
    Ok(())
}

/// Raw packets of all protocols: what the node makes of each.
pub fn forwarded(site: &Site, world: &World, packets: &[Asked], met: &mut Met) -> Result<(), String> {
    site.look_anew();
    let numbers: Vec<u32> = site.numbers(packets.len()).collect();
    for ((asked, number), port) in packets.iter().zip(&numbers).zip(10_000_u16..) {
        let source = (asked.source, port).into();
        let packet = Packet::new(asked.protocol.number(), source, asked.destination);
        site.send(&packet, asked.interface.as_deref(), *number);
    }
    let kernel = &mut *site.kernel.borrow_mut();
    let met_here = eventually_ok(Duration::from_secs(3), || {
        let seen = observe::seen(kernel);
        let mut met = Met::new();
        for ((asked, number), port) in packets.iter().zip(&numbers).zip(10_000_u16..) {
            let end = seen.get(number).cloned().unwrap_or(End::Dropped);
            let allowed = reference::answers(world, asked);
            let Some(answer) = allowed.iter().find(|answer| is_end(world, asked, port, answer, &end)) else {
                return Err(format!("{asked:?}\nallowed: {allowed:?}\nkernel: {end:?}"));
            };
            count(&mut met, answer);
        }
        Ok(met)
    })?;
    for (answer, count) in met_here {
        *met.entry(answer).or_default() += count;
    }
    Ok(())
}

fn is_end(world: &World, asked: &Asked, port: u16, answer: &Answer, end: &End) -> bool {
    let (source, destination, mark, stays_here) = match end {
        End::Sent { source, destination, mark, .. } => (source, destination, mark, false),
        End::Delivered { source, destination, mark, .. } => (source, destination, mark, true),
        // Port unreachable, of each version.
        End::Rejected(code) => {
            let expected = if asked.destination.is_ipv4() { (3, 3) } else { (1, 4) };
            return *answer == Answer::Rejected && *code == Some(expected);
        }
        End::Dropped => return *answer == Answer::Dropped,
    };
    // Our bit is cleared where packets leave; on the way to a socket of the node there is no such place.
    if *mark != 0 && !stays_here {
        return false;
    }
    let kept = *source == (asked.source, port).into();
    match answer {
        Answer::To { endpoint, masqueraded } => {
            let is_source = if *masqueraded { world.own.contains(&source.ip()) } else { kept };
            is_source && destination == endpoint && stays_here == world.own.contains(&endpoint.ip())
        }
        Answer::Untouched => kept && *destination == asked.destination,
        Answer::Rejected | Answer::Dropped => false,
    }
}

fn count(met: &mut Met, answer: &Answer) {
    let name = match answer {
        Answer::To { masqueraded: true, .. } => "masqueraded",
        Answer::To { masqueraded: false, .. } => "kept",
        Answer::Rejected => "rejected",
        Answer::Dropped => "dropped",
        Answer::Untouched => "untouched",
    };
    *met.entry(name).or_default() += 1;
}

/// Programs a world, asks some of its questions and forgets it.
pub fn world(
    site: &Site,
    world: &World,
    places: &[proptest::sample::Index],
    met: &mut Met,
) -> Result<(), String> {
    let plane = site.apply(agree::config(world), world.services.clone(), world.slices.clone());
    let all = packets(site, world);
    let (raw, asked) = places.split_at(places.len() * 3 / 4);
    let with_sockets: Vec<Asked> =
        all.iter().filter(|asked| asked.protocol != Protocol::Sctp).cloned().collect();
    let result = answered(site, world, &pick(world, &with_sockets, asked), met)
        .and_then(|()| forwarded(site, world, &pick(world, &all, raw), met));
    plane.stop().unwrap();
    result
}

/// Some of all, and not too many of those that are no business of Services, or of a port that is not there.
fn pick(world: &World, all: &[Asked], places: &[proptest::sample::Index]) -> Vec<Asked> {
    let mut dull = places.len() / 6;
    let mut picked = Vec::new();
    for asked in places.iter().map(|place| place.get(all)) {
        if reference::answers(world, asked).iter().all(|answer| !matches!(answer, Answer::To { .. })) {
            if dull == 0 {
                continue;
            }
            dull -= 1;
        }
        picked.push(asked.clone());
    }
    picked
}

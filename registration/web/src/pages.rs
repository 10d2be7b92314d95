//! The pages as HTML: the table, one instance, and "there is no such page". Askama escapes everything that is put in.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use askama::Template;
use axum::{
    extract::{Path, Query, State},
    response::{Html, IntoResponse, Response},
};
use http::StatusCode;
use portolan_model::{Instance, State as Health};

use crate::{
    Shared, assets,
    row::{Row, brief, milliseconds, natural},
    view::View,
};

/// Rows in the HTML itself. The script shows all; this many are there before it runs, and without it.
const ROWS: usize = 100;

/// Services and nodes to choose from before the script has seen all rows.
const CHOICES: usize = 500;

/// The moment at which a page is written.
struct Now(u64);

impl Now {
    fn new() -> Self {
        Self(milliseconds(SystemTime::now()))
    }

    /// How long ago that was.
    fn age(&self, time: &u64) -> String {
        brief(Duration::from_millis(self.0.saturating_sub(*time)))
    }
}

#[derive(Template)]
#[template(path = "index.html")]
struct IndexPage<'a> {
    version: &'static str,
    now: Now,
    view: &'a View,
    /// The states that are filtered for, as one value.
    states: String,
    all_link: String,
    counts: Vec<Count>,
    counted: usize,
    total: usize,
    matching: usize,
    services: Vec<&'a str>,
    nodes: Vec<&'a str>,
    rows: Vec<Row>,
}

struct Count {
    state: &'static str,
    number: usize,
    chosen: bool,
    link: String,
}

/// `/`
pub(crate) async fn index(
    State(shared): State<Shared>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let view = View::from_pairs(&pairs);
    let snapshot = shared.registry.snapshot();
    let mut numbers = [0; Health::ALL.len()];
    let mut matching = Vec::new();
    let (mut services, mut nodes) = (BTreeSet::new(), BTreeSet::new());
    for instance in snapshot.iter() {
        if services.len() < CHOICES {
            services.insert(instance.service.as_str());
        }
        if nodes.len() < CHOICES {
            nodes.insert(instance.node.as_str());
        }
        if view.counts(instance) {
            numbers[instance.state as usize] += 1;
        }
        if view.matches(instance) {
            matching.push(instance);
        }
    }
    matching.sort_unstable_by(|a, b| natural(a.key.name.as_str(), b.key.name.as_str()));
    // What is filtered for can be chosen although nobody has it, so that the form says what is shown.
    services.extend((!view.service.is_empty()).then_some(view.service.as_str()));
    nodes.extend((!view.node.is_empty()).then_some(view.node.as_str()));
    let states: Vec<_> = view.states.iter().map(|state| state.as_str()).collect();
    let counts = Health::ALL.into_iter().zip(numbers).map(|(state, number)| {
        let chosen = view.states.contains(&state);
        let link = link(&pairs, if chosen { "" } else { state.as_str() });
        Count { state: state.as_str(), number, chosen, link }
    });
    let page = IndexPage {
        version: assets::version(),
        now: Now::new(),
        view: &view,
        states: states.join(","),
        all_link: link(&pairs, ""),
        counts: counts.collect(),
        counted: numbers.iter().sum(),
        total: snapshot.len(),
        rows: matching.iter().take(ROWS).map(|instance| Row::new(instance)).collect(),
        matching: matching.len(),
        services: services.into_iter().collect(),
        nodes: nodes.into_iter().collect(),
    };
    html(StatusCode::OK, &page)
}

/// The same page with another state.
fn link(pairs: &[(String, String)], state: &str) -> String {
    let mut link = String::from("/");
    let others = pairs.iter().filter(|(key, value)| key != "state" && !value.is_empty());
    let others = others.map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in others.chain((!state.is_empty()).then_some(("state", state))) {
        link.push(if link.len() == 1 { '?' } else { '&' });
        link += &format!("{}={}", encoded(key), encoded(value));
    }
    link
}

/// Percent-encoded for a query (RFC 3986 section 2.3: the unreserved characters stay).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[derive(Template)]
#[template(path = "instance.html")]
struct InstancePage<'a> {
    version: &'static str,
    now: Now,
    name: &'a str,
    found: Option<Found>,
    history: Vec<Line>,
}

struct Found {
    row: Row,
    incarnation: String,
    since: String,
    registered: String,
    output: String,
    check: Option<String>,
    tags: Vec<String>,
    service_link: String,
    node_link: String,
}

struct Line {
    at: String,
    state: &'static str,
    what: &'static str,
    output: String,
}

/// `/instances/{name}`: with status 404 when there is none, and its history where there was one.
pub(crate) async fn instance(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    let snapshot = shared.registry.snapshot();
    let found = snapshot.get(&name).map(|instance| found(instance));
    let status = if found.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let history = shared.history.of(&name).into_iter().map(|moment| Line {
        at: written(moment.at),
        state: moment.state,
        what: moment.what,
        output: moment.output,
    });
    let history = history.collect();
    html(status, &InstancePage { version: assets::version(), now: Now::new(), name: &name, found, history })
}

fn found(instance: &Instance) -> Found {
    let row = Row::new(instance);
    let check = instance.check.as_ref().map(|check| {
        let time = humantime::format_duration;
        format!(
            "{check}, each {}, {} at most, critical after {} failure{}",
            time(check.interval),
            time(check.timeout),
            check.fall,
            if check.fall == 1 { "" } else { "s" },
        )
    });
    Found {
        incarnation: instance.key.incarnation.to_string(),
        since: written(instance.since),
        registered: written(instance.registered),
        output: instance.output.clone(),
        check,
        tags: instance.tags.clone(),
        service_link: format!("/?service={}", encoded(&row.service)),
        node_link: format!("/?node={}", encoded(&row.node)),
        row,
    }
}

fn written(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[derive(Template)]
#[template(path = "not_found.html")]
struct NotFoundPage {
    version: &'static str,
}

/// For everything else.
pub(crate) fn not_found() -> Response {
    html(StatusCode::NOT_FOUND, &NotFoundPage { version: assets::version() })
}

fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot write a page");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

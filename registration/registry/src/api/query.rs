//! Reads the query of a request. A key that means nothing here is an error: a filter with a typo must not list
//! everything.

use std::{collections::BTreeMap, fmt::Display, str::FromStr, time::Duration};

use portolan_model::{Filter, Incarnation};

use super::Problem;

/// Without `wait`, a long poll waits this long.
const WAIT: Duration = Duration::from_secs(5 * 60);
/// No long poll waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);

/// What a list or a watch asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) filter: Filter,
    /// What the client has seen.
    pub(super) index: Option<u64>,
    /// How long it waits for something new.
    pub(super) wait: Option<Duration>,
}

impl Wanted {
    /// How long to wait.
    pub(super) fn wait(&self) -> Duration {
        self.wait.unwrap_or(WAIT).min(LONGEST_WAIT)
    }
}

type Pairs = Vec<(String, String)>;

pub(super) fn wanted(pairs: Pairs) -> Result<Wanted, Problem> {
    let mut wanted = Wanted::default();
    for (key, value) in pairs {
        let filter = &mut wanted.filter;
        match key.as_str() {
            // An empty value is a field of a form that was left empty.
            _ if value.is_empty() => {}
            "name" => filter.name = Some(parse("name", &value)?),
            "service" => filter.service = Some(parse("service", &value)?),
            "port" => filter.port = Some(parse("port", &value)?),
            "state" => {
                for state in value.split(',') {
                    filter.states.push(parse("state", state)?);
                }
            }
            "label" => labels(&value, &mut filter.labels)?,
            "index" => wanted.index = Some(parse("index", &value)?),
            "wait" => {
                wanted.wait = Some(humantime::parse_duration(&value).map_err(|e| wrong("wait", &value, e))?);
            }
            _ => return Err(unknown(&key, "name, service, label, port, state, index and wait")),
        }
    }
    Ok(wanted)
}

pub(super) fn incarnation(pairs: Pairs) -> Result<Option<Incarnation>, Problem> {
    let mut incarnation = None;
    for (key, value) in pairs {
        match key.as_str() {
            "incarnation" => incarnation = Some(parse("incarnation", &value)?),
            _ => return Err(unknown(&key, "incarnation")),
        }
    }
    Ok(incarnation)
}

/// `k=v,k2=v2`. A comma or backslash that belongs to a value has a backslash before it.
fn labels(text: &str, labels: &mut BTreeMap<String, String>) -> Result<(), Problem> {
    let mut pieces = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, pieces.last_mut()) {
            (',', _) => pieces.push(String::new()),
            ('\\', Some(piece)) => piece.extend(characters.next()),
            (_, Some(piece)) => piece.push(character),
            (_, None) => {}
        }
    }
    for piece in pieces {
        let (key, value) = piece
            .split_once('=')
            .ok_or_else(|| wrong("label", text, "write KEY=VALUE, and \\, for a comma in a value"))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(())
}

fn parse<T: FromStr<Err: Display>>(key: &str, value: &str) -> Result<T, Problem> {
    value.parse().map_err(|e| wrong(key, value, e))
}

fn wrong(key: &str, value: &str, why: impl Display) -> Problem {
    Problem::bad_request(format!("{key}={value}: {why}"))
}

fn unknown(key: &str, known: &str) -> Problem {
    Problem::bad_request(format!("the query has no {key:?}: use {known}"))
}

#[cfg(test)]
mod tests {
    use portolan_model::{PortFilter, State};

    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Pairs {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_part_of_a_query_is_read() {
        let query = [
            ("name", ""),
            ("service", "web"),
            ("label", r"a=1,b=x\,y=z\\"),
            ("label", "c=3"),
            ("port", "20417"),
            ("state", "passing,warning"),
            ("index", "7"),
            ("wait", "10s"),
        ];
        let wanted = wanted(pairs(&query)).unwrap();
        let labels = [("a", "1"), ("b", r"x,y=z\"), ("c", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let expected = Filter {
            name: None,
            service: Some("web".parse().unwrap()),
            labels: labels.into(),
            port: Some(PortFilter::Number(20417)),
            states: vec![State::Passing, State::Warning],
        };
        assert_eq!((wanted.filter, wanted.index), (expected, Some(7)));
        assert_eq!(wanted.wait, Some(Duration::from_secs(10)));
    }

    #[test]
    fn a_query_that_means_nothing_is_an_error_that_says_why() {
        for (key, value, reason) in [
            ("nmae", "a", "the query has no \"nmae\": use name, service, label, port, state, index and wait"),
            ("name", "A", "name=A: the name \"A\" is no DNS label"),
            ("state", "up", "state=up: \"up\" is no state"),
            ("label", "x", "label=x: write KEY=VALUE"),
            ("index", "-1", "index=-1: "),
            ("wait", "5", "wait=5: "),
        ] {
            let problem = wanted(pairs(&[(key, value)])).unwrap_err().into_reason();
            assert!(problem.starts_with(reason), "{problem}");
        }
    }

    #[test]
    fn what_the_client_asks_for_is_what_is_understood() {
        let labels = [("a b", "x,y&z=ü"), ("c", r"\,\"), ("d", "")];
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let filter = Filter { labels, states: vec![State::Critical], ..Filter::default() };
        let pairs = filter.to_pairs().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        assert_eq!(wanted(pairs).unwrap().filter, filter);
    }

    #[test]
    fn a_wait_is_bounded() {
        assert_eq!(Wanted::default().wait(), Duration::from_secs(300));
        let wanted = wanted(pairs(&[("wait", "1day")])).unwrap();
        assert_eq!(wanted.wait(), Duration::from_secs(600));
    }
}

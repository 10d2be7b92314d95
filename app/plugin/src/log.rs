//! What goes wrong beside a call, on standard error, which runtimes put into their log.
//!
//! The logs of `portolan` have filters by module, which are regular expressions, and JSON; a process that ends within
//! milliseconds has no use for what that adds to it.

use std::{
    env, fmt,
    io::{self, Write as _},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};

/// Says warnings and errors from now on; what the level in `PORTOLAN_LOG` asks for, if it has one.
pub(crate) fn start() {
    let level = env::var("PORTOLAN_LOG").ok().and_then(|directives| level(&directives));
    // A program that has a log already, such as a test, keeps it.
    let _ = tracing::subscriber::set_global_default(Lines(level.unwrap_or(LevelFilter::WARN)));
}

/// The level for all modules; those for single ones are for `portolan`.
fn level(directives: &str) -> Option<LevelFilter> {
    let mut directives = directives.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    directives.find_map(|directive| directive.parse().ok())
}

struct Lines(LevelFilter);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            _ => "trace",
        };
        let Line { message, fields } = line;
        let _ = writeln!(io::stderr(), "portolan: {level}: {message}{fields}");
    }

    // There are no spans here.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields += &format!(" {name}={value:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_the_one_for_all_modules() {
        assert_eq!(level("debug"), Some(LevelFilter::DEBUG));
        assert_eq!(level("portolan_ports=trace, info"), Some(LevelFilter::INFO));
        assert_eq!(level("portolan_ports=trace"), None);
        assert_eq!(level(""), None);
    }
}

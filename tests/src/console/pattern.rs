//! Whether what came is what was shown: words count, numbers and widths do not.

/// Compares what a document shows with what a command printed; the error says where they part.
pub(super) fn compare(expected: &[String], actual: &str) -> Result<(), String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let actual = without_colour(actual);
    let actual: Vec<String> = actual
        .lines()
        .map(|line| normal(&hide_host(line, host.trim())))
        .filter(|line| !line.is_empty())
        .collect();
    let expected: Vec<String> =
        expected.iter().map(|line| normal(line)).filter(|line| !line.is_empty()).collect();
    if lines_match(&expected, &actual) {
        return Ok(());
    }
    Err(format!("the document shows\n  {}\nand it printed\n  {}", expected.join("\n  "), actual.join("\n  ")))
}

fn hide_host(line: &str, host: &str) -> String {
    if host.is_empty() { line.to_owned() } else { line.replace(host, "myhost") }
}

/// `…` alone on a line stands for any number of lines.
fn lines_match(expected: &[String], actual: &[String]) -> bool {
    match expected {
        [] => actual.is_empty(),
        [any, rest @ ..] if any == "…" => {
            (0..=actual.len()).any(|skipped| lines_match(rest, &actual[skipped..]))
        }
        [first, rest @ ..] => {
            actual.first().is_some_and(|line| line_matches(first, line)) && lines_match(rest, &actual[1..])
        }
    }
}

/// `…` within a line stands for any text.
fn line_matches(expected: &str, actual: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = actual.strip_prefix(first) else { return false };
    let Some(last) = expected.contains('…').then(|| parts.next_back().unwrap_or_default()) else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The line with every number as `0`, every duration as `0s`, every day as `Mon` and every month as `Jan`, and runs of
/// spaces and of lines as one.
fn normal(line: &str) -> String {
    let mut out = String::new();
    for word in line.split_whitespace() {
        let word = shorten(word);
        // "1m 20s" and "20s" are the same: a duration.
        if word == "0s" && out.ends_with("0s") && out.rsplit(' ').next() == Some("0s") {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&word);
    }
    out
}

fn shorten(word: &str) -> String {
    let mut out = String::new();
    let mut characters = word.chars().peekable();
    while let Some(c) = characters.next() {
        if c.is_ascii_digit() {
            while characters.next_if(|&next| next.is_ascii_digit()).is_some() {}
            out.push('0');
        } else if "─━═-=+┬┴┼╌".contains(c) && out.ends_with(c) {
            // A line of a table: as long as the widest cell.
        } else {
            out.push(c);
        }
    }
    if is_duration(&out) { "0s".to_owned() } else { of_any_date(out) }
}

/// Days of the week and months, as dates have them, for any other.
fn of_any_date(word: String) -> String {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let name = word.trim_matches(|c: char| !c.is_ascii_alphabetic());
    let any =
        [DAYS.as_slice(), &MONTHS].into_iter().find(|names| names.contains(&name)).map(|names| names[0]);
    any.map_or_else(|| word.clone(), |any| word.replace(name, any))
}

/// `0ms`, `0.0s`, `0m0s` and the like, after the numbers became `0`.
fn is_duration(word: &str) -> bool {
    let units = ["ns", "µs", "us", "ms", "s", "m", "h", "d"];
    let mut rest = word;
    let mut seen = false;
    while let Some(number) = rest.strip_prefix('0') {
        let number = number.strip_prefix(".0").unwrap_or(number);
        let Some(unit) = units.iter().filter(|unit| number.starts_with(**unit)).max_by_key(|unit| unit.len())
        else {
            return false;
        };
        rest = &number[unit.len()..];
        seen = true;
    }
    seen && rest.is_empty()
}

/// The text without terminal colours (ECMA-48 CSI sequences).
fn without_colour(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(
            part.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or_default(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(shown: &str, printed: &str) -> bool {
        let shown: Vec<String> = shown.lines().map(str::to_owned).collect();
        compare(&shown, printed).is_ok()
    }

    #[test]
    fn numbers_ages_and_widths_do_not_count() {
        assert!(same("NAME   STATE  AGE\nweb-0  passing  3s", "NAME STATE   AGE\nweb-1 passing 1m 20s\n"));
        assert!(same("10.213.0.2:20417", "10.213.7.31:29999"));
        assert!(same("took 1.2ms", "took 340µs"));
    }

    #[test]
    fn dates_do_not_count() {
        assert!(same("[Sat, 21 Nov 2026 20:37:38 UTC] GET", "[Sun, 2 Dec 2027 03:30:01 UTC] GET"));
        assert!(!same("Sat", "Satin"));
    }

    #[test]
    fn words_count() {
        assert!(!same("web passing", "web critical"));
        assert!(!same("web", "web\nmore"));
        assert!(!same("web\nmore", "web"));
    }

    #[test]
    fn dots_stand_for_anything() {
        assert!(same("a\n…\nz", "a\nb\nc\nz"));
        assert!(same("a\n…", "a"));
        assert!(same("Server: … (linux)", "Server: portolan/0.1 (linux)"));
        assert!(!same("Server: … (linux)", "Server: portolan/0.1 (bsd)"));
    }

    #[test]
    fn colours_do_not_count() {
        assert!(same("passing", "\u{1b}[1;32mpassing\u{1b}[0m"));
    }
}

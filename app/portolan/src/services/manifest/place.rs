//! Where in a text something is, so that people are told the line.

/// `… at line 3, column 5`, as the parser says it.
pub(super) fn line_in_message(message: &str) -> Option<usize> {
    let rest = message.split("line ").nth(1)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The line of something that a message quotes, or of the object that it is about.
pub(super) fn line_of(text: &str, message: &str) -> Option<usize> {
    let named =
        message.split_whitespace().skip_while(|word| *word != "Service" && *word != "EndpointSlice").nth(1);
    let starts = named.and_then(|name| line_of_name(text, name.trim_end_matches(':')));
    let quoted = message.split(['"', '`']).nth(1).filter(|quoted| !quoted.is_empty());
    quoted.and_then(|quoted| line_from(text, starts.unwrap_or(1), quoted)).or(starts)
}

/// The line of `name: NAME` under `metadata:`.
pub(super) fn line_of_name(text: &str, name: &str) -> Option<usize> {
    let mut metadata = false;
    for (index, line) in text.lines().enumerate() {
        let bare = line.trim().trim_start_matches("- ");
        if bare.starts_with("metadata:") {
            metadata = true;
        } else if bare.starts_with("spec:") {
            metadata = false;
        }
        let value = bare.split("name:").nth(1).map(|v| v.trim().trim_matches(['"', '\'', '}', ' ']));
        if metadata && value.is_some_and(|value| value.split([',', '}', ' ']).next() == Some(name)) {
            return Some(index + 1);
        }
    }
    None
}

/// The first line from `first` on that has this text.
pub(super) fn line_from(text: &str, first: usize, needle: &str) -> Option<usize> {
    let found =
        text.lines().enumerate().skip(first.saturating_sub(1)).find(|(_, line)| line.contains(needle));
    found.map(|(index, _)| index + 1)
}

//! Reads a stream of server-sent events (WHATWG HTML, section 9.2.6 "Interpreting an event stream").

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawEvent {
    pub(crate) name: String,
    pub(crate) data: String,
    pub(crate) id: Option<String>,
}

/// Cuts bytes into events, however they arrive.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    buffer: Vec<u8>,
    event: RawEvent,
    has_data: bool,
}

impl Parser {
    /// Takes bytes and returns the events that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<RawEvent> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut start = 0;
        while let Some(length) = self.buffer[start..].iter().position(|&b| b == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[start..start + length]).into_owned();
            start += length + 1;
            events.extend(self.line(line.trim_end_matches('\r')));
        }
        self.buffer.drain(..start);
        events
    }

    /// How many bytes wait for the end of their line.
    pub(crate) fn pending(&self) -> usize {
        self.buffer.len() + self.event.data.len()
    }

    fn line(&mut self, line: &str) -> Option<RawEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment, which is a heartbeat; or a field of another age.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_their_bytes_arrive() {
        let text = ": heartbeat\n\nevent: added\nid: 7\ndata: {\"a\":\ndata: 1}\n\nid: 8\r\ndata:x\r\n\r\nevent: lost\n";
        let whole = Parser::default().feed(text.as_bytes());
        assert_eq!(
            whole,
            [
                RawEvent { name: "added".into(), data: "{\"a\":\n1}".into(), id: Some("7".into()) },
                RawEvent { name: String::new(), data: "x".into(), id: Some("8".into()) },
            ]
        );
        for size in 1..20 {
            let mut parser = Parser::default();
            let pieces: Vec<_> = text.as_bytes().chunks(size).flat_map(|piece| parser.feed(piece)).collect();
            assert_eq!(pieces, whole, "pieces of {size}");
        }
    }
}

//! Lines to stdout that never make a request wait: when stdout is a pipe that nobody reads, lines are dropped and
//! counted, not queued without end.

use std::{
    fmt::Write as _,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How many lines may wait for stdout.
const WAITING: usize = 1024;
/// How long the last lines may take.
const LAST: Duration = Duration::from_secs(1);

/// Where lines go. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Log {
    lines: mpsc::SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

enum Entry {
    Line(String),
    Finish(mpsc::SyncSender<()>),
}

impl Log {
    /// Starts the thread that writes to stdout; it ends with the last clone.
    pub(crate) fn to_stdout() -> Self {
        let (lines, waiting) = mpsc::sync_channel(WAITING);
        let log = Self { lines, lost: Arc::default() };
        let lost = log.lost.clone();
        let writer = thread::Builder::new().name("access-log".to_owned());
        if let Err(error) = writer.spawn(move || write(&waiting, &lost)) {
            tracing::warn!(%error, "no access log: its thread cannot be started");
        }
        log
    }

    /// Writes a line, or counts it as lost.
    pub(crate) fn line(&self, line: impl Into<String>) {
        if self.lines.try_send(Entry::Line(line.into())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits a moment until all lines are written.
    pub(crate) fn finish(&self) {
        let (done, is_done) = mpsc::sync_channel(1);
        if self.lines.try_send(Entry::Finish(done)).is_ok() {
            let _ = is_done.recv_timeout(LAST);
        }
    }
}

fn write(waiting: &mpsc::Receiver<Entry>, lost: &AtomicU64) {
    let mut stdout = std::io::stdout();
    for entry in waiting {
        let lost = lost.swap(0, Ordering::Relaxed);
        let mut text = String::new();
        if lost > 0 {
            let _ = writeln!(text, "({lost} lines lost: stdout was too slow)");
        }
        let done = match entry {
            Entry::Line(line) => {
                text.push_str(&line);
                text.push('\n');
                None
            }
            Entry::Finish(done) => Some(done),
        };
        // A closed stdout is no reason to stop serving.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        if let Some(done) = done {
            let _ = done.try_send(());
        }
    }
}

/// A time as Go's `time.RFC1123` has it: `Mon, 02 Jan 2006 15:04:05 UTC`.
pub(crate) fn rfc1123(time: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // 1970-01-01 was a Thursday.
    let days = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    let weekday = usize::try_from(days % 7).ok().and_then(|d| DAYS.get(d)).copied().unwrap_or_default();
    // `2006-01-02T15:04:05Z`
    let iso = humantime::format_rfc3339_seconds(time).to_string();
    let part = |range: std::ops::Range<usize>| iso.get(range).unwrap_or_default();
    let month = part(5..7).parse::<usize>().ok().and_then(|m| MONTHS.get(m.wrapping_sub(1)));
    format!(
        "{weekday}, {} {} {} {} UTC",
        part(8..10),
        month.copied().unwrap_or_default(),
        part(0..4),
        part(11..19)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_in_go() {
        let time = |seconds| rfc1123(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(time(0), "Thu, 01 Jan 1970 00:00:00 UTC");
        assert_eq!(time(1_136_214_245), "Mon, 02 Jan 2006 15:04:05 UTC");
        assert_eq!(time(1_709_209_800), "Thu, 29 Feb 2024 12:30:00 UTC");
    }
}

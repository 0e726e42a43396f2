//! Says what is going on: one line a step, with the time that it took; on a terminal, the seconds of a long one count
//! while it runs.

use std::{
    io::{IsTerminal as _, Write as _, stdout},
    time::{Duration, Instant},
};

/// Writes the story to standard output.
#[derive(Debug, Clone)]
pub struct Narrator {
    began: Instant,
    live: bool,
}

impl Default for Narrator {
    fn default() -> Self {
        Self { began: Instant::now(), live: stdout().is_terminal() }
    }
}

impl Narrator {
    /// Writes as to a terminal, for one whose output another program puts there.
    pub fn live() -> Self {
        Self { began: Instant::now(), live: true }
    }

    /// Time since the story began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A heading.
    pub fn chapter(&self, text: &str) {
        self.line(&if self.live { format!("\n\x1b[1m{text}\x1b[0m") } else { format!("\n{text}") });
    }

    /// A line.
    pub fn say(&self, text: &str) {
        self.line(&format!("  {text}"));
    }

    /// What a program printed, set off from the story.
    pub fn show(&self, output: &str) {
        for line in output.trim_end().lines() {
            self.line(&format!("      {line}"));
        }
    }

    /// Runs `work`, saying what it is, and how long it took when that is worth telling.
    pub async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        tokio::pin!(work);
        if !self.live {
            self.line(&format!("  {what} …"));
            let result = work.await;
            let took = start.elapsed();
            if took >= Duration::from_secs(2) {
                self.line(&format!("    … {:.1} s", took.as_secs_f64()));
            }
            return result;
        }
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                result = &mut work => {
                    self.line(&done(what, start.elapsed()));
                    return result;
                }
                _ = tick.tick() => {
                    let mut out = stdout().lock();
                    let _ = write!(out, "{}", running(what, start.elapsed()));
                    let _ = out.flush();
                }
            }
        }
    }

    #[allow(clippy::unused_self, reason = "all writing goes through the narrator")]
    fn line(&self, text: &str) {
        let mut out = stdout().lock();
        // A reader that has gone (`demo | head`) is no reason to stop half-way.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }
}

/// What a terminal is told again and again while something runs: one line, written over itself. The terminal must not wrap
/// it: only the line that the cursor is in is written over, and the ones above would stay, one for each time. So wrapping is
/// off for it, and the seconds come first, where no terminal is too narrow to show them.
fn running(what: &str, elapsed: Duration) -> String {
    format!("\r\x1b[K\x1b[?7l  {:>2.0} s … {what}\x1b[?7h", elapsed.as_secs_f64())
}

/// What takes the place of [`running`] in the end, and stays.
fn done(what: &str, elapsed: Duration) -> String {
    format!("\r\x1b[K  {what} ({:.1} s)", elapsed.as_secs_f64())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]
mod tests {
    use super::*;

    const WIDE: &str = "Waiting for agents to adopt their instances' ENIs, and nodes to get ready";

    /// The lines that a terminal of this width shows after it was told this.
    fn screen(width: usize, told: &str) -> Vec<String> {
        let (mut lines, mut column, mut wraps) = (vec![Vec::new()], 0, true);
        let mut rest = told;
        while let Some(next) = rest.chars().next() {
            let orders = ["\x1b[K", "\x1b[?7l", "\x1b[?7h"];
            if let Some(order) = orders.into_iter().find(|order| rest.starts_with(order)) {
                match order {
                    "\x1b[K" => lines.last_mut().unwrap().truncate(column),
                    _ => wraps = order == "\x1b[?7h",
                }
                rest = &rest[order.len()..];
                continue;
            }
            rest = &rest[next.len_utf8()..];
            match next {
                '\r' => column = 0,
                '\n' => (lines, column) = ([lines, vec![Vec::new()]].concat(), 0),
                _ => {
                    if column == width && wraps {
                        (lines, column) = ([lines, vec![Vec::new()]].concat(), 0);
                    }
                    column = column.min(width - 1);
                    let line = lines.last_mut().unwrap();
                    line.resize(line.len().max(column + 1), ' ');
                    line[column] = next;
                    column += 1;
                }
            }
        }
        lines.into_iter().map(String::from_iter).collect()
    }

    fn ticks(count: u64) -> String {
        (0..count).map(|tick| running(WIDE, Duration::from_millis(tick * 200))).collect()
    }

    #[test]
    fn a_line_wider_than_the_terminal_stays_one_line_while_its_seconds_count() {
        let shown = screen(40, &ticks(50));
        assert_eq!(shown.len(), 1, "{shown:#?}");
        assert!(shown[0].starts_with("  10 s … Waiting for agents"), "{shown:#?}");
    }

    #[test]
    fn what_is_done_takes_the_place_of_what_counted_and_is_shown_in_full() {
        let shown = screen(40, &(ticks(50) + &done(WIDE, Duration::from_millis(10_200))));
        assert_eq!(shown.concat(), format!("  {WIDE} (10.2 s)"));
    }

    #[test]
    fn the_terminal_wraps_as_before_after_each_line_that_counts() {
        let long = "x".repeat(50);
        let shown = screen(40, &format!("{}\r\x1b[K{long}", ticks(1)));
        assert_eq!(shown, [&long[..40], &long[40..]]);
    }
}

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
                    self.line(&format!("\r\x1b[K  {what} ({:.1} s)", start.elapsed().as_secs_f64()));
                    return result;
                }
                _ = tick.tick() => {
                    let mut out = stdout().lock();
                    let _ = write!(out, "\r\x1b[K  {what} … {:.0} s", start.elapsed().as_secs_f64());
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

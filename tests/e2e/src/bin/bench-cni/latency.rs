//! ADD and DEL of plugins turn about, one at a time and many at once.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use enipool_e2e::bare::agent::Agent;
use enipool_e2e::bare::plugin::{Attachment, Plugin};
use enipool_e2e::bare::pods::{self, PodNetns};

use crate::figures::Sample;

/// A plugin and the node on which it works.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    pub(crate) plugin: Plugin,
    /// The node's network namespace.
    pub(crate) node: PathBuf,
    /// Prefix of the names of its pods' namespaces: this run's own.
    pub(crate) prefix: String,
}

/// A pod that is up.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) netns: PodNetns,
    pub(crate) attachment: Attachment,
}

/// Times of one contender.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    pub(crate) add: Sample,
    pub(crate) del: Sample,
}

impl Times {
    pub(crate) fn extend(&mut self, other: Self) {
        self.add.extend(other.add);
        self.del.extend(other.del);
    }
}

static NEXT_POD: AtomicU64 = AtomicU64::new(0);

impl Contender {
    /// The agent's plugin on the agent's node.
    pub(crate) fn of(agent: &Agent, prefix: &str) -> Self {
        Self { plugin: agent.plugin.clone(), node: agent.netns().to_owned(), prefix: prefix.to_owned() }
    }

    fn pod(&self) -> Result<Pod> {
        let container = format!("{}-{}", self.prefix, NEXT_POD.fetch_add(1, Ordering::Relaxed));
        let netns = PodNetns::new(&container)?;
        let attachment = Attachment { container, netns: netns.path().to_owned(), result: None };
        Ok(Pod { netns, attachment })
    }

    /// Fresh pods that no plugin has touched.
    pub(crate) fn pods(&self, count: usize) -> Result<Vec<Pod>> {
        (0..count).map(|_| self.pod()).collect()
    }

    /// Adds `count` pods one after the other, deletes them again, and waits until the kernel has forgotten them.
    pub(crate) fn batch(&self, count: usize) -> Result<Times> {
        let mut pods = self.pods(count)?;
        let mut times = Times::default();
        pods::inside(&self.node, || {
            let links = pods::links()?;
            for pod in &mut pods {
                times.add.push(self.plugin.add(&mut pod.attachment)?);
            }
            for pod in &pods {
                times.del.push(self.plugin.del(&pod.attachment)?);
            }
            drop(pods);
            pods::settle(links)
        })?;
        Ok(times)
    }

    /// Adds `count` pods that stay.
    pub(crate) fn bring_up(&self, count: usize) -> Result<Vec<Pod>> {
        let mut pods = self.pods(count)?;
        pods::inside(&self.node, || {
            pods.iter_mut().try_for_each(|pod| self.plugin.add(&mut pod.attachment).map(drop))
        })?;
        Ok(pods)
    }

    /// Deletes pods and waits until the kernel has forgotten them.
    pub(crate) fn take_down(&self, pods: Vec<Pod>) -> Result<()> {
        pods::inside(&self.node, || {
            let links = pods::links()?.saturating_sub(pods.len());
            pods.iter().try_for_each(|pod| self.plugin.del(&pod.attachment).map(drop))?;
            drop(pods);
            pods::settle(links)
        })
    }

    /// Adds `count` pods at once. Returns the seconds until the last had its answer, and those that failed with what their
    /// plugin said.
    pub(crate) fn at_once(&self, pods: &mut [Pod]) -> (f64, Vec<String>) {
        // Everybody stands in the node's namespace before anybody starts.
        let start = Barrier::new(pods.len() + 1);
        let outcomes = std::thread::scope(|scope| {
            let threads: Vec<_> = pods
                .iter_mut()
                .map(|pod| {
                    let (plugin, node, start) = (&self.plugin, &self.node, &start);
                    scope.spawn(move || add_inside(plugin, node, pod, start))
                })
                .collect();
            start.wait();
            let begun = Instant::now();
            let outcomes: Vec<Result<Instant>> =
                threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread died"))?).collect();
            (begun, outcomes)
        });
        let (begun, outcomes) = outcomes;
        let mut failures = Vec::new();
        let mut last = begun;
        for outcome in outcomes {
            match outcome {
                Ok(end) => last = last.max(end),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        (last.duration_since(begun).as_secs_f64(), failures)
    }
}

fn add_inside(plugin: &Plugin, node: &Path, pod: &mut Pod, start: &Barrier) -> Result<Instant> {
    let entered = std::fs::File::open(node)
        .context("open the node's namespace")
        .and_then(|file| Ok(nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)?));
    // Also a thread that failed has to come to the barrier, or the others wait for ever.
    start.wait();
    entered?;
    plugin.add(&mut pod.attachment)?;
    Ok(Instant::now())
}

/// Batches of all contenders in turn, `rounds` times.
pub(crate) fn in_turns(contenders: &[&Contender], rounds: usize, batch: usize) -> Result<Vec<Times>> {
    let mut times = vec![Times::default(); contenders.len()];
    for _ in 0..rounds {
        for (contender, times) in contenders.iter().zip(&mut times) {
            times.extend(contender.batch(batch)?);
        }
    }
    Ok(times)
}

/// ADDs per second with `count` at once, of all contenders in turn, `rounds` times.
pub(crate) fn rates(contenders: &[&Contender], rounds: usize, count: usize) -> Result<Vec<Vec<f64>>> {
    let mut rates = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for (contender, rates) in contenders.iter().zip(&mut rates) {
            let mut pods = contender.pods(count)?;
            let (seconds, failures) = contender.at_once(&mut pods);
            if let Some(failure) = failures.first() {
                return Err(anyhow!("{} of {count} ADDs at once failed, the first with: {failure}", failures.len()));
            }
            #[allow(clippy::cast_precision_loss, reason = "a count of pods")]
            rates.push(count as f64 / seconds);
            contender.take_down(pods)?;
        }
    }
    Ok(rates)
}

//! Sends the cluster's metrics to CloudWatch. A CloudWatch that is slow, denied or away holds nothing else up: this task
//! waits for it and nobody waits for this task.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use enipool_pool::cloudwatch::{CloudWatch, CloudWatchError, CloudWatchErrorKind, Datum};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use crate::metrics::Metrics;

/// The namespace in which the metrics helper of the AWS VPC CNI has its metrics.
pub const NAMESPACE: &str = "Kubernetes";
/// Longest wait for one answer.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(20);
/// Requests in one period: the second one sends what could not be sent before.
const REQUESTS_PER_PERIOD: u32 = 2;

/// What waits for CloudWatch. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Post(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    outbox: Mutex<Outbox>,
    news: Notify,
}

impl Post {
    /// Hands over a period's values. Never waits.
    pub fn send(&self, data: Vec<Datum>) {
        self.outbox().push(data);
        self.0.news.notify_one();
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends until the token is cancelled.
    pub async fn run<C: CloudWatch>(self, cloudwatch: Arc<C>, metrics: Metrics, stop: CancellationToken) {
        let mut told = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.news.notified() => {}
            }
            for _ in 0..REQUESTS_PER_PERIOD {
                let batch = self.outbox().next();
                if batch.is_empty() {
                    break;
                }
                let answer = tokio::select! {
                    () = stop.cancelled() => return,
                    answer = put(cloudwatch.as_ref(), &batch) => answer,
                };
                metrics.sent_to_cloudwatch(&answer);
                match &answer {
                    Ok(()) => self.outbox().remove(batch.len()),
                    Err(error) if error.kind.is_temporary() => {}
                    Err(_) => self.outbox().give_up(batch.len()),
                }
                metrics.dropped_for_cloudwatch(self.outbox().dropped());
                tell(&mut told, &answer);
                if answer.is_err() {
                    break;
                }
            }
        }
    }
}

async fn put<C: CloudWatch>(cloudwatch: &C, batch: &[Datum]) -> Result<(), CloudWatchError> {
    match tokio::time::timeout(REQUEST_TIME_MAX, cloudwatch.put_metric_data(NAMESPACE, batch)).await {
        Ok(answer) => answer,
        Err(_) => Err(CloudWatchError {
            kind: CloudWatchErrorKind::NoAnswer,
            message: format!("no answer within {REQUEST_TIME_MAX:?}"),
        }),
    }
}

/// Says a failure once, until it is over or another one.
fn tell(told: &mut Option<CloudWatchErrorKind>, answer: &Result<(), CloudWatchError>) {
    match answer {
        Ok(()) => {
            if told.take().is_some() {
                tracing::info!("CloudWatch takes the cluster's metrics again");
            }
        }
        Err(error) if *told == Some(error.kind) => {}
        Err(error) => {
            *told = Some(error.kind);
            tracing::warn!(
                kind = error.kind.label(),
                error = %error.message,
                "CloudWatch does not take the cluster's metrics: {}",
                error.kind.advice()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use enipool_pool::Timestamp;
    use enipool_pool::cloudwatch::Unit;
    use prometheus_client::registry::Registry;
    use tokio::sync::mpsc;

    use super::*;

    /// Answers as it is told, and shows what it was sent.
    struct Scripted {
        answers: Mutex<VecDeque<Result<(), CloudWatchErrorKind>>>,
        sent: mpsc::UnboundedSender<Vec<u64>>,
    }

    impl CloudWatch for Scripted {
        async fn put_metric_data(&self, namespace: &str, data: &[Datum]) -> Result<(), CloudWatchError> {
            assert_eq!(namespace, "Kubernetes");
            let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(()));
            self.sent.send(data.iter().map(|datum| datum.at.0).collect()).unwrap();
            if answer == Err(CloudWatchErrorKind::NoAnswer) {
                std::future::pending::<()>().await;
            }
            answer.map_err(|kind| CloudWatchError { kind, message: "no".into() })
        }
    }

    fn period(at: u64) -> Vec<Datum> {
        vec![Datum { name: "pods", dimensions: Vec::new(), value: 1.0, unit: Unit::Count, at: Timestamp(at) }]
    }

    /// What CloudWatch is sent when a period ends after each of these answers.
    async fn sent(answers: &[Result<(), CloudWatchErrorKind>], periods: u64) -> Vec<Vec<u64>> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let answers = Mutex::new(answers.iter().copied().collect());
        let post = Post::default();
        let metrics = Metrics::register(&mut Registry::default());
        let stop = CancellationToken::new();
        let running =
            tokio::spawn(post.clone().run(Arc::new(Scripted { answers, sent: sender }), metrics, stop.clone()));
        let mut sent = Vec::new();
        for at in 1..=periods {
            post.send(period(at));
            tokio::time::sleep(Duration::from_secs(60)).await;
            while let Ok(batch) = receiver.try_recv() {
                sent.push(batch);
            }
        }
        stop.cancel();
        running.await.unwrap();
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn a_period_is_one_request() {
        assert_eq!(sent(&[], 3).await, [[1], [2], [3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_denied_period_is_sent_with_the_next() {
        let denied = Err(CloudWatchErrorKind::AccessDenied);
        assert_eq!(sent(&[denied, denied], 3).await, [vec![1], vec![1, 2], vec![1, 2, 3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_request_costs_no_other_period() {
        assert_eq!(sent(&[Err(CloudWatchErrorKind::NoAnswer)], 3).await, [vec![1], vec![1, 2], vec![3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn values_that_are_refused_do_not_block_the_next() {
        assert_eq!(sent(&[Err(CloudWatchErrorKind::Refused)], 2).await, [[1], [2]]);
    }

    #[test]
    fn a_failure_is_said_once_and_its_end_too() {
        let denied = || Err(CloudWatchError { kind: CloudWatchErrorKind::AccessDenied, message: "no".into() });
        let mut told = None;
        tell(&mut told, &denied());
        assert_eq!(told, Some(CloudWatchErrorKind::AccessDenied));
        tell(&mut told, &denied());
        tell(&mut told, &Ok(()));
        assert_eq!(told, None);
    }
}

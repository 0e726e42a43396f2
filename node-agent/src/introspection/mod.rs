//! HTTP on port 61678: `/v1/*` for people and scripts on the node itself, `/metrics` for Prometheus. Reads the engine's
//! snapshot and changes nothing.

pub mod pages;

use std::sync::Arc;

use enipool_daemon::{Access, AdminServer, Answer, Readiness};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::engine::PoolSnapshot;
use crate::metrics;

/// The agent's admin server with all that it answers. The pages under `/v1` name pods: only callers on the node see them.
#[must_use]
pub fn server(
    readiness: Readiness,
    registry: Arc<Registry>,
    snapshots: watch::Receiver<Arc<PoolSnapshot>>,
) -> AdminServer {
    let server = AdminServer::new(readiness).metrics_with_older_types(registry, metrics::older_type);
    server.page("/v1", Access::Loopback, move |request| {
        let snapshot = snapshots.borrow().clone();
        let path = request.path.trim_end_matches('/');
        let path = if path == "/v1" { "/" } else { path };
        pages::page(path, &snapshot).map(|page| Answer::json(page.to_string()))
    })
}

#[cfg(test)]
pub(crate) mod fixture {
    //! The answers of the status fixture's snapshot, served.

    use enipool_daemon::Request;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::metrics::Metrics;
    use crate::metrics::pool::PoolCollector;

    /// As the agent assembles it. `happen` makes some things happen that are counted.
    pub(crate) fn server(snapshot: PoolSnapshot, happen: impl FnOnce(&Metrics)) -> AdminServer {
        let (_, snapshots) = watch::channel(Arc::new(snapshot));
        let mut registry = Registry::default();
        happen(&Metrics::register(&mut registry));
        registry.register_collector(Box::new(PoolCollector(snapshots.clone())));
        super::server(Readiness::new(), Arc::new(registry), snapshots)
    }

    /// What `peer` is answered.
    pub(crate) fn ask(server: &AdminServer, peer: &str, path: &str, accept: &str) -> Answer {
        server.answer(Request { path, query: "", accept, peer: peer.parse().unwrap() })
    }

    /// Serves on a free port of this host until the runtime ends.
    pub(crate) async fn served(snapshot: PoolSnapshot) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server(snapshot, |_| ()).serve(listener, CancellationToken::new()));
        address
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{ask, server};
    use super::pages::PATHS;
    use crate::status::fixture::snapshot;

    #[test]
    fn other_hosts_see_the_metrics_and_nothing_that_names_a_pod() {
        let server = server(snapshot(), |_| ());
        let pages = PATHS.iter().filter(|path| path.starts_with("/v1")).chain(&["/v1", "/v1/"]);
        for path in pages {
            for remote in ["10.0.0.7:40000", "[::ffff:10.0.0.7]:40000"] {
                let answer = ask(&server, remote, path, "");
                assert_eq!(answer.status, 403, "{remote} {path}: {}", answer.body);
            }
            assert_eq!(ask(&server, "127.0.0.1:40000", path, "").status, 200, "{path}");
        }
        for path in ["/metrics", "/live", "/ready"] {
            assert_eq!(ask(&server, "10.0.0.7:40000", path, "").status, 200, "{path}");
        }
    }
}

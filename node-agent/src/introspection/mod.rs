//! HTTP on port 61678: `/v1/*` for people and scripts on the node itself, `/metrics` for Prometheus. Reads the engine's
//! snapshot and changes nothing.

pub mod pages;

use std::sync::Arc;

use enipool_daemon::{Access, AdminServer, Answer};
use tokio::sync::watch;

use crate::engine::PoolSnapshot;

/// Adds the pages to the admin server. Only callers on the node see them: they name pods.
#[must_use]
pub fn serve_pages(server: AdminServer, snapshots: watch::Receiver<Arc<PoolSnapshot>>) -> AdminServer {
    server.page("/v1", Access::Loopback, move |request| {
        let snapshot = snapshots.borrow().clone();
        let path = request.path.trim_end_matches('/');
        let path = if path == "/v1" { "/" } else { path };
        pages::page(path, &snapshot).map(|page| Answer::json(page.to_string()))
    })
}

#[cfg(test)]
pub(crate) mod fixture {
    //! The pages of the status fixture's snapshot, served.

    use enipool_daemon::Readiness;
    use prometheus_client::registry::Registry;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// Serves on a free port of this host until the runtime ends.
    pub(crate) async fn served() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, snapshots) = watch::channel(Arc::new(crate::status::fixture::snapshot()));
        let admin = AdminServer::new(Readiness::new()).metrics(Arc::new(Registry::default()));
        tokio::spawn(serve_pages(admin, snapshots).serve(listener, CancellationToken::new()));
        address
    }
}

//! What both daemons need at their rim: logging, admin server, shutdown, readiness.

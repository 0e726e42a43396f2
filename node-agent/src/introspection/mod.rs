//! HTTP on port 61678: /v1/* for people on the node, /metrics for Prometheus.

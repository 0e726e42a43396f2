//! A real Kubernetes cluster on one machine, behind a simulated VPC, for the demo and the end-to-end scenarios.
//! Nothing here is part of the product, and nothing of the product knows of it.

pub mod bare;
pub mod cluster;
pub mod fabric;
pub mod figures;
pub mod images;
pub mod product;
pub mod scenarios;
pub mod story;
pub mod workload;

//! AWS behind the ports of enipool-pool: EC2 and the instance metadata service. The only crate that names aws-*.

//! The API types of the group enipool.dev.

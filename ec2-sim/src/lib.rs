//! EC2 and IMDS as they really behave: a seeded model on a virtual clock, and a server for their wire protocols.

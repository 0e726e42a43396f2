//! The CNI server: the verbs of the specification over a unix socket.

//! Compares EC2, ledger and kernel, and says the differences in words.

//! Register, renew, leave, list and watch: a library for others.

//! Connections that were led to an endpoint which is gone.

//! The HTTP API. The first stage of a registration.

//! DNS answers from a snapshot of the catalog, and the server.

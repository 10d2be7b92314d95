//! The way of a registration: api, admit, table, health, evict, watch.

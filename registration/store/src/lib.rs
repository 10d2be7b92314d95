//! The embedded store behind the registry's trait.

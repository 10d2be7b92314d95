//! Cloud providers: the metadata service that knows a machine's public address.

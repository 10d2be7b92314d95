//! One file per promise, against the real binary and the real kernel.

//! One file per promise, in `tests/`, against the real binary and the real kernel.
//!
//! This library holds what several of them share: [`console`] runs the examples of documents, [`machine`] takes
//! pictures of a machine before and after.

pub mod console;
pub mod machine;

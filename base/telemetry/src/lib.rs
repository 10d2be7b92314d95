//! Logs, and the names and labels of every metric, in one place.

pub mod logs;

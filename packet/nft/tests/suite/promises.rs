//! What every [`portolan_nft::Nft`] promises. Each promise begins with no table.

mod elements;
mod objects;
mod references;
mod rules;

pub(crate) use elements::*;
pub(crate) use objects::*;
pub(crate) use references::*;
pub(crate) use rules::*;

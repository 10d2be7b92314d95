//! The oracle: `nft` itself. For each rule that Portolan writes, nft's text and our expressions become the same
//! bytecode; what we load, `nft -j list` reads as it was meant; and what we print, nft loads as the same again.
#![allow(clippy::unwrap_used)]

mod bytecode;
mod cases;
mod foreign;
mod json;
mod text;

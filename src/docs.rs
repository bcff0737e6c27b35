//! Pages of prose, with examples that are compiled.

pub mod no_tower;
pub mod order;

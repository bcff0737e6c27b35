//! Pages to read: what does not fit at any one item.

pub mod no_tower;
pub mod order;
pub mod sharing;
pub mod sources;

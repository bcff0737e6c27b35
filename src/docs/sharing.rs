#![doc = include_str!("sharing.md")]

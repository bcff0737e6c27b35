#![doc = include_str!("sources.md")]

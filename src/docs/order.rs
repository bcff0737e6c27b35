#![doc = include_str!("order.md")]

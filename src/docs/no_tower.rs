//! Where there is no tower: clients that take no layer, each with the method of [`TokenProvider`](crate::TokenProvider) that serves it.
//!
//! All share one provider with what *is* behind a layer: one token, one fetch at a time. Call
//! [`init`](crate::TokenProvider::init) first: what is sync finds no token otherwise, and what is idle finds a dead one.
//!
//! What the layer knows and these do not: where a request goes (so look at the URL yourself before you put a token on it), and, but for
//! [`run`](crate::TokenProvider::run), what the server answered. Report a refused token by [`reject`](crate::TokenProvider::reject), where
//! the client lets you see it; else it is replaced only when it nears its expiry.
//!
//! # An exporter or client that takes a tonic interceptor
//! `clients::TokenInterceptor` (feature `tonic`) is sync: it attaches the token that lives, and wakes the refresh when that is stale. It can neither wait nor resend.
//! Where a client takes any channel, put the layer around the channel instead.
#![doc = concat!("```rust,ignore\n", include_str!("no_tower/otlp.rs"), "```")]
//!
//! # A generated client with a hook before each request
//! [`authorize`](crate::TokenProvider::authorize) waits for a token where it must, and puts it into the headers.
#![doc = concat!("```rust,ignore\n", include_str!("no_tower/generated.rs"), "```")]
//!
//! # Any call that can be made twice
//! [`run`](crate::TokenProvider::run) is the whole of it: the token, the refusal, the fetch that all share, the second call.
#![doc = concat!("```rust,ignore\n", include_str!("no_tower/closure.rs"), "```")]
//!
//! # A database pool that asks for the password of each new connection
//! [`token_valid_for`](crate::TokenProvider::token_valid_for) gives one that outlives the handshake, if the source has any.
#![doc = concat!("```rust,ignore\n", include_str!("no_tower/pool.rs"), "```")]
//!
//! # An object store
//! Its stores ask for a credential before each request, and take [`token`](crate::TokenProvider::token) for an answer. They do not say when it was refused.
#![doc = concat!("```rust,ignore\n", include_str!("no_tower/object_store.rs"), "```")]
//!
//! # A WebSocket
//! The token is looked at once, when the connection is opened; many servers close it when that token dies. So leave before that.
#![doc = concat!("```rust,ignore\n", include_str!("no_tower/websocket.rs"), "```")]

//! The recipes of the page "Where there is no tower" in the crate's documentation, compiled and tried out.

#[path = "../../../src/docs/no_tower/closure.rs"]
pub mod closure;
#[path = "../../../src/docs/no_tower/generated.rs"]
pub mod generated;
#[path = "../../../src/docs/no_tower/object_store.rs"]
pub mod object_store;
#[path = "../../../src/docs/no_tower/otlp.rs"]
pub mod otlp;
#[path = "../../../src/docs/no_tower/pool.rs"]
pub mod pool;
#[path = "../../../src/docs/no_tower/websocket.rs"]
pub mod websocket;

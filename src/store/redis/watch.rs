//! Hearing of what others save, for as long as somebody wants to.

use super::RedisStore;
use std::time::Duration;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

/// A connection that has been silent for so long is asked whether it lives.
const SILENCE: Duration = Duration::from_secs(60);

/// Between two attempts while Redis is away.
const PAUSE: Duration = Duration::from_secs(3);

pub(super) async fn watch(store: &RedisStore, changed: &Notify) {
    let mut heard = store.slot.hear();
    let mut hears = false;
    let mut broke: Option<Instant> = None;
    loop {
        // Marked before it is asked for: what is missed from here on is seen below.
        let before = *heard.borrow_and_update();
        if !store.link.listen(&store.slots, &store.slot.key).await {
            hears = false;
            sleep(PAUSE).await;
            continue;
        }
        if !std::mem::replace(&mut hears, true) {
            changed.notify_one();
        }
        let mut revision = before.revision;
        while let Ok(Ok(())) = timeout(SILENCE, heard.changed()).await {
            let now = *heard.borrow_and_update();
            if std::mem::replace(&mut revision, now.revision) != now.revision {
                changed.notify_one();
            }
            if now.missed != before.missed {
                hears = false;
                // Anew at once, but not again and again: a server may end each that is begun.
                if broke.replace(Instant::now()).is_some_and(|before| before.elapsed() < PAUSE) {
                    sleep(PAUSE).await;
                }
                break;
            }
        }
    }
}

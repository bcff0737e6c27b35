//! Callers: each makes one call after the other, as fast as it is answered.

use crate::{
    content,
    judge::{End, Judge},
    stacks::{Call, Client, Path},
    world::{Phase, Stack, World},
};
use fastrand::Rng;
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// No call takes that long, whatever happens: it is lost.
const HUNG: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Callers {
    pub world: Arc<World>,
    pub judge: Arc<Judge>,
    /// Calls under way, by the phase in which they began.
    under_way: Arc<[AtomicUsize; 4]>,
}

impl Call {
    fn draw(world: &World, stack: Stack, rng: &mut Rng) -> Self {
        let path = match (stack, rng.u8(0..100)) {
            (Stack::Tonic, kind) => [Path::Say, Path::Gather, Path::Talk][usize::from(kind % 3)],
            (_, 0) => Path::Forbidden,
            // Over TLS, which reqwest's own client does not speak here.
            (Stack::Hyper1 | Stack::Hyper2, 1) => Path::Foreign,
            _ => Path::Job(rng.u8(0..4)),
        };
        let length = if path == Path::Foreign { 0 } else { content::draw_length(rng) };
        Self { id: world.next_id(), stack, path, length, in_memory: stack != Stack::Tonic && rng.bool() }
    }

    /// Certainly, wherever a refusal stops it. gRPC adds some bytes of its own to each word.
    pub fn can_be_resent(&self) -> bool {
        let limit = if self.stack == Stack::Tonic { content::LIMIT - 8 * 1024 } else { content::LIMIT };
        self.in_memory || self.length <= limit
    }
}

impl Callers {
    pub fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), judge: Arc::default(), under_way: Arc::default() }
    }

    /// Calls that began in this phase and are not over.
    pub fn under_way(&self, phase: Phase) -> usize {
        self.under_way[phase as usize].load(Ordering::SeqCst)
    }

    /// One of them, until it is over.
    pub async fn one(self, stack: Stack, client: Client, mut rng: Rng) {
        let world = &self.world;
        loop {
            let phase = world.phase();
            if phase == Phase::Over {
                return;
            }
            let under_way = &self.under_way[phase as usize];
            under_way.fetch_add(1, Ordering::SeqCst);
            let call = Call::draw(world, stack, &mut rng);
            let began = world.real();
            let patience = match rng.u8(0..50) {
                0 if phase == Phase::Chaos => Duration::from_millis(rng.u64(0..100)),
                _ => HUNG,
            };
            let end = {
                let mut sending = pin!(client.send(&call, &mut rng));
                match tokio::time::timeout(patience, sending.as_mut()).await {
                    Ok(answer) => End::Answered(answer),
                    Err(_) if patience == HUNG => End::Hung,
                    Err(_) => {
                        // Who waits for the connection that this one was making is cancelled with it, by hyper-util's pool. Said before it is dropped.
                        world.trouble(stack, "a caller gave up");
                        End::GivenUp
                    }
                }
            };
            let good = self.judge.judge(world, &call, phase, began, &end);
            world.report.took(stack, world.real() - began);
            under_way.fetch_sub(1, Ordering::SeqCst);
            if !good {
                // Who was refused at once does not come back at once.
                tokio::time::sleep(Duration::from_millis(rng.u64(20..200))).await;
            }
        }
    }
}

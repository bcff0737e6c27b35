//! What happens at once in Redis: five scripts on one key.
//!
//! The key is a hash: `value` and its `revision`, and the lease, `owner`, `until` (in ms, by Redis's own clock) and `lease` (its length). One key, and so
//! one slot of a cluster. A lease with a key and a `PX` of its own could be evicted under `volatile-*` while the value stays, and two would ask the
//! source at once.
//!
//! Each is asked by `EVAL`: they are short and seldom, and nothing has to be loaded again after a failover. Each may run twice, since a command is
//! sent again if its connection turns out to be dead: whoever asks for the lease twice has it once, and a value saved twice is the same.

use super::{error::RedisFailure, link::Link};
use redis::{FromRedisValue, cmd};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Gives the value, its revision and the time.
const LOAD: &str = "
local kept = redis.call('HMGET', KEYS[1], 'value', 'revision')
return {kept[1], kept[2], redis.call('TIME')}";

/// Gives 0 to whoever has the lease now, and otherwise for how long another has it, in ms. Of a lease whose end is further away than it is long the
/// clock was set back, or is another host's: it begins anew.
const ACQUIRE: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'owner', 'until', 'lease')
if held[1] and held[1] ~= ARGV[1] then
  local left, length = (tonumber(held[2]) or 0) - now, tonumber(held[3]) or 0
  if left > length then
    left = length
    redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + left))
  end
  if left > 0 then return left end
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]), 'lease', ARGV[2])
return 0";

/// Gives 1 if the lease goes on. One that has run out does, if nobody has had it since. Where there is no owner at all, not even an empty one, Redis has
/// lost what it held, and takes the lease, or the value, from who has it.
const RENEW: &str = "
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]), 'lease', ARGV[2])
return 1";

/// Gives the revision if it was saved, else 0: nobody has had the lease since, though it may have run out. It may be the only copy of a refresh token.
///
/// Who may not publish saves all the same.
const SAVE: &str = "
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'value', ARGV[2])
local revision = redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.pcall('PUBLISH', KEYS[1], 'saved:' .. revision)
return revision";

/// Ends the lease of its owner alone. What was sent before and comes after this is refused: the owner is the empty name.
const RELEASE: &str = "
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'owner', '')
redis.call('HDEL', KEYS[1], 'until', 'lease')
redis.pcall('PUBLISH', KEYS[1], 'freed')
return 1";

/// The scripts on one key.
pub(super) struct Scripts<'a> {
    pub(super) link: &'a Link,
    pub(super) key: &'a str,
}

/// What Redis holds, and its time.
pub(super) struct Kept {
    pub(super) value: Option<Zeroizing<Vec<u8>>>,
    pub(super) revision: u64,
    pub(super) now: SystemTime,
}

/// Who has the lease afterwards.
pub(super) enum Acquired {
    Mine,
    Others { left: Duration },
}

impl Scripts<'_> {
    pub(super) async fn load(&self) -> Result<Kept, RedisFailure> {
        let (value, revision, (seconds, micros)): (Option<Vec<u8>>, Option<u64>, (u64, u64)) =
            self.run(LOAD, &[]).await?;
        let now = Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros));
        let now = SystemTime::UNIX_EPOCH.checked_add(now).ok_or(RedisFailure::Answer)?;
        Ok(Kept { value: value.map(Zeroizing::new), revision: revision.unwrap_or(0), now })
    }

    pub(super) async fn acquire(&self, owner: &str, lease: Duration) -> Result<Acquired, RedisFailure> {
        let left = self.run(ACQUIRE, &[owner.as_bytes(), &millis(lease)]).await?;
        Ok(if left == 0 { Acquired::Mine } else { Acquired::Others { left: Duration::from_millis(left) } })
    }

    pub(super) async fn renew(&self, owner: &str, lease: Duration) -> Result<bool, RedisFailure> {
        self.run(RENEW, &[owner.as_bytes(), &millis(lease)]).await
    }

    /// The revision; none if it was refused.
    pub(super) async fn save(&self, owner: &str, value: &[u8]) -> Result<Option<u64>, RedisFailure> {
        let revision = self.run(SAVE, &[owner.as_bytes(), value]).await?;
        Ok(Some(revision).filter(|revision| *revision != 0))
    }

    pub(super) async fn release(&self, owner: &str) -> Result<bool, RedisFailure> {
        self.run(RELEASE, &[owner.as_bytes()]).await
    }

    async fn run<T: FromRedisValue>(&self, script: &str, args: &[&[u8]]) -> Result<T, RedisFailure> {
        let mut command = cmd("EVAL");
        command.arg(script).arg(1).arg(self.key);
        for arg in args {
            command.arg(*arg);
        }
        self.link.ask(&command).await
    }
}

fn millis(span: Duration) -> Vec<u8> {
    span.as_millis().to_string().into_bytes()
}

//! What goes wrong, in an order drawn from the seed: every kind comes before any comes again.

use crate::{
    api::Api,
    issuer::{Issuer, Mode},
    proxy::Proxy,
    report::CHAOS,
    world::World,
};
use fastrand::Rng;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tower_jwt_refresh::{BoxError, TokenProvider};

#[derive(Clone)]
pub struct Weather {
    pub world: Arc<World>,
    pub api: Arc<Api>,
    pub issuer: Arc<Issuer>,
    pub proxies: Vec<Arc<Proxy>>,
    pub provider: TokenProvider,
}

/// What befalls connections.
#[derive(Clone, Copy)]
enum Net {
    Kill,
    Cut,
    ShowOut,
    Renew,
    Shut,
}

/// What befalls tokens and their issuer.
#[derive(Clone, Copy)]
enum Auth {
    /// All tokens die at once; the last one had been good for a while.
    Revoke,
    /// The same a moment after it was minted, which is no better than a server that refuses everything.
    RevokeSoon,
    /// The machine was suspended for longer than a token lives.
    Suspend,
    ShortLives,
    Issuer(Mode),
}

const NET: [Net; 7] = [Net::Kill, Net::Cut, Net::Cut, Net::ShowOut, Net::ShowOut, Net::Renew, Net::Shut];
const AUTH: [Auth; 11] = [
    Auth::Revoke,
    Auth::Revoke,
    Auth::Revoke,
    Auth::RevokeSoon,
    Auth::Suspend,
    Auth::ShortLives,
    Auth::Issuer(Mode::Down),
    Auth::Issuer(Mode::Slow),
    Auth::Issuer(Mode::Hangs),
    Auth::Issuer(Mode::Refuses),
    Auth::Issuer(Mode::Busy),
];

/// A token that is so old has not just been minted: longer than the provider calls a refusal hasty.
const OLD_ENOUGH: Duration = Duration::from_secs(11);
const NIGHT: Duration = Duration::from_secs(70);

impl Weather {
    pub async fn befalls_connections(self, mut rng: Rng, until: Duration) -> Result<(), BoxError> {
        let mut deck = Vec::new();
        while self.world.real() < until {
            sleep(millis(&mut rng, 100..500)).await;
            let event = draw(&mut deck, &NET, &mut rng);
            self.befalls_connection(event, &mut rng).await?;
        }
        Ok(())
    }

    async fn befalls_connection(&self, event: Net, rng: &mut Rng) -> Result<(), BoxError> {
        let (world, api) = (&self.world, &self.api);
        match event {
            Net::Kill => {
                self.count("server killed and started again");
                world.trouble_all("the server was killed");
                api.kill().await;
                sleep(millis(rng, 20..300)).await;
                world.trouble_all("the server was killed");
                api.start_again().await;
            }
            Net::Cut => {
                self.count("all connections of a stack cut");
                self.proxies[rng.usize(..self.proxies.len())].cut();
            }
            Net::ShowOut => {
                self.count("connections shown out, by GOAWAY on HTTP/2");
                world.trouble_all("connections were shown out");
                api.show_out(rng.bool());
            }
            Net::Renew => {
                self.count("certificate renewed");
                world.trouble_all("the certificate was renewed");
                api.renew()?;
                if rng.bool() {
                    api.show_out(true);
                } else {
                    api.drop_all("its certificate was renewed");
                }
            }
            Net::Shut => {
                self.count("port shut and opened again");
                let proxy = &self.proxies[rng.usize(..self.proxies.len())];
                proxy.shut().await;
                proxy.cut();
                sleep(millis(rng, 20..200)).await;
                proxy.open().await;
            }
        }
        Ok(())
    }

    pub async fn befalls_tokens(self, mut rng: Rng, until: Duration) {
        let mut deck = Vec::new();
        while self.world.real() < until {
            sleep(millis(&mut rng, 100..400)).await;
            let event = draw(&mut deck, &AUTH, &mut rng);
            self.befalls_token(event, &mut rng).await;
        }
    }

    async fn befalls_token(&self, event: Auth, rng: &mut Rng) {
        match event {
            Auth::Revoke => self.revoke(),
            Auth::RevokeSoon => {
                self.count("tokens revoked, the last one young");
                self.world.book.revoke();
            }
            Auth::Suspend => {
                self.count("machine suspended past all expiries");
                self.world.jump(NIGHT);
            }
            Auth::ShortLives => {
                self.count("tokens of one to three seconds for a while");
                self.issuer.lives(Some(Duration::from_secs(rng.u64(1..=3))));
                self.world.book.revoke();
                sleep(millis(rng, 1000..2500)).await;
                self.issuer.lives(None);
            }
            Auth::Issuer(mode) => {
                self.count(match mode {
                    Mode::Down => "issuer down for a while",
                    Mode::Slow => "issuer slow for a while",
                    Mode::Hangs => "issuer hanging for a while",
                    Mode::Refuses => "credential refused for a while",
                    Mode::Busy | Mode::Well => "issuer busy for a while",
                });
                self.issuer.enter(mode).await;
                if rng.bool() {
                    self.revoke();
                }
                sleep(millis(rng, 200..1000)).await;
                self.issuer.enter(Mode::Well).await;
                if mode == Mode::Refuses {
                    self.heal().await;
                }
            }
        }
    }

    /// A revocation as any provider has to heal it.
    pub fn revoke(&self) {
        self.count("tokens revoked, the last one old");
        self.world.jump(OLD_ENOUGH);
        self.world.book.revoke();
    }

    /// What somebody does who has repaired the credential: the provider cannot know it. False: it was to no avail.
    pub async fn heal(&self) -> bool {
        for _ in 0..50 {
            if self.provider.refresh().await.is_ok() {
                return true;
            }
            sleep(Duration::from_millis(200)).await;
        }
        false
    }

    fn count(&self, what: &'static str) {
        self.world.report.count(CHAOS, what);
    }
}

fn draw<T: Copy>(deck: &mut Vec<T>, all: &[T], rng: &mut Rng) -> T {
    if deck.is_empty() {
        deck.extend(all);
        rng.shuffle(deck);
    }
    deck.pop().expect("it was filled")
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

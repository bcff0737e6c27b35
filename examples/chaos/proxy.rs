//! Between a client and the server: passes bytes on, until it cuts.

use crate::{
    book::MARK,
    door::Door,
    issuer::CREDENTIAL,
    report::{NETWORK, Report},
    world::{Phase, Stack, World, lock},
};
use aho_corasick::AhoCorasick;
use fastrand::Rng;
use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, tcp},
    sync::watch,
    task::JoinSet,
};

/// TLS keeps all of them from its sight but the last, which a client names in plain text: as long as that one is found, so would be the others.
const SECRETS_AND_A_NAME: [&str; 3] = [MARK, CREDENTIAL, "localhost"];
const NAME: usize = 2;

pub struct Proxy {
    world: Arc<World>,
    stack: Stack,
    pub door: Door,
    server: u16,
    rng: Mutex<Rng>,
    cuts: watch::Sender<u32>,
    accepting: Mutex<JoinSet<()>>,
    words: AhoCorasick,
}

impl Proxy {
    pub fn start(world: &Arc<World>, stack: Stack, server: u16, mut rng: Rng) -> io::Result<Arc<Self>> {
        let (door, listener) = Door::new(&mut rng)?;
        let proxy = Arc::new(Self {
            world: Arc::clone(world),
            stack,
            door,
            server,
            rng: Mutex::new(rng),
            cuts: watch::Sender::new(0),
            accepting: Mutex::default(),
            words: AhoCorasick::new(SECRETS_AND_A_NAME).expect("three words"),
        });
        proxy.listen(listener);
        Ok(proxy)
    }

    /// Cuts all its connections.
    pub fn cut(&self) {
        self.world.trouble(self.stack, "connections were cut");
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Nobody listens any more; what is connected stays so.
    pub async fn shut(&self) {
        self.world.trouble(self.stack, "nobody listened");
        let mut accepting = std::mem::take(&mut *lock(&self.accepting));
        accepting.shutdown().await;
    }

    pub async fn open(self: &Arc<Self>) {
        self.listen(self.door.open_again().await);
        self.world.trouble(self.stack, "nobody listened");
    }

    fn listen(self: &Arc<Self>, listener: TcpListener) {
        let this = Arc::clone(self);
        lock(&self.accepting).spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = Arc::clone(&this);
                tokio::spawn(async move { this.serve(stream).await });
            }
        });
    }

    async fn serve(&self, client: TcpStream) {
        let Ok((server, number)) = self.connect().await else {
            self.world.trouble(self.stack, "the server was down");
            return;
        };
        self.world.report.count(NETWORK, "connections");
        let (up, down) = self.budgets();
        let mut cuts = self.cuts.subscribe();
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (split(client), split(server));
        let ended = {
            let both = async {
                tokio::try_join!(
                    self.pass(&mut from_client, &mut to_server, up),
                    self.pass(&mut from_server, &mut to_client, down)
                )
            };
            tokio::select! {
                ended = both => ended.is_ok(),
                _ = cuts.changed() => false,
            }
        };
        if !ended {
            self.world.befalls(number, "it was cut");
            self.world.trouble(self.stack, "connections were cut");
            self.world.report.count(NETWORK, "connections that were cut");
            // Half of them as by a machine that is gone, the others as if they had ended, which TLS tells apart.
            if lock(&self.rng).bool() {
                let _ = to_client.as_ref().set_zero_linger();
                let _ = to_server.as_ref().set_zero_linger();
            }
        }
    }

    /// The server has to recognise it, so its port is known before it is used.
    async fn connect(&self) -> io::Result<(TcpStream, u32)> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let number = self.world.connection(socket.local_addr()?.port());
        Ok((socket.connect((Ipv4Addr::LOCALHOST, self.server).into()).await?, number))
    }

    /// After so many bytes either way it is cut.
    fn budgets(&self) -> (u64, u64) {
        let rng = &mut *lock(&self.rng);
        let (cut_one_in, longest) = if self.stack == Stack::Hyper1 { (12, 17) } else { (3, 23) };
        let mut budget = || {
            let most = 1 << rng.u8(8..longest);
            if rng.u8(0..cut_one_in) == 0 { rng.u64(1..most) } else { u64::MAX }
        };
        (budget(), budget())
    }

    async fn pass(
        &self,
        from: &mut tcp::OwnedReadHalf,
        to: &mut tcp::OwnedWriteHalf,
        mut budget: u64,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 8 * 1024];
        // The end of what came before, since a word may stand across two reads.
        let mut tail = 0;
        loop {
            let read = from.read(&mut buffer[tail..]).await?;
            if read == 0 {
                return to.shutdown().await;
            }
            let read_to = tail + read;
            self.look(&buffer[..read_to]);
            let size = read as u64;
            if budget < size && self.world.phase() == Phase::Chaos {
                let budget = usize::try_from(budget).expect("below what was read");
                // Nobody may see it cut before the reason is written down.
                self.world.trouble(self.stack, "connections were cut");
                to.write_all(&buffer[tail..tail + budget]).await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            budget = budget.saturating_sub(size);
            to.write_all(&buffer[tail..read_to]).await?;
            self.world.report.bytes(size);
            let keep = read_to.min(CREDENTIAL.len().max(MARK.len()) - 1);
            buffer.copy_within(read_to - keep..read_to, 0);
            tail = keep;
        }
    }

    fn look(&self, bytes: &[u8]) {
        for found in self.words.find_iter(bytes) {
            if found.pattern().as_usize() == NAME {
                self.world.report.count(NETWORK, Report::CONTROL);
            } else {
                self.world.breaks("no token is ever seen outside of TLS", format!("on the way of {:?}", self.stack));
            }
        }
    }
}

fn split(stream: TcpStream) -> (tcp::OwnedReadHalf, tcp::OwnedWriteHalf) {
    // A small frame is not to wait for the next.
    let _ = stream.set_nodelay(true);
    stream.into_split()
}

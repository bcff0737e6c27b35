//! A port of this machine that can be shut and opened again.

use fastrand::Rng;
use std::{io, net::SocketAddr, time::Duration};
use tokio::net::{TcpListener, TcpSocket};

/// Below those that the system takes for outgoing connections: while a server is down, nobody else may get its port.
const PORTS: std::ops::Range<u16> = 12_000..30_000;

#[derive(Clone, Copy, Debug)]
pub struct Door {
    pub port: u16,
}

impl Door {
    pub fn new(rng: &mut Rng) -> io::Result<(Self, TcpListener)> {
        for _ in 0..1000 {
            let door = Self { port: rng.u16(PORTS) };
            if let Ok(listener) = door.open() {
                return Ok((door, listener));
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    fn address(self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    fn open(self) -> io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.address())?;
        socket.listen(4096)
    }

    /// Whoever had it may still be on the way out.
    pub async fn open_again(self) -> TcpListener {
        loop {
            match self.open() {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

//! Where clients come from: this machine, and where it matters this user alone.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};

/// A loopback address or a unix socket. There is no other: whoever reaches it sends with the token.
#[derive(Clone, Debug)]
pub struct Listen(Address);

#[derive(Clone, Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Default for Listen {
    fn default() -> Self {
        Self(Address::Tcp(([127, 0, 0, 1], 8080).into()))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self(Address::Unix(path.into())));
        }
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address: SocketAddr = numeric.as_deref().unwrap_or(text).parse().map_err(|_| {
            format!("{text:?} is no address to listen on: write 127.0.0.1:PORT, [::1]:PORT or unix:PATH")
        })?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "refusing {address}: everybody who reaches it would send with this token; write 127.0.0.1:PORT, [::1]:PORT or unix:PATH"
            ));
        }
        Ok(Self(Address::Tcp(address)))
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(crate) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    pub(crate) async fn bind(listen: &Listen) -> Result<Self, String> {
        match &listen.0 {
            Address::Tcp(address) => {
                let wrong = |error| format!("cannot listen on {address}: {error}");
                let listener = TcpListener::bind(address).await.map_err(wrong)?;
                let address = listener.local_addr().map_err(wrong)?;
                Ok(Self::Tcp(listener, address))
            }
            Address::Unix(path) => {
                let wrong = |error| format!("cannot listen on {}: {error}", path.display());
                let (listener, file) = bind_private(path).map_err(wrong)?;
                Ok(Self::Unix(listener, file))
            }
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(listener, _) => Box::new(listener.accept().await?.0),
        })
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Tcp(_, address) => format!("http://{address}"),
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    /// The names by which clients may know it, each a host and a port.
    pub(crate) fn hosts(&self) -> Vec<(String, u16)> {
        match self {
            Self::Tcp(_, address) => {
                let ip = if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() };
                vec![(ip, address.port()), ("localhost".to_owned(), address.port())]
            }
            // A socket's file has no name in HTTP; this is what clients write by custom.
            Self::Unix(..) => vec![("localhost".to_owned(), 80)],
        }
    }

    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(_, address) => Some(address.port()),
            Self::Unix(..) => None,
        }
    }
}

/// Removes it in the end, unless another process put its own in the place.
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// With mode 0600 from the first moment it can be reached: it is made in a directory that nobody else may enter, and moved.
fn bind_private(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there already"));
        }
        _ => {}
    }
    let directory = path.with_file_name(format!(".sidecar-{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&directory)?;
    let bound = bind_in(&directory, path);
    fs::remove_dir(&directory)?;
    bound
}

fn bind_in(directory: &Path, path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let hidden = directory.join("s");
    let listener = UnixListener::bind(&hidden)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
    let inode = fs::symlink_metadata(&hidden)?.ino();
    fs::rename(&hidden, path)?;
    Ok((listener, SocketFile { path: path.to_owned(), inode }))
}

//! A connection of its own to a peer that libp2p has connected, for what is asked so often, or is so much, that Noise, Yamux and the tasks
//! between them are most of what it costs (`docs/adr/0032-a-connection-of-its-own-for-calls.md`).
//!
//! It is TLS 1.3 by libp2p's rules (`tls`), and one stream of bytes: nothing is negotiated in it and nothing divides it. It is dialled where the
//! peer listens for libp2p: who accepts looks at the first byte, which is another one in TLS than in libp2p's own negotiation (`is_direct`).
//!
//! Whoever writes may do so on any thread, at once, where nothing waits to be written (`write_now`): that saves a waking for each call
//! of a connection that has little to do.
//!
//! Rules:
//!
//! - Each side knows the other by the key that its certificate shows. Who dials takes nobody else.
//! - It lives no longer than libp2p's connection to the same peer, which finds out what is dead, and which admits and hangs up.
//! - What is lost with it is told as what is lost with a stream of libp2p's: an error, or the end.

#[cfg(test)]
mod tests;
mod tls;

use std::collections::HashMap;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use protocol::CellId;
use rustls::Connection;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::{Beside, Carries};
pub(super) use tls::Keys;

/// How long a handshake may take, and the dialling of one address.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// Handshakes of strangers under way; who comes then is hung up on, and dials again.
pub(super) const HANDSHAKES_MAX: usize = 64;
/// Addresses of a peer that are tried.
const ADDRESSES_MAX: usize = 4;
/// How much is written at once.
const WRITE_BYTES: usize = 128 * 1024;
/// How much is read from the socket at once.
const READ_BYTES: usize = 256 * 1024;
/// The first byte of a handshake of TLS; libp2p's begins with the length of a name, 19.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection of its own.
pub(super) struct Direct {
    socket: TcpStream,
    tls: Mutex<Tls>,
}

struct Tls {
    connection: Connection,
    /// Something is written a part at a time: nothing may come between.
    is_writing: bool,
}

impl Direct {
    fn tls(&self) -> MutexGuard<'_, Tls> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what TLS has to write as far as the system takes it now; whether that was all.
    fn give_out(&self, tls: &mut Connection) -> io::Result<bool> {
        while tls.wants_write() {
            match tls.write_tls(&mut Now(&self.socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Gives TLS some of what has come; how much of it.
    fn take_in(&self, tls: &mut Connection, mut received: &[u8]) -> io::Result<usize> {
        let taken = tls.read_tls(&mut received)?;
        if let Err(error) = tls.process_new_packets() {
            // Why, to the other side, if it still listens.
            let _ = self.give_out(tls);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(taken)
    }

    /// Takes bytes where nothing waits to be written, and writes as many as the system takes now; the rest goes with [`Self::flush`].
    pub(super) fn write_now(&self, bytes: &[u8]) -> io::Result<Beside> {
        let Ok(mut tls) = self.tls.try_lock() else { return Ok(Beside::NotTaken) };
        if tls.is_writing || tls.connection.wants_write() {
            return Ok(Beside::NotTaken);
        }
        tls.connection.writer().write_all(bytes)?;
        Ok(if self.give_out(&mut tls.connection)? { Beside::Written } else { Beside::Waits })
    }

    /// Writes all of some bytes, one after the other, as many at once as go together.
    pub(super) async fn write_all(&self, bytes: &[&[u8]]) -> io::Result<()> {
        let parts: Vec<&[u8]> = bytes.iter().flat_map(|bytes| bytes.chunks(WRITE_BYTES)).collect();
        let mut rest = parts.as_slice();
        while !rest.is_empty() {
            let mut length = 0;
            let fits = |part: &&&[u8]| {
                length += part.len();
                length <= WRITE_BYTES
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
            {
                let mut tls = self.tls();
                tls.is_writing = !later.is_empty();
                let now: Vec<IoSlice<'_>> = now.iter().map(|part| IoSlice::new(part)).collect();
                let written = tls.connection.writer().write_vectored(&now)?;
                if written != now.iter().map(|part| part.len()).sum::<usize>() {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
            self.flush().await?;
            rest = later;
        }
        Ok(())
    }

    /// Writes all that waits.
    pub(super) async fn flush(&self) -> io::Result<()> {
        while !self.give_out(&mut self.tls().connection)? {
            self.socket.writable().await?;
        }
        Ok(())
    }

    /// Says that nothing more comes.
    pub(super) async fn finish(&self) -> io::Result<()> {
        self.tls().connection.send_close_notify();
        self.flush().await
    }

    /// Ends it at once, at both ends.
    fn close(&self) {
        // Where it has ended already there is nothing to end.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }
}

/// The reading end. There is one of each.
pub(super) struct DirectReader {
    carries: Carries,
    direct: Arc<Direct>,
    received: Box<[u8]>,
    /// What of it was not given to TLS yet.
    unread: Range<usize>,
}

impl DirectReader {
    fn new(direct: Arc<Direct>) -> Self {
        // As long as nothing else is known: it is read on the edge.
        Self {
            carries: Carries::Streams,
            direct,
            received: vec![0; READ_BYTES].into_boxed_slice(),
            unread: 0..0,
        }
    }

    /// What it carries.
    pub(super) fn carries(&self) -> Carries {
        self.carries
    }

    /// The writing end, of which there may be many.
    pub(super) fn writer(&self) -> Arc<Direct> {
        Arc::clone(&self.direct)
    }

    /// Reads some bytes; none at the end.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Who sends all the time does not keep the thread for itself.
        tokio::task::coop::consume_budget().await;
        loop {
            if let Some(read) = self.open(buffer)? {
                return Ok(read);
            }
            if !self.receive().await? {
                return Ok(0);
            }
        }
    }

    /// Gives what has come to TLS, until there is something to read.
    fn open(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut tls = self.direct.tls();
        loop {
            match tls.connection.reader().read(buffer) {
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if self.unread.is_empty() {
                return Ok(None);
            }
            self.unread.start +=
                self.direct.take_in(&mut tls.connection, &self.received[self.unread.clone()])?;
        }
    }

    /// Waits for bytes; false at the end.
    async fn receive(&mut self) -> io::Result<bool> {
        loop {
            match self.direct.socket.try_read(&mut self.received) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.unread = 0..read;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.direct.socket.readable().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn shake_hands(&mut self) -> io::Result<()> {
        while self.direct.tls().connection.is_handshaking() {
            self.direct.flush().await?;
            if !self.direct.tls().connection.is_handshaking() {
                break;
            }
            if self.unread.is_empty() && !self.receive().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut tls = self.direct.tls();
            self.unread.start +=
                self.direct.take_in(&mut tls.connection, &self.received[self.unread.clone()])?;
        }
        self.direct.flush().await
    }
}

/// What the system takes, or gives, without waiting.
struct Now<'a>(&'a TcpStream);

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether what was accepted where libp2p listens is for here.
pub(super) async fn is_direct(socket: &TcpStream) -> bool {
    let mut first = [0];
    matches!(socket.peek(&mut first).await, Ok(1)) && first[0] == TLS_HANDSHAKE
}

/// Takes a connection that was dialled, and says whose it is.
pub(super) async fn accept(keys: &Keys, socket: TcpStream) -> io::Result<(PeerId, DirectReader)> {
    shaken(socket, keys.accept()?).await
}

/// Dials a peer at the first of its addresses that answers as it.
pub(super) async fn dial(
    keys: &Keys,
    peer: PeerId,
    addresses: &[Multiaddr],
    carries: Carries,
) -> io::Result<DirectReader> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (host, port) in addresses.iter().filter_map(plain).take(ADDRESSES_MAX) {
        let dialled = async {
            let socket = TcpStream::connect((host.as_str(), port)).await?;
            super::swarm::watch(&socket);
            socket.set_nodelay(true)?;
            shaken(socket, keys.dial(peer, carries)?).await
        };
        match tokio::time::timeout(OPEN_TIMEOUT, dialled).await {
            Ok(Ok((_, reader))) => return Ok(reader),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn shaken(socket: TcpStream, mut tls: Connection) -> io::Result<(PeerId, DirectReader)> {
    // What waits is bounded by whoever writes: a frame, or as many as go at once.
    tls.set_buffer_limit(None);
    let mut reader = DirectReader::new(Arc::new(Direct {
        socket,
        tls: Mutex::new(Tls { connection: tls, is_writing: false }),
    }));
    reader.shake_hands().await?;
    let (peer, carries) = {
        let tls = reader.direct.tls();
        (tls::peer_of(&tls.connection)?, tls::carries(&tls.connection)?)
    };
    reader.carries = carries;
    Ok((peer, reader))
}

/// Host and port of an address that is TCP and nothing more.
fn plain(address: &Multiaddr) -> Option<(String, u16)> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => ip.to_string(),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return None };
    parts.all(|part| matches!(part, Protocol::P2p(_))).then_some((host, port))
}

/// The connections of their own that there are, by peer.
#[derive(Default)]
pub(super) struct Directs(Mutex<HashMap<CellId, Vec<Weak<Direct>>>>);

impl Directs {
    fn all(&self) -> MutexGuard<'_, HashMap<CellId, Vec<Weak<Direct>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers one, so that it ends with libp2p's.
    pub(super) fn enter(&self, peer: CellId, reader: &DirectReader) {
        let mut all = self.all();
        let of_peer = all.entry(peer).or_default();
        of_peer.retain(|direct| direct.strong_count() > 0);
        of_peer.push(Arc::downgrade(&reader.direct));
    }

    /// Ends all of a peer.
    pub(super) fn close(&self, peer: &CellId) {
        for direct in self.all().remove(peer).unwrap_or_default() {
            if let Some(direct) = direct.upgrade() {
                direct.close();
            }
        }
    }

    /// Ends all.
    pub(super) fn close_all(&self) {
        for direct in std::mem::take(&mut *self.all()).into_values().flatten() {
            if let Some(direct) = direct.upgrade() {
                direct.close();
            }
        }
    }
}

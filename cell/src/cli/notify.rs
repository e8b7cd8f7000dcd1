//! Word to the service manager that started the cell: systemd's `sd_notify` protocol, one datagram a word.
//!
//! The environment (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`) is read once and never changed. Without a
//! manager nothing is said. A word that cannot be said is no reason to stop: the manager notices.
//!
//! No crate for it: `sd-notify` reads the environment itself, so that a test would have to set it, which is `unsafe`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The manager, if there is one.
pub(super) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that the cell is alive: twice in the time after which it gives the cell up.
    every: Option<Duration>,
}

impl Manager {
    /// The one that the environment names.
    pub(super) fn of_environment() -> Self {
        let text = |name| std::env::var(name).ok();
        let every =
            pace(text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref(), std::process::id());
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) => Self::at(&name, every).unwrap_or_else(|error| {
                tracing::warn!(%error, "NOTIFY_SOCKET cannot be used: the service manager hears nothing");
                Self { socket: None, every: None }
            }),
            None => Self { socket: None, every: None },
        }
    }

    /// The one that listens at a path, or with an `@` before it at an abstract name.
    fn at(name: &OsStr, every: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => abstract_address(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold the cell up.
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some((socket, address)), every })
    }

    /// The cell listens.
    pub(super) fn ready(&self) {
        self.say("READY=1");
    }

    /// The cell was asked to stop, and does.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Says for ever, as often as the manager wants, that the loop turns on which this runs: a loop that is stuck
    /// cannot say it, and the manager starts the cell anew.
    pub(super) async fn vouch(&self) {
        let Some(every) = self.every else { return };
        let mut every = tokio::time::interval(every);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, word: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(word.as_bytes(), address) {
            tracing::warn!(%error, word, "the service manager was not told");
        }
    }
}

/// Half of the time that the manager waits, if it waits for this process.
fn pace(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let usec: u64 = usec?.parse().ok()?;
    (is_ours && usec > 1).then(|| Duration::from_micros(usec / 2))
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any of this takes.
    const PATIENCE: Duration = Duration::from_secs(10);
    const EVERY: Duration = Duration::from_millis(10);

    /// A manager that listens, and the cell's way to it.
    fn pair(every: Option<Duration>) -> (tempfile::TempDir, UnixDatagram, Manager) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("binds");
        listener.set_read_timeout(Some(PATIENCE)).expect("sets");
        let manager = Manager::at(path.as_os_str(), every).expect("a path");
        (dir, listener, manager)
    }

    fn heard(listener: &UnixDatagram) -> io::Result<String> {
        let mut bytes = [0; 64];
        let length = listener.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    fn turn<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a loop").block_on(work)
    }

    #[test]
    fn a_manager_hears_that_the_cell_is_ready_and_that_it_stops() {
        let (_dir, listener, manager) = pair(None);
        manager.ready();
        manager.stopping();
        assert_eq!(heard(&listener).expect("a word"), "READY=1");
        assert_eq!(heard(&listener).expect("a word"), "STOPPING=1");
    }

    #[test]
    fn a_loop_that_turns_is_vouched_for_again_and_again() {
        let (_dir, listener, manager) = pair(Some(EVERY));
        let words = turn(async {
            let listen = tokio::task::spawn_blocking(move || [(); 3].map(|()| heard(&listener)));
            tokio::select! {
                () = manager.vouch() => unreachable!("it goes on for ever"),
                words = listen => words.expect("listens"),
            }
        });
        assert_eq!(words.map(|word| word.expect("a word")), ["WATCHDOG=1"; 3]);
    }

    #[test]
    fn a_loop_that_is_stuck_is_not_vouched_for() {
        let (_dir, listener, manager) = pair(Some(EVERY));
        turn(async {
            let vouching = tokio::spawn(async move { manager.vouch().await });
            listener.set_nonblocking(true).expect("sets");
            let first = async {
                while heard(&listener).is_err() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, first).await.expect("vouched for while it turns");
            while heard(&listener).is_ok() {}
            // From here on nothing awaits: the loop does not turn.
            listener.set_nonblocking(false).expect("sets");
            listener.set_read_timeout(Some(20 * EVERY)).expect("sets");
            let kind = heard(&listener).expect_err("nobody says anything").kind();
            assert_eq!(kind, io::ErrorKind::WouldBlock);
            vouching.abort();
        });
    }

    #[test]
    fn nobody_is_told_when_there_is_no_manager_or_none_that_waits() {
        assert_eq!(pace(Some("30000000"), None, 7), Some(Duration::from_secs(15)));
        assert_eq!(pace(Some("30000000"), Some("7"), 7), Some(Duration::from_secs(15)));
        for (usec, pid) in [(None, None), (Some("30000000"), Some("8")), (Some("0"), None), (Some("x"), None)]
        {
            assert_eq!(pace(usec, pid, 7), None, "{usec:?} {pid:?}");
        }
        let nobody = Manager { socket: None, every: None };
        nobody.ready();
        turn(nobody.vouch());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_name_is_one_too() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("celluler-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixDatagram::bind_addr(&address).expect("binds");
        listener.set_read_timeout(Some(PATIENCE)).expect("sets");
        Manager::at(OsStr::new(&format!("@{name}")), None).expect("a name").ready();
        assert_eq!(heard(&listener).expect("a word"), "READY=1");
    }
}

//! A local network inside this machine's kernel, whose wires can be cut: each host a network namespace of its own,
//! all of them on one bridge in a namespace of its own.
//!
//! What is cut or lost vanishes on the way to the receiver, as behind a broken switch: nobody is told. A frame's fate
//! is decided by a small classic BPF program at the bridge's port to its receiver, so that each direction can be cut
//! alone; `tc` puts it there. Frames are as small as on a wire: none is lost for forty others.
//!
//! Needs root, and `ip` and `tc` (Debian: iproute2). Absent: delay and another order of frames, for which not every
//! kernel has the means (a slow wire's queue delays as well).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sched::{CloneFlags, setns};

/// Where `ip` keeps the names of namespaces.
const NAMES: &str = "/var/run/netns";
/// What the names of ours begin with; the process that made them follows.
const PREFIX: &str = "celluler-";
/// Hosts of one network.
const HOSTS_MAX: usize = 64;
/// How long a frame waits for a slow wire at most, in milliseconds: a ping has to come through.
const SLOW_WAIT_MS_MAX: u32 = 1_000;
/// What goes over a slow wire at once: two frames.
const SLOW_BURST_BYTES: u32 = 4_096;

/// A network of hosts. Taken down when it is dropped.
#[derive(Debug)]
pub struct Lan {
    name: String,
    hosts: usize,
    wires: Mutex<Wires>,
}

#[derive(Debug, Default)]
struct Wires {
    /// From whom to whom nothing goes.
    cut: BTreeSet<(usize, usize)>,
    /// How many of a hundred frames vanish.
    loss_percent: u32,
    /// To whom no more than so many kbit/s go.
    slow: BTreeMap<usize, u32>,
}

impl Lan {
    /// Makes a network of so many hosts, that all reach each other.
    ///
    /// # Panics
    ///
    /// If it cannot be made, with what to do.
    pub fn new(hosts: usize) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        assert!(hosts <= HOSTS_MAX, "a network has at most {HOSTS_MAX} hosts");
        remove_left_over();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        // From here on it is taken down, however far it has come.
        let lan = Self { name, hosts, wires: Mutex::default() };
        let switch = lan.switch();
        ip(&["netns", "add", &switch]);
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "bridge", "up"]);
        for host in 0..hosts {
            lan.add_host(host);
        }
        let hooks = (0..hosts).map(|host| format!("qdisc add dev {} clsact\n", port(host)));
        lan.tc(&hooks.collect::<String>());
        lan
    }

    fn add_host(&self, host: usize) {
        let (switch, name, port) = (self.switch(), self.host(host), port(host));
        ip(&["netns", "add", &name]);
        let port_end = ["-n", &switch, "link", "add", &port, "gso_max_segs", "1", "type", "veth"];
        let host_end = ["peer", "name", "eth0", "address", &mac(host), "gso_max_segs", "1", "netns", &name];
        ip(&[&port_end[..], &host_end[..]].concat());
        ip(&["-n", &switch, "link", "set", &port, "master", "bridge", "up"]);
        ip(&["-n", &name, "address", "add", &format!("{}/24", self.address(host)), "dev", "eth0"]);
        ip(&["-n", &name, "link", "set", "eth0", "up"]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
    }

    /// The address of a host, the same in every network: they know nothing of each other.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, number(host))
    }

    /// Does something on a host: what is connected, listened on and started in there is on that host.
    ///
    /// # Panics
    ///
    /// As `work` does.
    pub fn within<T: Send>(&self, host: usize, work: impl FnOnce() -> T + Send) -> T {
        let name = Path::new(NAMES).join(self.host(host));
        let namespace = File::open(&name).unwrap_or_else(|error| panic!("{}: {error}", name.display()));
        // A namespace is a thread's, and what it starts inherits it.
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Lets nothing pass between hosts of different groups. A host in no group is alone.
    pub fn split(&self, groups: &[&[usize]]) {
        let together =
            |from: usize, to: usize| groups.iter().any(|group| group.contains(&from) && group.contains(&to));
        let pairs = (0..self.hosts).flat_map(|from| (0..self.hosts).map(move |to| (from, to)));
        let apart: Vec<_> = pairs.filter(|(from, to)| from != to && !together(*from, *to)).collect();
        self.change(|wires| wires.cut.extend(apart));
    }

    /// Lets nothing pass from one host to another; the other way is left as it is.
    pub fn cut(&self, from: usize, to: usize) {
        self.change(|wires| wires.cut.extend([(from, to)]));
    }

    /// Lets so many of a hundred frames vanish, in each direction of each wire.
    pub fn lose(&self, percent: u32) {
        self.change(|wires| wires.loss_percent = percent);
    }

    /// Lets no more than so many kbit/s go to a host: what is more waits for a while, or vanishes.
    pub fn slow_down(&self, host: usize, kbit_per_second: u32) {
        self.change(|wires| wires.slow.extend([(host, kbit_per_second)]));
    }

    /// Lets everything pass again. Who was unplugged stays so.
    pub fn heal(&self) {
        self.change(|wires| *wires = Wires::default());
    }

    /// Pulls a host's cable: the host sees it.
    pub fn unplug(&self, host: usize) {
        ip(&["-n", &self.switch(), "link", "set", &port(host), "down"]);
    }

    /// Puts a host's cable back.
    pub fn plug_in(&self, host: usize) {
        ip(&["-n", &self.switch(), "link", "set", &port(host), "up"]);
    }

    fn change(&self, change: impl FnOnce(&mut Wires)) {
        let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        let slow_before = wires.slow.clone();
        change(&mut wires);
        let freed = slow_before.keys().filter(|host| !wires.slow.contains_key(host));
        let freed = freed.map(|host| format!("qdisc del dev {} root\n", port(*host)));
        let slowed = wires.slow.iter().map(|(host, kbit_per_second)| {
            let rate =
                format!("rate {kbit_per_second}kbit burst {SLOW_BURST_BYTES} latency {SLOW_WAIT_MS_MAX}ms");
            format!("qdisc replace dev {} root tbf {rate}\n", port(*host))
        });
        let rates: String = freed.chain(slowed).collect();
        let filter = |host| {
            let (port, program) = (port(host), program(&wires, host));
            format!(
                "filter replace dev {port} egress protocol all prio 1 handle 1 bpf da bytecode \"{program}\"\n"
            )
        };
        self.tc(&(rates + &(0..self.hosts).map(filter).collect::<String>()));
    }

    /// Runs commands of `tc` at the bridge.
    fn tc(&self, commands: &str) {
        let mut tc = Command::new("ip");
        tc.args(["netns", "exec", &self.switch(), "tc", "-batch", "-"]);
        let mut child = tc
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{tc:?}: {error}"));
        // Closed behind it: there are no more.
        let written = child.stdin.take().map(|mut stdin| stdin.write_all(commands.as_bytes()));
        let output = child.wait_with_output().expect("it ends");
        check(&tc, &output);
        written.expect("its input is ours").expect("it has read everything");
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    fn host(&self, host: usize) -> String {
        assert!(host < self.hosts, "there are {} hosts", self.hosts);
        format!("{}-{host}", self.name)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        (0..self.hosts).map(|host| self.host(host)).chain([self.switch()]).for_each(|name| remove(&name));
    }
}

/// The bridge's port to a host.
fn port(host: usize) -> String {
    format!("host{host}")
}

fn mac(host: usize) -> String {
    format!("02:00:00:00:00:{:02x}", number(host))
}

/// What stands for a host in its addresses.
fn number(host: usize) -> u8 {
    u8::try_from(host + 1).expect("there are few hosts")
}

/// The program that lets through or drops what goes to a host, as `tc` reads it: how many instructions, and of each
/// the code, the jumps if true and if not, and the operand.
fn program(wires: &Wires, to: usize) -> String {
    const LOAD_HALF_WORD: u32 = 0x28;
    const LOAD_WORD: u32 = 0x20;
    const JUMP_IF_EQUAL: u32 = 0x15;
    const JUMP_IF_NOT_BELOW: u32 = 0x35;
    const RETURN: u32 = 0x06;
    /// Where the last two bytes of the sender's MAC address are in a frame.
    const SENDER: u32 = 10;
    /// Where a random number is: the kernel's `SKF_AD_OFF + SKF_AD_RANDOM`.
    const RANDOM: u32 = 0xffff_f038;
    /// The kernel's `TC_ACT_OK` and `TC_ACT_SHOT`.
    const PASS: u32 = 0;
    const DROP: u32 = 2;

    let senders: Vec<usize> = wires.cut.iter().filter(|(_, cut)| *cut == to).map(|(from, _)| *from).collect();
    let lost_below = u64::from(u32::MAX) * u64::from(wires.loss_percent.min(100)) / 100;
    // The last three are: whether it is lost, pass, drop.
    let mut lines = vec![format!("{LOAD_HALF_WORD} 0 0 {SENDER}")];
    for (place, sender) in senders.iter().enumerate() {
        let to_drop = senders.len() - place + 2;
        lines.push(format!("{JUMP_IF_EQUAL} {to_drop} 0 {}", number(*sender)));
    }
    lines.push(format!("{LOAD_WORD} 0 0 {RANDOM}"));
    lines.push(format!("{JUMP_IF_NOT_BELOW} 0 1 {lost_below}"));
    lines.push(format!("{RETURN} 0 0 {PASS}"));
    lines.push(format!("{RETURN} 0 0 {DROP}"));
    format!("{},{}", lines.len(), lines.join(","))
}

fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    let output = command.args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}\n{}", what_to_do()));
    check(&command, &output);
}

fn check(command: &Command, output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}\n{}", what_to_do());
}

fn what_to_do() -> String {
    let test = std::env::current_exe().unwrap_or_default();
    format!(
        "This test makes a network of its own in network namespaces. It needs root, ip and tc (Debian: apt-get \
         install iproute2), and a kernel with veth, bridge, sch_ingress and cls_bpf. As another user: sudo {}",
        test.display()
    )
}

fn remove(name: &str) {
    let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
}

/// Takes down what test processes have left that were killed.
fn remove_left_over() {
    let names =
        std::fs::read_dir(NAMES).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.file_name()));
    for name in names.filter_map(|name| name.into_string().ok()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if maker.is_some_and(|process| !PathBuf::from(format!("/proc/{process}")).exists()) {
            remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    /// How many of so many datagrams arrive.
    fn arrive(lan: &Lan, from: usize, to: usize, sent: usize) -> usize {
        let there = (lan.address(to), 9_000);
        let receiver = lan.within(to, || UdpSocket::bind(there).expect("binds"));
        receiver.set_read_timeout(Some(Duration::from_millis(300))).expect("bounded");
        let sender = lan.within(from, || UdpSocket::bind((lan.address(from), 0)).expect("binds"));
        let mut arrived = 0;
        for _ in 0..sent / 10 {
            (0..10).for_each(|_| drop(sender.send_to(b"x", there)));
            // A socket holds few.
            receiver.set_nonblocking(true).expect("does not wait");
            while receiver.recv(&mut [0; 8]).is_ok() {
                arrived += 1;
            }
        }
        receiver.set_nonblocking(false).expect("waits");
        while arrived < sent && receiver.recv(&mut [0; 8]).is_ok() {
            arrived += 1;
        }
        arrived
    }

    #[test]
    fn what_is_cut_or_lost_does_not_arrive_and_the_rest_does() {
        let (lan, other) = (Lan::new(4), Lan::new(2));
        let passes = |from, to| arrive(&lan, from, to, 10) > 0;
        assert_eq!(arrive(&lan, 0, 1, 100), 100);
        // Each has the other's way in its memory now, so that no question has to pass.
        assert_eq!(arrive(&lan, 1, 0, 100), 100);
        lan.cut(0, 1);
        assert!(!passes(0, 1) && passes(1, 0) && passes(2, 1));
        lan.heal();
        lan.split(&[&[0, 1], &[2]]);
        assert!(passes(0, 1) && !passes(0, 2) && !passes(2, 1) && !passes(3, 0) && !passes(2, 3));
        assert!(arrive(&other, 0, 1, 10) > 0, "another network has nothing to do with it");
        lan.heal();
        lan.lose(30);
        let arrived = arrive(&lan, 0, 1, 2_000);
        assert!((1_200..1_600).contains(&arrived), "{arrived} of 2000");
        lan.heal();
        // Each is a frame of 43 bytes: at so slow a rate some 100 go at once, and some 20 wait; more, where the sender is slow itself.
        lan.slow_down(1, 8);
        let arrived = arrive(&lan, 0, 1, 400);
        assert!((50..350).contains(&arrived), "{arrived} of 400");
        assert_eq!(arrive(&lan, 1, 2, 100), 100, "to others it is as fast as before");
        lan.heal();
        assert_eq!(arrive(&lan, 0, 1, 100), 100);
        lan.unplug(1);
        assert!(!passes(0, 1));
        lan.plug_in(1);
        assert_eq!(arrive(&lan, 0, 1, 100), 100);
        let name = lan.host(0);
        drop(lan);
        assert!(!Path::new(NAMES).join(name).exists(), "nothing is left of it");
    }
}

//! Sends requests: as fast as they are answered, or at fixed times.
//!
//! A connection is a thread that blocks, which takes two system calls a request and nothing else.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::contenders::Contender;
use super::machine;
use super::wire::Wire;

/// Whole requests that are sent in turn, from the first again after the last.
pub struct Requests {
    all: Vec<Vec<u8>>,
    next: AtomicUsize,
}

impl Requests {
    pub fn new(all: Vec<Vec<u8>>) -> Self {
        let next = AtomicUsize::new(0);
        Self { all, next }
    }

    fn take(&self) -> &[u8] {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        &self.all[place % self.all.len()]
    }
}

/// How requests follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Drive {
    /// Each connection sends its next one when it has its answer.
    Kept,
    /// The same, over a new connection for each.
    Connect,
    /// As many a second, each at its time, whether the one before was answered or not.
    Rate(u32),
}

/// When a round ends.
#[derive(Clone, Copy)]
pub enum Until {
    Time(Duration),
    Count(usize),
}

/// One round of one line at one contender; times in microseconds.
#[derive(Clone, Copy)]
pub struct Measured {
    pub per_second: f64,
    pub p50: f64,
    pub p99: f64,
    pub cpu: f64,
    /// What sending took of this process, which must be less than the contender's.
    pub load: f64,
}

/// Runs one round over so many connections, which are opened before it begins: who waits for its turn
/// may close those of the round before.
pub fn round(
    contender: &Contender,
    connections: usize,
    requests: &Requests,
    drive: Drive,
    until: Until,
) -> io::Result<Measured> {
    let mut wires = (0..connections)
        .map(|_| Wire::connect(contender.address))
        .collect::<io::Result<Vec<Wire>>>()?;
    let before = machine::cpu_time(contender.process);
    let begin = Instant::now();
    let sent = AtomicUsize::new(0);
    let (mut latencies, load) = thread::scope(|scope| {
        let threads: Vec<_> = wires
            .iter_mut()
            .map(|wire| scope.spawn(|| send(wire, contender, requests, drive, until, begin, &sent)))
            .collect();
        let (mut all, mut load) = (Vec::new(), Duration::ZERO);
        for thread in threads {
            let (mut latencies, used) = thread.join().unwrap()?;
            all.append(&mut latencies);
            load += used;
        }
        Ok::<_, io::Error>((all, load))
    })?;
    let elapsed = begin.elapsed();
    let used = machine::cpu_time(contender.process).zip(before);
    latencies.sort_unstable();
    let count = f64::from(u32::try_from(latencies.len().max(1)).unwrap());
    let percentile = |percent: usize| {
        let place = latencies.len() * percent / 100;
        latencies.get(place).map_or(f64::NAN, micros)
    };
    Ok(Measured {
        per_second: count / elapsed.as_secs_f64(),
        p50: percentile(50),
        p99: percentile(99),
        cpu: used.map_or(f64::NAN, |(after, before)| {
            micros(&after.saturating_sub(before)) / count
        }),
        load: micros(&load) / count,
    })
}

/// What one connection does in a round, and the CPU that it took; `sent` counts for all of them.
fn send(
    wire: &mut Wire,
    contender: &Contender,
    requests: &Requests,
    drive: Drive,
    until: Until,
    begin: Instant,
    sent: &AtomicUsize,
) -> io::Result<(Vec<Duration>, Duration)> {
    machine::wake_in_time();
    let mut latencies = Vec::new();
    loop {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        let due = match drive {
            Drive::Rate(per_second) => {
                begin + Duration::from_secs(1) * u32::try_from(number).unwrap() / per_second
            }
            Drive::Kept | Drive::Connect => Instant::now(),
        };
        let over = match until {
            Until::Time(time) => due.duration_since(begin) >= time,
            Until::Count(count) => number >= count,
        };
        if over {
            return Ok((latencies, machine::own_cpu_time().unwrap_or_default()));
        }
        if let Drive::Rate(_) = drive {
            #[expect(clippy::disallowed_methods, reason = "the thread is this connection's")]
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        if drive == Drive::Connect {
            wire.reconnect(contender.address)?;
        }
        let answered = wire.exchange(requests.take())?;
        if answered.status != 200 {
            return Err(io::Error::other(format!("answered {}", answered.status)));
        }
        if !answered.kept && drive != Drive::Connect {
            wire.reconnect(contender.address)?;
        }
        latencies.push(due.elapsed());
    }
}

fn micros(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

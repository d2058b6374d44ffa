//! What Linux tells of processes, and where they run; nothing of it elsewhere.

use std::fs;
use std::time::Duration;

/// The cores that the contenders have, and those of the load and the engine.
#[derive(Clone)]
pub struct Cores {
    all: Vec<usize>,
    contender: Vec<usize>,
    load: Vec<usize>,
}

impl Cores {
    /// Those that this process may use, one of them for the contender.
    pub fn found() -> Self {
        let all = cores();
        Self {
            all,
            contender: Vec::new(),
            load: Vec::new(),
        }
        .divided(1)
    }

    /// The same cores, so many of them for the contender, the rest for the load.
    /// Nobody is pinned where there are too few.
    pub fn divided(&self, workers: usize) -> Self {
        let (contender, load) = match self.all.split_at_checked(workers) {
            Some((contender, load)) if !load.is_empty() => (contender.to_vec(), load.to_vec()),
            _ => (Vec::new(), Vec::new()),
        };
        Self {
            all: self.all.clone(),
            contender,
            load,
        }
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    pub fn pinned(&self) -> bool {
        !self.load.is_empty()
    }

    /// Moves this thread, and what it starts from now on, to the cores of the load.
    pub fn load_here(&self) {
        pin(&self.load);
    }

    /// Starts something on the contender's cores: a process has those of the thread that started it.
    pub fn for_contender<T>(&self, start: impl FnOnce() -> T) -> T {
        pin(&self.contender);
        let started = start();
        pin(&self.load);
        started
    }
}

#[cfg(target_os = "linux")]
fn cores() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn cores() -> Vec<usize> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn pin(cores: &[usize]) {
    if !cores.is_empty() {
        let mut set = rustix::thread::CpuSet::new();
        for &core in cores {
            set.set(core);
        }
        rustix::thread::sched_setaffinity(None, &set).unwrap();
    }
}

#[cfg(not(target_os = "linux"))]
fn pin(_: &[usize]) {}

/// Lets this thread sleep to the microsecond: Linux gives a sleeper 50 us more to gather those that wake.
#[cfg(target_os = "linux")]
pub fn wake_in_time() {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

#[cfg(not(target_os = "linux"))]
pub fn wake_in_time() {}

/// Lets this process, and those that it starts, have as many files open as it is allowed to.
#[cfg(unix)]
pub fn allow_open_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
    let allowed = getrlimit(Resource::Nofile).current;
    allowed.map_or(usize::MAX, |allowed| {
        usize::try_from(allowed).unwrap_or(usize::MAX)
    })
}

#[cfg(not(unix))]
pub fn allow_open_files() -> usize {
    usize::MAX
}

/// The time that a process and its children were on a processor, as the scheduler counts it.
pub fn cpu_time(process: u32) -> Option<Duration> {
    let mut nanos = 0;
    for process in family(process) {
        for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
            // A thread may end while it is looked at.
            let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
                continue;
            };
            nanos += text.split(' ').next()?.parse::<u64>().ok()?;
        }
    }
    Some(Duration::from_nanos(nanos))
}

/// The time that this thread was on a processor.
pub fn own_cpu_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// The bytes of memory that a process and its children have now.
pub fn memory(process: u32) -> f64 {
    status(process, "VmRSS:")
}

/// The most that it had since the peak was forgotten.
pub fn memory_peak(process: u32) -> f64 {
    status(process, "VmHWM:")
}

pub fn forget_peak(process: u32) {
    let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
}

fn status(process: u32, key: &str) -> f64 {
    let mut kibibytes = 0.0;
    for process in family(process) {
        let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let words = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kibibytes += words.unwrap_or(f64::NAN);
    }
    kibibytes * 1024.0
}

/// The process, its children, and theirs.
fn family(process: u32) -> Vec<u32> {
    let mut family = vec![process];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        let threads = fs::read_dir(format!("/proc/{parent}/task"))
            .into_iter()
            .flatten();
        for thread in threads.flatten() {
            let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            family.extend(
                text.split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
    }
    family
}

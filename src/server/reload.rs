//! Loads the configuration again: on SIGHUP, and when its file changes or a file that it names.
//!
//! 1. All of it or nothing: what cannot be used is logged, with the words of `bpmgate check`, and the configuration before goes on.
//! 2. A changed file is noticed within [`LOOK`], a symbolic link that was turned to another one too, as Kubernetes does. It is read once
//!    it rests, so that nobody's half-written file is taken.
//! 3. While the last load has failed it is tried again at each look, as the missing file may come later; it is counted and logged anew
//!    where it fails for another reason.
//! 4. Some keys hold from the start on ([`RESTART`]). Where one of them changes, the log and `/status` say so, and the rest is taken.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::body::BoxError;
use crate::config::{Config, ConfigError, Loaded, Warning};

/// When the configuration was loaded, and what became of it. Clones share it.
#[derive(Debug, Clone)]
pub struct Reloads(Arc<Mutex<History>>);

/// What is known of the loads so far.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct History {
    /// Since when the process works.
    pub began: Instant,
    /// The same, for people.
    pub began_at: SystemTime,
    /// When the configuration that is in force was loaded.
    pub loaded_at: SystemTime,
    /// How often it was loaded again.
    pub succeeded: u64,
    /// How often it could not be.
    pub failed: u64,
    /// When and why the last load failed, if it did.
    pub failure: Option<(SystemTime, String)>,
    /// The keys whose new values wait for a restart.
    pub waiting: Vec<&'static str>,
}

impl Default for Reloads {
    /// Loaded now, for the first time.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(History {
            began: Instant::now(),
            began_at: SystemTime::now(),
            loaded_at: SystemTime::now(),
            succeeded: 0,
            failed: 0,
            failure: None,
            waiting: Vec::new(),
        })))
    }
}

impl Reloads {
    /// What is known now.
    #[must_use]
    pub fn history(&self) -> History {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    fn succeeded(&self, waiting: Vec<&'static str>) {
        let mut history = self.lock();
        history.loaded_at = SystemTime::now();
        history.succeeded = history.succeeded.saturating_add(1);
        history.failure = None;
        if waiting.is_empty() {
            info!("the configuration was loaded again");
        } else {
            warn!(keys = ?waiting, "the configuration was loaded again, but some changes wait for a restart");
        }
        history.waiting = waiting;
    }

    /// Says why; once where nobody asked for another try.
    fn failed(&self, why: String, is_new: bool) {
        let mut history = self.lock();
        let is_known = history
            .failure
            .as_ref()
            .is_some_and(|(_, last)| *last == why);
        if is_known && !is_new {
            return;
        }
        error!(error = %why, "the configuration cannot be loaded again, and the one before is kept");
        history.failed = history.failed.saturating_add(1);
        history.failure = Some((SystemTime::now(), why));
    }
}

/// Loads again whenever there is a reason. `load` reads; `apply` puts a configuration in force, or leaves everything as it is.
#[derive(Debug)]
pub struct Reloading {
    /// In force.
    running: Config,
    warnings: Vec<Warning>,
    /// The file itself.
    file: Option<PathBuf>,
    seen: Stamps,
    hangup: Signal,
    reloads: Reloads,
}

impl Reloading {
    /// From now on SIGHUP is no reason to end.
    ///
    /// # Errors
    /// The signal cannot be listened for.
    pub fn new(loaded: &Loaded, reloads: Reloads) -> std::io::Result<Self> {
        Ok(Self {
            running: loaded.config.clone(),
            warnings: loaded.warnings.clone(),
            file: loaded.file.clone(),
            seen: Stamps::of(loaded.file.as_deref(), &loaded.config),
            hangup: signal(SignalKind::hangup())?,
            reloads,
        })
    }

    /// Loads again whenever there is a reason, for ever. `hung_up` is called at each SIGHUP, before anything is loaded.
    pub async fn run(
        mut self,
        load: fn(Option<&Path>) -> Result<Loaded, ConfigError>,
        hung_up: impl Fn(),
        mut apply: impl FnMut(&Config) -> Result<(), BoxError>,
    ) {
        loop {
            let asked = tokio::select! {
                Some(()) = self.hangup.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            if asked {
                info!("SIGHUP: loading the configuration again");
                hung_up();
            }
            let changed = self.settled().await;
            if !asked && !changed && !self.reloads.has_failed() {
                continue;
            }
            let file = self.file.clone();
            let loaded = tokio::task::spawn_blocking(move || load(file.as_deref())).await;
            let done = match loaded {
                Ok(Ok(loaded)) => self.take(loaded, &mut apply),
                Ok(Err(wrong)) => Err(wrong.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = done {
                self.reloads.failed(why, asked || changed);
            }
        }
    }

    fn take(
        &mut self,
        loaded: Loaded,
        apply: &mut impl FnMut(&Config) -> Result<(), BoxError>,
    ) -> Result<(), String> {
        let Loaded {
            mut config,
            warnings,
            ..
        } = loaded;
        let mut waiting = Vec::new();
        for (key, keep) in RESTART {
            if keep(&self.running, &mut config) {
                waiting.push(key);
            }
        }
        apply(&config).map_err(|error| causes(&*error))?;
        for warning in &warnings {
            if !self.warnings.contains(warning) {
                warn!(
                    key = warning.key(),
                    place = warning.place(),
                    title = warning.title(),
                    "the configuration can be used, but not quite as it reads"
                );
            }
        }
        self.warnings = warnings;
        self.running = config;
        // The configuration may name other files now; what they held when it was read was seen before it.
        self.seen.follow(self.file.as_deref(), &self.running);
        self.reloads.succeeded(waiting);
        Ok(())
    }

    /// Whether a file has changed; waits until it rests, but not for long.
    async fn settled(&mut self) -> bool {
        let mut changed = false;
        for _ in 0..RESTS {
            let paths = self.seen.paths();
            let looked = tokio::task::spawn_blocking(|| Stamps::look(paths)).await;
            match looked {
                Ok(now) if now != self.seen => {
                    self.seen = now;
                    changed = true;
                }
                Ok(_) | Err(_) => return changed,
            }
            tokio::time::sleep(REST).await;
        }
        changed
    }
}

/// An error with its causes, in one line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// How files look.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

impl Stamps {
    fn of(file: Option<&Path>, config: &Config) -> Self {
        Self::look(files(file, config))
    }

    fn look(paths: Vec<PathBuf>) -> Self {
        let stamps = paths.into_iter().map(|path| {
            let stamp = stamp(&path);
            (path, stamp)
        });
        Self(stamps.collect())
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.0.iter().map(|(path, _)| path.clone()).collect()
    }

    /// Looks at the files of this configuration from now on; what is known of one stays known.
    fn follow(&mut self, file: Option<&Path>, config: &Config) {
        let known = std::mem::take(&mut self.0);
        self.0 = Self::of(file, config).0;
        for (path, stamp) in &mut self.0 {
            if let Some((_, known)) = known.iter().find(|(other, _)| other == path) {
                *stamp = *known;
            }
        }
    }
}

/// The configuration's file, and those that it names. The files of `[server.tls]` are watched by [`Tls`](super::Tls).
fn files(file: Option<&Path>, config: &Config) -> Vec<PathBuf> {
    let engine = &config.engine;
    let mut files = vec![
        &engine.credentials.password_file,
        &engine.ca_file,
        &engine.certificate_file,
        &engine.private_key_file,
    ];
    for issuer in &config.issuers {
        files.extend([&issuer.hs_secret_file, &issuer.public_key_file]);
    }
    let named = files
        .into_iter()
        .filter(|path| !path.as_os_str().is_empty());
    file.into_iter()
        .map(Path::to_owned)
        .chain(named.cloned())
        .collect()
}

/// When a file was changed, how long it is, and which it is: one that takes its place may be as old and as long.
pub(crate) type Stamp = (SystemTime, u64, u64);

/// How a file looks, at the end of all links; `None` where it cannot be seen.
pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

/// Gives a key its value before, and says whether that was another.
type Keep = fn(&Config, &mut Config) -> bool;

/// What holds from the start on.
const RESTART: [(&str, Keep); 12] = [
    ("server.listen", |before, now| {
        keep(&before.server.listen, &mut now.server.listen)
    }),
    ("server.workers", |before, now| {
        keep(&before.server.workers, &mut now.server.workers)
    }),
    ("server.shutdown_delay", |before, now| {
        keep(
            &before.server.shutdown_delay,
            &mut now.server.shutdown_delay,
        )
    }),
    ("server.shutdown_grace", |before, now| {
        keep(
            &before.server.shutdown_grace,
            &mut now.server.shutdown_grace,
        )
    }),
    ("server.tls", |before, now| {
        keep(&before.server.tls, &mut now.server.tls)
    }),
    ("server.limits.connections", |before, now| {
        let (before, now) = (&before.server.limits, &mut now.server.limits);
        keep(&before.connections, &mut now.connections)
    }),
    ("admin.listen", |before, now| {
        keep(&before.admin.listen, &mut now.admin.listen)
    }),
    ("telemetry.log_format", |before, now| {
        keep(&before.telemetry.log_format, &mut now.telemetry.log_format)
    }),
    ("telemetry.otlp_endpoint", |before, now| {
        let (before, now) = (&before.telemetry, &mut now.telemetry);
        keep(&before.otlp_endpoint, &mut now.otlp_endpoint)
    }),
    ("telemetry.trace_sampling", |before, now| {
        let (before, now) = (&before.telemetry, &mut now.telemetry);
        keep(&before.trace_sampling, &mut now.trace_sampling)
    }),
    ("telemetry.trace_queue", |before, now| {
        let (before, now) = (&before.telemetry, &mut now.telemetry);
        keep(&before.trace_queue, &mut now.trace_queue)
    }),
    ("telemetry.trace_users", |before, now| {
        let (before, now) = (&before.telemetry, &mut now.telemetry);
        keep(&before.trace_users, &mut now.trace_users)
    }),
];

fn keep<T: PartialEq + Clone>(before: &T, now: &mut T) -> bool {
    let differs = before != now;
    now.clone_from(before);
    differs
}

/// How often the files are looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

/// How long a changed file must rest.
const REST: Duration = Duration::from_millis(100);

/// So often is it waited for.
const RESTS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogFormat, Tls};

    /// Another value of a key than the default one.
    fn change(key: &str, config: &mut Config) {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let (server, telemetry) = (&mut config.server, &mut config.telemetry);
        match key {
            "server.listen" => server.listen = address,
            "server.workers" => server.workers += 1,
            "server.shutdown_delay" => server.shutdown_delay += LOOK,
            "server.shutdown_grace" => server.shutdown_grace += LOOK,
            "server.tls" => {
                server.tls = Some(Tls {
                    certificate_file: "a".into(),
                    private_key_file: "b".into(),
                    client_ca_file: PathBuf::new(),
                });
            }
            "server.limits.connections" => server.limits.connections += 1,
            "admin.listen" => config.admin.listen = Some(address),
            "telemetry.log_format" => telemetry.log_format = LogFormat::Json,
            "telemetry.otlp_endpoint" => {
                telemetry.otlp_endpoint = Some("http://127.0.0.1:1".parse().unwrap());
            }
            "telemetry.trace_sampling" => telemetry.trace_sampling /= 2.0,
            "telemetry.trace_queue" => telemetry.trace_queue += 1,
            "telemetry.trace_users" => telemetry.trace_users = !telemetry.trace_users,
            other => panic!("say here how {other} may change"),
        }
    }

    #[test]
    fn each_key_that_needs_a_restart_is_named_keeps_its_value_and_leaves_others_alone() {
        let before = Config::default();
        for (key, _) in RESTART {
            let mut now = before.clone();
            // This one is taken.
            now.access.default = "none".to_owned();
            let without = now.clone();
            change(key, &mut now);
            assert_ne!(now, without, "{key}");
            let waiting: Vec<_> = RESTART
                .iter()
                .filter(|(_, keep)| keep(&before, &mut now))
                .map(|(key, _)| *key)
                .collect();
            assert_eq!(waiting, [key]);
            assert_eq!(now, without, "{key}");
        }
    }

    #[test]
    fn the_guide_names_the_keys_that_need_a_restart() {
        let guide = include_str!("../../docs/reload.md");
        let (_, told) = guide.split_once("**What needs a restart**").unwrap();
        let told = told.split('.').take_while(|part| !part.contains(" Where "));
        let told: String = told.collect::<Vec<_>>().join(".");
        for (key, _) in RESTART {
            let key = if key == "server.tls" {
                "[server.tls]"
            } else {
                key
            };
            assert!(told.contains(&format!("`{key}`")), "{key}: {told}");
        }
        assert_eq!(told.matches('`').count(), 2 * RESTART.len(), "{told}");
    }
}

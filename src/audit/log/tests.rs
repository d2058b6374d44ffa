use std::sync::{Mutex, mpsc as channel};

use super::*;
use crate::identity::tests::alice;

/// An output that a test can break and mend, and that says when it has failed.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    written: Vec<u8>,
    /// How many bytes still fit; `None`: as many as come.
    room: Option<usize>,
    failed: Option<channel::Sender<()>>,
}

impl Disk {
    fn room(&self, room: Option<usize>) {
        self.0.lock().unwrap().room = room;
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().written.clone()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
        let id = |line: &str| -> String {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["request_id"].as_str().unwrap().to_owned()
        };
        text.lines().map(id).collect()
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut content = self.0.lock().unwrap();
        let fits = content.room.unwrap_or(usize::MAX).min(bytes.len());
        content.room = content.room.map(|room| room - fits);
        if fits == 0 {
            if let Some(failed) = &content.failed {
                let _ = failed.send(());
            }
            return Err(ErrorKind::StorageFull.into());
        }
        content.written.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn record(id: &str) -> Record {
    Record::new(std::time::SystemTime::UNIX_EPOCH, id, &alice(), "POST")
}

fn write(log: &AuditLog, id: &str) {
    log.try_slot().expect("a slot").write(record(id));
}

/// A log on a disk with this much room; the channel tells each failure.
fn failing(room: usize) -> (AuditLog, Disk, channel::Receiver<()>) {
    let disk = Disk::default();
    let (tell, failed) = channel::channel();
    disk.0.lock().unwrap().failed = Some(tell);
    disk.room(Some(room));
    let log = AuditLog::over(Box::new(disk.clone()), 8).unwrap();
    (log, disk, failed)
}

/// The writer has failed, and has said so.
fn until_failing(log: &AuditLog, failed: &channel::Receiver<()>) {
    failed.recv_timeout(SOON).unwrap();
    until(|| log.status().failing);
}

fn until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON);
        thread::yield_now();
    }
}

const SOON: Duration = Duration::from_mins(1);

#[test]
fn the_last_drop_waits_until_all_is_written_in_order() {
    let disk = Disk::default();
    let log = AuditLog::over(Box::new(disk.clone()), 5000).unwrap();
    let ids: Vec<String> = (0..3000).map(|id| id.to_string()).collect();
    for id in &ids {
        write(&log, id);
    }
    let held = log.try_slot().unwrap();
    drop(log);
    held.write(record("last"));
    let lines = disk.lines();
    assert_eq!(lines[..3000], ids);
    assert_eq!(lines[3000..], ["last"]);
}

#[test]
fn while_writing_fails_there_is_no_slot_and_then_nothing_is_lost_or_torn() {
    // Room for a part of the first line.
    let (log, disk, failed) = failing(10);
    let in_flight = log.try_slot().unwrap();
    write(&log, "1");
    until_failing(&log, &failed);
    assert!(log.try_slot().is_none());
    // What was on its way has room.
    in_flight.write(record("2"));

    // It tries again by itself, also while nothing new comes.
    failed.recv_timeout(SOON).unwrap();
    disk.room(None);
    until(|| !log.status().failing);
    write(&log, "3");
    assert!(log.status().failures >= 2);
    drop(log);
    assert_eq!(disk.lines(), ["1", "2", "3"]);
}

#[test]
fn a_drop_while_writing_fails_tries_once_more_and_ends() {
    let (log, disk, failed) = failing(0);
    write(&log, "1");
    failed.recv_timeout(SOON).unwrap();
    drop(log);
    assert!(disk.lines().is_empty());

    let (log, disk, failed) = failing(0);
    write(&log, "1");
    failed.recv_timeout(SOON).unwrap();
    disk.room(None);
    drop(log);
    assert_eq!(disk.lines(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_a_second_for_a_slot_and_no_longer() {
    let log = AuditLog::over(Box::new(io::sink()), 1).unwrap();
    let taken = log.try_slot().unwrap();
    assert!(log.try_slot().is_none());
    let before = tokio::time::Instant::now();
    assert_eq!(log.slot().await.err(), Some(Problem::AuditUnavailable));
    assert_eq!(before.elapsed(), PATIENCE);

    // One that becomes free in time is taken; an unused one is free again.
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { log.slot().await.is_ok() }
    });
    tokio::task::yield_now().await;
    drop(taken);
    assert!(waiting.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_slot_while_writing_fails() {
    let (log, _, failed) = failing(0);
    write(&log, "1");
    until_failing(&log, &failed);
    let before = tokio::time::Instant::now();
    assert_eq!(log.slot().await.err(), Some(Problem::AuditUnavailable));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[cfg(unix)]
#[test]
fn a_new_file_is_its_owners_alone_and_an_old_one_is_appended_to() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.log");
    for id in ["1", "2"] {
        let log = AuditLog::open(&Target::File(file.clone()), 1).unwrap();
        write(&log, id);
        assert_eq!(Arc::strong_count(&log.0), 1);
    }
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    let nowhere = Target::File(directory.path().join("no/audit.log"));
    assert_eq!(
        AuditLog::open(&nowhere, 1).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn the_configuration_names_standard_output_or_a_file_or_nothing() {
    assert_eq!(Target::parse(""), None);
    assert_eq!(Target::parse("stdout"), Some(Target::Stdout));
    assert_eq!(
        Target::parse("./stdout"),
        Some(Target::File("./stdout".into()))
    );
}

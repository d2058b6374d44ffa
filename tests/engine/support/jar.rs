//! An engine's jar, built by Maven and kept; `tests/oracle` takes the engine's classes out of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// A Maven project, part of this binary so that its name in the cache cannot lie: paths and their texts.
pub(crate) type Sources = [(&'static str, &'static str); 3];

/// The jar of these sources: from the cache, or built into it.
pub(crate) fn build(sources: &Sources) -> PathBuf {
    let cache = std::env::var_os("BPMGATE_ENGINE_CACHE").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("engine"),
        PathBuf::from,
    );
    fs::create_dir_all(&cache).expect("a directory for the engine");
    let named = sources.map(|(path, text)| [path, text].concat()).concat();
    let hash = BASE64_URL_SAFE_NO_PAD.encode(&digest(&SHA256, named.as_bytes()).as_ref()[..12]);
    let jar = cache.join(format!("engine-{hash}.jar"));

    // Two runs at the same time: one builds, the other waits here and finds the jar.
    let lock = File::create(cache.join("lock")).expect("a lock file");
    lock.lock().expect("a file system that locks");
    if jar.exists() {
        return jar;
    }
    let project = tempfile::tempdir_in(&cache).unwrap();
    for (path, text) in sources {
        let file = project.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let maven = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "-DskipTests", "package"])
        .current_dir(&project)
        .stdin(Stdio::null())
        .output()
        .expect("Maven (`mvn`) to build the engine with");
    let said = String::from_utf8_lossy(&maven.stdout);
    assert!(
        maven.status.success(),
        "Maven cannot build the engine:\n{said}"
    );
    // Under its name only when it is whole: a build that was killed leaves no half of one.
    fs::rename(project.path().join("target/engine.jar"), &jar).unwrap();
    jar
}

/// Operaton.
pub(crate) const OPERATON: Sources = [
    ("pom.xml", include_str!("../operaton/pom.xml")),
    (
        "src/main/resources/application.yaml",
        include_str!("../operaton/src/main/resources/application.yaml"),
    ),
    (
        "src/main/java/engine/Engine.java",
        include_str!("../operaton/src/main/java/engine/Engine.java"),
    ),
];

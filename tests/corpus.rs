//! The fuzz targets' checks over their corpora, on every run: `fuzz/src` says what must hold.

use std::fs;
use std::path::Path;

#[expect(
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a check ends at what does not hold, and is also the fuzz targets' crate"
)]
#[path = "../fuzz/src/lib.rs"]
mod checks;

/// Else nothing behind the signature would be reached, and no forged token could be told from a bad one.
#[test]
fn the_tokens_that_the_keys_signed_are_accepted() {
    for token in checks::token::SIGNED {
        assert!(checks::token::is_accepted(token), "{token}");
    }
}

#[test]
fn every_file_of_the_corpora_passes_its_check() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, check) in checks::CHECKS {
        let mut files: Vec<_> = fs::read_dir(corpora.join(name))
            .expect("a corpus of each check")
            .map(|entry| entry.expect("a file").path())
            .collect();
        files.sort();
        assert!(files.len() >= 10, "{name} has only {} files", files.len());
        for file in files {
            // What libFuzzer made and what a check says of it go together.
            println!("{}", file.display());
            check(&fs::read(&file).expect("a file that can be read"));
        }
    }
}

//! The fuzz targets' checks over their corpora, on every run: `fuzz/src` says what must hold.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test ends at what it did not expect, and says where"
)]

use std::fs;
use std::path::Path;

#[expect(
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
fn every_path_of_the_corpus_is_refused_or_normal() {
    replay("path", checks::path::check);
}

#[test]
fn every_token_of_the_corpus_is_refused_or_signed_by_us() {
    replay("token", checks::token::check);
}

#[test]
fn every_key_set_of_the_corpus_has_only_keys_that_may_verify() {
    replay("jwks", checks::jwks::check);
}

#[test]
fn every_body_of_the_corpus_is_refused_or_has_our_initiator_alone() {
    replay("splice", checks::splice::check);
}

#[test]
fn every_request_of_the_corpus_finds_the_row_that_fits() {
    replay("matcher", checks::matcher::check);
}

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut files: Vec<_> = fs::read_dir(corpus.join(target))
        .expect("a corpus of each target")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() >= 40, "only {} files", files.len());
    for file in files {
        // The last one is that which does not pass.
        println!("{}", file.display());
        check(&fs::read(&file).expect("a file that can be read"));
    }
}

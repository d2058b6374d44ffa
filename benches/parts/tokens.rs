//! Tokens made before: a signature takes a millisecond, and a round needs thousands.
//!
//! They stay in `target/bench` with the public half of the key that signed them, so that the next run has
//! them at once, and so that others can be given the key.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bpmgate::body::BoxError;
use serde_json::json;

/// Tokens of as many people, all different, and one of somebody who may deploy.
pub struct Tokens {
    directory: PathBuf,
    key: ParsedPublicKey,
    deployer: String,
    expired: String,
    all: Vec<String>,
}

impl Tokens {
    /// Those in the directory, or new ones where they are too few or too old.
    pub fn at(directory: &Path, count: usize) -> Result<Self, BoxError> {
        if let Ok(found) = Self::read(directory, count) {
            return Ok(found);
        }
        make(directory, count)?;
        Self::read(directory, count)
    }

    fn read(directory: &Path, count: usize) -> Result<Self, BoxError> {
        let text = fs::read_to_string(directory.join(TOKENS))?;
        let mut lines = text.lines().map(str::to_owned);
        let made: u64 = lines.next().ok_or("no time")?.parse()?;
        let deployer = lines.next().ok_or("no deployer")?;
        let expired = lines.next().ok_or("no expired one")?;
        let all: Vec<String> = lines.collect();
        if now() > made + LIFE_SECONDS / 2 || all.len() < count {
            return Err("too old or too few".into());
        }
        let der = fs::read(directory.join(DER))?;
        let key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der)?;
        Ok(Self {
            directory: directory.to_owned(),
            key,
            deployer,
            expired,
            all,
        })
    }

    /// The one that is sent again and again.
    pub fn hot(&self) -> &str {
        &self.all[0]
    }

    /// Whose it is.
    pub fn hot_subject() -> String {
        person(0)
    }

    /// Of somebody with the role `deployer`.
    pub fn deployer(&self) -> &str {
        &self.deployer
    }

    pub fn expired(&self) -> &str {
        &self.expired
    }

    pub fn all(&self) -> &[String] {
        &self.all
    }

    /// Well formed, with another's signature.
    pub fn forged(&self) -> String {
        let (signed, _) = self.all[0].rsplit_once('.').unwrap();
        let (_, signature) = self.all[1].rsplit_once('.').unwrap();
        format!("{signed}.{signature}")
    }

    /// The key set, as a file.
    pub fn jwks(&self) -> PathBuf {
        self.directory.join(JWKS)
    }

    /// What one check of a signature takes here and now, in microseconds: the least of some hundred, for it is
    /// a limit that others are held to.
    pub fn signature_check(&self) -> f64 {
        let (signed, signature) = self.all[0].rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let checks = (0..300).map(|_| {
            let begin = Instant::now();
            let checked = self.key.verify_sig(signed.as_bytes(), &signature);
            black_box(checked).unwrap();
            begin.elapsed().as_secs_f64() * 1e6
        });
        checks.fold(f64::INFINITY, f64::min)
    }
}

fn make(directory: &Path, count: usize) -> Result<(), BoxError> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| "no key could be made")?;
    let public = pair.public_key();
    let jwks = json!({"keys": [{
        "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID,
        "n": URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
        "e": URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
    }]});
    let der: PublicKeyX509Der<'_> = public.as_der()?;
    let pem = STANDARD.encode(der.as_ref());
    let pem: Vec<&str> = pem
        .as_bytes()
        .chunks(64)
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    let pem = pem.join("\n");

    let made = now();
    let deployer = signed(&pair, made, "deployer", &["deployer"]);
    let expired = signed(&pair, made - 2 * LIFE_SECONDS, &person(0), &[]);
    let mut text = format!("{made}\n{deployer}\n{expired}\n");
    for number in 0..count {
        text.push_str(&signed(&pair, made, &person(number), &[]));
        text.push('\n');
    }
    fs::create_dir_all(directory)?;
    fs::write(directory.join(JWKS), jwks.to_string())?;
    fs::write(directory.join(DER), der.as_ref())?;
    fs::write(
        directory.join("public.pem"),
        format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n"),
    )?;
    fs::write(directory.join(TOKENS), text)?;
    Ok(())
}

fn person(number: usize) -> String {
    format!("3f6c2c52-8a4e-4a63-9b7e-{number:012x}")
}

fn signed(pair: &KeyPair, made: u64, person: &str, roles: &[&str]) -> String {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": KEY_ID});
    let claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "iat": made, "exp": made + LIFE_SECONDS,
        "sub": person, "email": "alice@example.org", "name": "Alice Example", "roles": roles,
    });
    let mut token = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        token.as_bytes(),
        &mut signature,
    )
    .unwrap();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "bench";

const KEY_ID: &str = "bench";
const LIFE_SECONDS: u64 = 30 * 24 * 3600;
const TOKENS: &str = "tokens.txt";
const JWKS: &str = "jwks.json";
const DER: &str = "public.der";

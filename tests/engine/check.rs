//! `bpmgate check --engine`: what it finds out about a real engine.

use std::process::Command;

use crate::support::engine::Engine;

#[tokio::test]
async fn check_tells_version_product_account_and_authorizations() {
    let engine = Engine::shared().await;
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "admin.listen = \"\"\nengine.url = \"{}\"\n[[issuers]]\nissuer = \"https://id.example.com\"\naudience = [\"bpm\"]\n",
        engine.url()
    );
    std::fs::write(directory.path().join("config.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bpmgate"));
    command
        .args(["check", "--engine"])
        .env_clear()
        .current_dir(directory.path());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    let (_, found) = told.split_once("\n# engine ").unwrap();
    let found: Vec<_> = found.lines().skip(1).collect();
    assert_eq!(
        found,
        [
            "#   version              1.0.3",
            "#   product              Operaton BPM Runtime",
            "#   without credentials  refuses",
            "#   demo/demo            accepted",
            "#   authorizations       off: even a user who does not exist may delete authorizations",
        ]
    );
    let warned = String::from_utf8(output.stderr).unwrap();
    assert_eq!(warned.matches("warning: ").count(), 2, "{warned}");
}

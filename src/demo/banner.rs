//! What `bpmgate demo` prints: what runs where, and commands to paste.

use std::net::SocketAddr;

use serde_json::json;

use super::issuer::Issuer;

/// A person whom the demo's issuer speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// The `sub` of the tokens.
    pub subject: &'static str,
    /// The `email` of the tokens.
    pub email: &'static str,
    /// The `name` of the tokens.
    pub name: &'static str,
}

impl Person {
    /// A token for this person, good for an hour.
    #[must_use]
    pub fn token(self, issuer: &Issuer) -> String {
        issuer.token(&json!({
            "sub": self.subject,
            "email": self.email,
            "name": self.name,
            "aud": AUDIENCE,
        }))
    }
}

/// The `aud` of the tokens.
pub const AUDIENCE: &str = "bpmgate-demo";

/// Who asks.
pub const ALICE: Person = Person {
    subject: "alice",
    email: "alice@example.org",
    name: "Alice Example",
};

/// Who decides.
pub const BOB: Person = Person {
    subject: "bob",
    email: "bob@example.org",
    name: "Bob Example",
};

/// The text for a gateway at this address, in front of an engine at this URL, with a token for each of the two.
///
/// The tokens are in it because the reader is to paste them: it goes to the terminal of the person who
/// started the demo, never to a log. The commands need a POSIX shell, curl and sed; from the first
/// assignment on, the text is a shell script.
#[must_use]
pub fn text(gateway: SocketAddr, engine: &str, alice: &str, bob: &str) -> String {
    let api = format!("http://{gateway}/api");
    let curl = "curl -s -H \"Authorization: Bearer $TOKEN\"";
    let json = "-H 'Content-Type: application/json'";
    let id = r#"sed -n 's/.*"id":"\([0-9a-f-]\{36\}\)".*/\1/p'"#;
    let (asks, decides) = (ALICE.name, BOB.name);
    format!(
        r#"bpmgate demo: for trying out only. Everything listens on loopback, the tokens below are signed
by a key that exists in this process alone, and all state is gone when it ends (Ctrl-C).

  gateway  http://{gateway}
  engine   {engine}

{asks} and {decides} have a token for an hour. Paste into another terminal:

ALICE={alice}
BOB={bob}
TOKEN=$ALICE

# Without a token nothing is to be had
curl -s -i {api}/process-definition

# Which processes are there?
{curl} {api}/process-definition

# {asks} starts one, and pretends to be the director: look at the initiator in the answer
STARTED=$({curl} {json} {api}/process-definition/key/approval/start \
  -d '{{"variables":{{"subject":{{"value":"A desk"}},"initiator":{{"value":"the-director"}}}},"withVariablesInReturn":true}}')
echo "$STARTED"; INSTANCE=$(echo "$STARTED" | {id})

# The engine has it so
{curl} {api}/process-instance/$INSTANCE/variables

# {decides} looks for what waits
TOKEN=$BOB
TASK=$({curl} "{api}/task?processInstanceId=$INSTANCE" | {id}); echo "$TASK"

# claims it; claiming for somebody else is refused
{curl} -i {json} {api}/task/$TASK/claim -d '{{"userId":"alice"}}'
{curl} -i {json} {api}/task/$TASK/claim -d '{{"userId":"bob"}}'

# and decides
{curl} -i {json} {api}/task/$TASK/complete -d '{{"variables":{{"approved":{{"value":true}}}}}}'

# Deploying is running code on the engine: not for everybody with a token
{curl} -i -X POST {api}/deployment/create
"#
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs the commands with a `curl` that shows its arguments and answers as the engine does.
    fn run(text: &str) -> String {
        let (_, commands) = text.split_once("\nALICE=").unwrap();
        let curl = r#"curl() { printf '%s|' "$@" >&2; echo >&2
            echo '[{"links":[],"definitionId":"approval:1:00000000-0000-0000-0000-000000000000","id":"11111111-2222-3333-4444-555555555555","name":"x"}]'; }"#;
        let mut shell = Command::new("sh")
            .arg("-eu")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        write!(shell.stdin.take().unwrap(), "{curl}\nALICE={commands}").unwrap();
        let output = shell.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    #[test]
    fn the_commands_run_in_a_shell_and_say_what_they_should() {
        let gateway = "127.0.0.1:4321".parse().unwrap();
        let calls = run(&text(
            gateway,
            "http://127.0.0.1:1234/engine-rest",
            "ey.alice",
            "ey.bob",
        ));
        let alice = "-s|-H|Authorization: Bearer ey.alice|";
        let bob = "-s|-H|Authorization: Bearer ey.bob|";
        let api = "http://127.0.0.1:4321/api";
        let (instance, task) = (
            "11111111-2222-3333-4444-555555555555",
            "11111111-2222-3333-4444-555555555555",
        );
        let json = "-H|Content-Type: application/json|";
        assert_eq!(
            calls.lines().collect::<Vec<_>>(),
            [
                format!("-s|-i|{api}/process-definition|"),
                format!("{alice}{api}/process-definition|"),
                format!(
                    "{alice}{json}{api}/process-definition/key/approval/start|-d|\
                     {{\"variables\":{{\"subject\":{{\"value\":\"A desk\"}},\"initiator\":{{\"value\":\"the-director\"}}}},\
                     \"withVariablesInReturn\":true}}|"
                ),
                format!("{alice}{api}/process-instance/{instance}/variables|"),
                format!("{bob}{api}/task?processInstanceId={instance}|"),
                format!("{bob}-i|{json}{api}/task/{task}/claim|-d|{{\"userId\":\"alice\"}}|"),
                format!("{bob}-i|{json}{api}/task/{task}/claim|-d|{{\"userId\":\"bob\"}}|"),
                format!(
                    "{bob}-i|{json}{api}/task/{task}/complete|-d|{{\"variables\":{{\"approved\":{{\"value\":true}}}}}}|"
                ),
                format!("{bob}-i|-X|POST|{api}/deployment/create|"),
            ]
        );
    }

    #[test]
    fn it_says_that_it_is_for_trying_out_and_where_things_are() {
        let text = text(
            "127.0.0.1:4321".parse().unwrap(),
            "http://127.0.0.1:1234/engine-rest",
            "ey.a",
            "ey.b",
        );
        for told in [
            "for trying out only",
            "loopback",
            "http://127.0.0.1:4321",
            "http://127.0.0.1:1234/engine-rest",
        ] {
            assert!(text.contains(told), "{told}");
        }
        assert_eq!(
            (text.matches("ey.a").count(), text.matches("ey.b").count()),
            (1, 1)
        );
    }
}

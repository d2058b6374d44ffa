//! What `bpmgate demo` prints: what runs where, and commands to paste.

use std::net::SocketAddr;

use super::page::PATH;
use super::people::{ALICE, BOB};

/// The text for a gateway at this address, with the page or without, in front of an engine at this URL, with
/// a token for each of the two.
///
/// The tokens are in it because the reader is to paste them: it goes to the terminal of the person who
/// started the demo, never to a log. The commands need a POSIX shell, curl and sed; from the first
/// assignment on, the text is a shell script.
#[must_use]
pub fn text(gateway: SocketAddr, has_page: bool, engine: &str, alice: &str, bob: &str) -> String {
    let page = if has_page {
        format!("http://{gateway}{PATH}/")
    } else {
        "not built in; with npm installed, `make demo` builds it".to_owned()
    };
    let id = r#"sed -n 's/.*"id":"\([0-9a-f-]\{36\}\)".*/\1/p'"#;
    let (asks, decides) = (ALICE.name, BOB.name);
    let how = if has_page {
        format!(
            "Open the page, sign in as {asks} and, in another tab, as {decides}. Or paste into another terminal;\n\
             the tokens last an hour:"
        )
    } else {
        format!("{asks} and {decides} have a token for an hour. Paste into another terminal:")
    };
    format!(
        r#"bpmgate demo: for trying out only. Everything listens on loopback, nothing is kept when it ends (Ctrl-C),
and the tokens below are signed by a key that exists in this process alone.

  page     {page}
  gateway  http://{gateway}
  engine   {engine}

{how}

API=http://{gateway}/api
ALICE='Authorization: Bearer {alice}'
BOB='Authorization: Bearer {bob}'
JSON='Content-Type: application/json'

# Nothing without a token
curl -sw '\n' $API/process-definition

# {asks} sees which processes there are
curl -sw '\n' -H "$ALICE" $API/process-definition

# She starts one and claims to be the director
STARTED=$(curl -s -H "$ALICE" -H "$JSON" $API/process-definition/key/approval/start \
  -d '{{"variables":{{"subject":{{"value":"A desk"}},"initiator":{{"value":"the-director"}}}}}}')
echo "$STARTED"; INSTANCE=$(echo "$STARTED" | {id})

# The engine knows better: the initiator is alice
curl -sw '\n' -H "$ALICE" $API/process-instance/$INSTANCE/variables

# {decides} finds the task that waits
TASK=$(curl -s -H "$BOB" "$API/task?processInstanceId=$INSTANCE" | {id}); echo "$TASK"

# He cannot claim it for alice (403), only for himself (204), and decides (204)
curl -sw '\n%{{http_code}}\n' -H "$BOB" -H "$JSON" $API/task/$TASK/claim -d '{{"userId":"alice"}}'
curl -sw '\n%{{http_code}}\n' -H "$BOB" -H "$JSON" $API/task/$TASK/claim -d '{{"userId":"bob"}}'
curl -sw '\n%{{http_code}}\n' -H "$BOB" -H "$JSON" $API/task/$TASK/complete -d '{{"variables":{{"approved":{{"value":true}}}}}}'

# Deploying is running code on the engine: not for everybody with a token (403)
curl -sw '\n%{{http_code}}\n' -H "$BOB" -X POST $API/deployment/create
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
        let (_, commands) = text.split_once("\nAPI=").unwrap();
        let curl = r#"curl() { printf '%s|' "$@" >&2; echo >&2
            echo '[{"links":[],"definitionId":"approval:1:00000000-0000-0000-0000-000000000000","id":"11111111-2222-3333-4444-555555555555","name":"x"}]'; }"#;
        let mut shell = Command::new("sh")
            .arg("-eu")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        write!(shell.stdin.take().unwrap(), "{curl}\nAPI={commands}").unwrap();
        let output = shell.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    #[test]
    fn the_commands_run_in_a_shell_and_say_what_they_should() {
        let gateway = "127.0.0.1:4321".parse().unwrap();
        let calls = run(&text(
            gateway,
            true,
            "http://127.0.0.1:1234/engine-rest",
            "ey.alice",
            "ey.bob",
        ));
        let alice = "-H|Authorization: Bearer ey.alice|";
        let bob = "-H|Authorization: Bearer ey.bob|";
        let api = "http://127.0.0.1:4321/api";
        let id = "11111111-2222-3333-4444-555555555555";
        let json = "-H|Content-Type: application/json|";
        let (line, status) = (r"-sw|\n|", r"-sw|\n%{http_code}\n|");
        assert_eq!(
            calls.lines().collect::<Vec<_>>(),
            [
                format!("{line}{api}/process-definition|"),
                format!("{line}{alice}{api}/process-definition|"),
                format!(
                    "-s|{alice}{json}{api}/process-definition/key/approval/start|-d|\
                     {{\"variables\":{{\"subject\":{{\"value\":\"A desk\"}},\"initiator\":{{\"value\":\"the-director\"}}}}}}|"
                ),
                format!("{line}{alice}{api}/process-instance/{id}/variables|"),
                format!("-s|{bob}{api}/task?processInstanceId={id}|"),
                format!("{status}{bob}{json}{api}/task/{id}/claim|-d|{{\"userId\":\"alice\"}}|"),
                format!("{status}{bob}{json}{api}/task/{id}/claim|-d|{{\"userId\":\"bob\"}}|"),
                format!(
                    "{status}{bob}{json}{api}/task/{id}/complete|-d|{{\"variables\":{{\"approved\":{{\"value\":true}}}}}}|"
                ),
                format!("{status}{bob}-X|POST|{api}/deployment/create|"),
            ]
        );
    }

    #[test]
    fn it_says_that_it_is_for_trying_out_and_where_things_are() {
        let text = |has_page| {
            let gateway = "127.0.0.1:4321".parse().unwrap();
            let engine = "http://127.0.0.1:1234/engine-rest";
            text(gateway, has_page, engine, "ey.a", "ey.b")
        };
        for told in [
            "for trying out only",
            "loopback",
            "  page     http://127.0.0.1:4321/demo/\n  gateway  http://127.0.0.1:4321\n",
            "http://127.0.0.1:1234/engine-rest",
        ] {
            assert!(text(true).contains(told), "{told}");
        }
        assert!(text(false).contains("  page     not built in; "));
        assert!(!text(false).contains("/demo/"));
        assert_eq!(
            (
                text(true).matches("ey.a").count(),
                text(true).matches("ey.b").count()
            ),
            (1, 1)
        );
    }
}

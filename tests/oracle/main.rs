//! The splice against the engine's own reader: random bodies, spliced here, read by `Oracle.java` with
//! the engine's classes and its JSON library.
//!
//! Needs a JDK and Maven, for the jar with the engine's classes. `BODIES` says how many bodies, `SEED` which:
//! the same seed gives the same bodies. `make oracle` tries two millions.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::format_push_string,
    clippy::indexing_slicing,
    reason = "a test ends at what it did not expect"
)]

use std::io::{BufWriter, Read, Write};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use bpmgate::access::{Access, Builtin, ObjectTypes};
use bpmgate::identity::{Identity, Parts};
use bpmgate::initiator::{Plan, Settings, plan};
use bpmgate::operation::{Catalogue, Matched};
use http::Method;

#[path = "../engine/support/jar.rs"]
mod jar;

/// An operation, the engine's class of its body, and the catalogue's places with the map that is written.
struct Row {
    method: Method,
    path: &'static str,
    class: &'static str,
    places: &'static str,
    written: &'static str,
    /// Whether the profile `user` may send it, so that its rules are tried too.
    user: bool,
}

const fn row(
    path: &'static str,
    class: &'static str,
    places: &'static str,
    written: &'static str,
    user: bool,
) -> Row {
    Row {
        method: Method::POST,
        path,
        class,
        places,
        written,
        user,
    }
}

#[rustfmt::skip]
const ROWS: [Row; 19] = [
    row("/process-definition/key/k/start", "runtime.StartProcessInstanceDto", "variables,startInstructions[].variables", "variables", true),
    row("/process-definition/k/start", "runtime.StartProcessInstanceDto", "variables,startInstructions[].variables", "variables", true),
    row("/process-definition/key/k/submit-form", "runtime.StartProcessInstanceDto", "variables", "variables", true),
    row("/case-definition/key/k/create", "runtime.CreateCaseInstanceDto", "variables", "variables", false),
    row("/condition", "condition.EvaluationConditionDto", "variables", "variables", false),
    row("/message", "message.CorrelationMessageDto", "processVariables,processVariablesLocal,processVariablesToTriggeredScope", "", false),
    row("/signal", "SignalDto", "variables", "", false),
    row("/task/t/complete", "task.CompleteTaskDto", "variables", "", true),
    row("/task/t/submit-form", "task.CompleteTaskDto", "variables", "", true),
    row("/task/t/claim", "task.UserIdDto", "", "", true),
    row("/task", "task.TaskQueryDto", "", "", true),
    row("/process-instance/i/modification", "runtime.modification.ProcessInstanceModificationDto", "instructions[].variables", "", false),
    row("/modification/execute", "ModificationDto", "instructions[].variables", "", false),
    row("/migration/execute", "migration.MigrationExecutionDto", "migrationPlan.variables", "", false),
    row("/process-instance/i/variables", "PatchVariablesDto", "modifications", "", false),
    row("/process-instance/variables-async", "runtime.batch.SetVariablesAsyncDto", "variables", "", false),
    row("/process-instance/message-async", "runtime.batch.CorrelationMessageAsyncDto", "variables", "", false),
    row("/case-execution/c/complete", "runtime.CaseExecutionTriggerDto", "variables,deletions[].name", "", false),
    row("/external-task/e/failure", "externaltask.ExternalTaskFailureDto", "variables,localVariables", "", false),
];

#[test]
fn the_engine_reads_in_every_spliced_body_what_the_gateway_promises() {
    let number = |name, otherwise| {
        std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let (bodies, seed) = (number("BODIES", 100_000), number("SEED", 1));
    println!("{bodies} bodies of seed {seed}");
    let mut generator = Generator(seed * 2 + 1);

    let classes = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let unpacked = Command::new("jar")
        .arg("xf")
        .arg(jar::build(&jar::OPERATON))
        .arg("BOOT-INF/lib")
        .current_dir(&classes)
        .status()
        .expect("a JDK (`jar`) to unpack the engine with");
    assert!(unpacked.success(), "the engine's jar cannot be unpacked");
    let mut java = Command::new("java")
        .args(["-Xss8m", "-Xmx512m", "-XX:+UseSerialGC", "-cp"])
        .arg(classes.path().join("BOOT-INF/lib/*"))
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/oracle/Oracle.java"
        ))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a JDK (`java`) to read with as the engine does");
    let mut answers = java.stdout.take().unwrap();
    // Beside the writing, as a full pipe of answers would stop the reader of the bodies.
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        answers.read_to_string(&mut said).map(|_| said)
    });
    let mut out = BufWriter::with_capacity(1 << 20, java.stdin.take().unwrap());
    let identity = identity();
    let settings = Settings::default();
    let model = ["starter".into()];
    for _ in 0..bodies {
        let row = &ROWS[generator.below(ROWS.len())];
        let body = generator.body(row);
        let user = row.user && generator.one_in(2);
        let access = Access {
            profile: "user".into(),
            rule: None,
            object_types: ObjectTypes::default(),
            members: if user {
                Builtin::User
            } else {
                Builtin::Transparent
            }
            .members(),
        };
        let Matched::Operation(matched) = Catalogue::builtin().find(&row.method, row.path) else {
            unreachable!("{} is a row", row.path)
        };
        let Plan::Rewrite(rules) = plan(&settings, &matched) else {
            unreachable!("{} is read", row.path)
        };
        let (refused, result) =
            match rules.apply(&settings, &identity, &access, &model, None, &body) {
                Ok(result) => (String::new(), result.unwrap_or_else(|| body.clone())),
                Err(problem) => (problem.to_string(), Vec::new()),
            };
        for text in [row.class, row.places, row.written] {
            field(&mut out, text.as_bytes());
        }
        out.write_all(&[u8::from(user)]).unwrap();
        for bytes in [&body, refused.as_bytes(), &result] {
            field(&mut out, bytes);
        }
    }
    drop(out);
    let said = reader.join().expect("a reader that ends").unwrap();
    println!("{said}");
    assert!(java.wait().unwrap().success(), "see above");
    let counted = |what: &str| {
        let words = said.lines().flat_map(str::split_whitespace);
        let number = words.skip_while(|word| *word != what).nth(1);
        number
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap()
    };
    assert_eq!(counted("bodies"), bodies);
    // Bodies that are refused say nothing about those that are not.
    assert!(counted("understood") > bodies / 4, "{said}");
}

/// One field of a record: its length, its bytes.
fn field(out: &mut impl Write, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap();
    out.write_all(&length.to_be_bytes()).unwrap();
    out.write_all(bytes).unwrap();
}

fn identity() -> Identity {
    let mut ada = Parts::new("https://id.example", "user_ada", SystemTime::now());
    ada.email = Some("ada@example.org".into());
    ada.name = Some("Ada \"\\\u{ff}\u{2028}".into());
    Identity::new(ada)
}

/// Bodies by a grammar that knows what is protected, then broken in some places.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next()).unwrap() % end.max(1)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn body(&mut self, row: &Row) -> Vec<u8> {
        let mut text = String::new();
        self.blank(&mut text);
        self.document(row, &mut text);
        self.blank(&mut text);
        let mut body = text.into_bytes();
        if self.one_in(3) {
            for _ in 0..=self.below(3) {
                self.mutate(&mut body);
            }
        }
        if self.one_in(200) {
            body = self.encode(&body);
        }
        body
    }

    fn document(&mut self, row: &Row, out: &mut String) {
        let mut members: Vec<String> = Vec::new();
        for place in row.places.split(',').filter(|place| !place.is_empty()) {
            if !self.one_in(4) {
                let steps: Vec<&str> = place.split('.').collect();
                members.push(self.place(&steps));
            }
        }
        for _ in 0..self.below(4) {
            let member = self.beside(row);
            members.push(member);
        }
        if row.class.ends_with("UserIdDto") && !self.one_in(5) {
            let id = self.pick(&["\"user_ada\"", "\"user\\u005fada\"", "\"mallory\"", "null"]);
            let name = self.name("userId");
            members.push(format!("{name}:{id}"));
        }
        if row.class.ends_with("PatchVariablesDto") && self.one_in(2) {
            let names: Vec<String> = (0..self.below(3)).map(|_| self.variable()).collect();
            members.push(format!("\"deletions\":[{}]", names.join(",")));
        }
        if row.class.ends_with("CaseExecutionTriggerDto") && self.one_in(2) {
            let names: Vec<String> = (0..self.below(3))
                .map(|_| format!("{{\"name\":{}}}", self.variable()))
                .collect();
            members.push(format!("\"deletions\":[{}]", names.join(",")));
        }
        self.shuffle(&mut members);
        self.object(&members, out);
    }

    /// A member that leads to a map of variables.
    fn place(&mut self, steps: &[&str]) -> String {
        let Some((first, rest)) = steps.split_first() else {
            return String::new();
        };
        let each = first.ends_with("[]");
        let name = self.name(first.trim_end_matches("[]"));
        let mut value = String::new();
        if self.one_in(12) {
            value = self.value(2);
        } else if each {
            let elements: Vec<String> = (0..self.below(4))
                .map(|_| {
                    let mut members = vec![
                        self.pick(&[
                            r#""type":"startBeforeActivity""#,
                            r#""type":"startAfterActivity","activityId":"a""#,
                            r#""type":"startTransition""#,
                            r#""type":"cancel""#,
                        ])
                        .to_owned(),
                    ];
                    if !self.one_in(4) {
                        members.push(self.place(rest));
                    }
                    self.shuffle(&mut members);
                    let mut element = String::new();
                    if self.one_in(40) {
                        // How Jackson also takes a polymorphic value.
                        self.object(&members, &mut element);
                        element = format!("[\"startBeforeActivity\",{element}]");
                    } else {
                        self.object(&members, &mut element);
                    }
                    element
                })
                .collect();
            value = format!("[{}]", elements.join(","));
        } else if rest.is_empty() {
            let members: Vec<String> = (0..self.below(6)).map(|_| self.typed_member()).collect();
            self.object(&members, &mut value);
        } else {
            let member = self.place(rest);
            self.object(&[member], &mut value);
        }
        let mut blank = String::new();
        self.blank(&mut blank);
        format!("{name}{blank}:{blank}{value}")
    }

    fn typed_member(&mut self) -> String {
        let name = self.variable();
        let value = match self.below(12) {
            0 => self.value(2),
            1 => "{}".to_owned(),
            2 => "null".to_owned(),
            3 => {
                let kind = self.pick(&[
                    "Object",
                    "object",
                    "OBJECT",
                    "\\u004fbject",
                    " Object",
                    "Json",
                    "File",
                ]);
                let info = self.pick(&[
                    "",
                    r#","valueInfo":null"#,
                    r#","valueInfo":{}"#,
                    r#","valueInfo":{"serializationDataFormat":"application/x-java-serialized-object","objectTypeName":"x"}"#,
                    r#","valueInfo":{"serializationDataFormat":"application/json"}"#,
                    r#","valueInfo":{"serializationDataFormat":"application/json","serializationDataFormat":"application/x-java-serialized-object"}"#,
                    r#","valueInfo":{"serializationDataFormat":"application/json"},"valueInfo":{}"#,
                    r#","valueInfo":{"serializationDataFormat":1}"#,
                    r#","valueInfo":{"\u0073erializationDataFormat":"application\/x-java-serialized-object"}"#,
                    r#","type":"Object""#,
                ]);
                format!(r#"{{"value":"rO0A","type":"{kind}"{info}}}"#)
            }
            _ => {
                let value = self.value(3);
                let rest = self.pick(&[
                    "",
                    r#","type":"String""#,
                    r#","local":true"#,
                    r#","type":null"#,
                    r#","value":"again""#,
                    r#","other":{"initiator":1,"initiator":2}"#,
                ]);
                format!(r#"{{"value":{value}{rest}}}"#)
            }
        };
        format!("{name}:{value}")
    }

    fn beside(&mut self, row: &Row) -> String {
        let guarded = [
            "startInstructions",
            "skipCustomListeners",
            "skipIoMappings",
            "assigneeExpression",
            "orQueries",
            "userId",
        ];
        if row.user && self.one_in(4) {
            let name = self.pick(&guarded);
            let name = self.name(name);
            let value = self.pick(&[
                "true",
                "null",
                r#"[{"type":"startAfterActivity","activityId":"t"}]"#,
                r#"[{"assigneeExpression":"${1}"}]"#,
                r#"[{"owner\u0045xpression":"${1}"}]"#,
                "\"x\"",
                "[]",
            ]);
            return format!("{name}:{value}");
        }
        let name = self.pick(&[
            "businessKey",
            "x",
            "variable",
            "Variables",
            "variables ",
            "messageName",
            "name",
            "value",
            "type",
            "",
        ]);
        let name = self.name(name);
        let value = self.value(4);
        format!("{name}:{value}")
    }

    fn variable(&mut self) -> String {
        let name = self.pick(&[
            "initiator",
            "initiatorEmail",
            "initiatorName",
            "initiator",
            "starter",
            "Initiator",
            "initiator ",
            "initiato",
            "a",
            "b",
            "c",
            "",
            "initiator\u{200b}",
            "\u{131}nitiator",
            "value",
            "variables",
        ]);
        self.name(name)
    }

    /// A name in quotes, some of its characters as escapes.
    fn name(&mut self, name: &str) -> String {
        let escapes = self.one_in(5);
        let mut text = String::from("\"");
        for sign in name.chars() {
            if escapes && self.one_in(3) {
                let mut units = [0; 2];
                for unit in sign.encode_utf16(&mut units) {
                    text += &if self.one_in(2) {
                        format!("\\u{unit:04x}")
                    } else {
                        format!("\\u{unit:04X}")
                    };
                }
            } else {
                text.push(sign);
            }
        }
        text + "\""
    }

    fn value(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 14 } else { 18 }) {
            0..=13 => self
                .pick(&[
                    "null",
                    "true",
                    "false",
                    "0",
                    "-0",
                    "1",
                    "-1.5e-3",
                    "1E400",
                    "123456789012345678901234567890",
                    "0.1000000000000000055511151231257827",
                    r#""mallory""#,
                    r#""\u0000\ud83e\uddee\"\\\/""#,
                    "\"\u{7f}\u{2028}\u{10ffff}\u{feff}\"",
                    r#""}],\"initiator\":{""#,
                ])
                .to_owned(),
            14 | 15 => {
                let elements: Vec<String> =
                    (0..self.below(4)).map(|_| self.value(depth - 1)).collect();
                format!("[{}]", elements.join(","))
            }
            _ => {
                let members: Vec<String> = (0..self.below(4))
                    .map(|_| {
                        let name = self.variable();
                        let value = self.value(depth - 1);
                        format!("{name}:{value}")
                    })
                    .collect();
                let mut object = String::new();
                self.object(&members, &mut object);
                object
            }
        }
    }

    fn object(&mut self, members: &[String], out: &mut String) {
        out.push('{');
        for (index, member) in members.iter().enumerate() {
            self.blank(out);
            out.push_str(member);
            self.blank(out);
            if index + 1 < members.len() {
                out.push(',');
            }
        }
        out.push('}');
    }

    fn blank(&mut self, out: &mut String) {
        if self.one_in(6) {
            out.push_str(self.pick(&[" ", "\n", "\r\n", "\t", "  \n "]));
        }
    }

    fn shuffle(&mut self, members: &mut [String]) {
        for index in (1..members.len()).rev() {
            members.swap(index, self.below(index + 1));
        }
    }

    fn mutate(&mut self, body: &mut Vec<u8>) {
        let at = self.below(body.len() + 1);
        let end = (at + 1 + self.below(12)).min(body.len());
        match self.below(6) {
            0 => drop(body.drain(at..end)),
            1 => {
                let piece: Vec<u8> = self.pick::<&[u8]>(&PIECES).to_vec();
                drop(body.splice(at..at, piece));
            }
            2 if at < body.len() => body[at] ^= 1 << self.below(8),
            3 => {
                let end = (at + 1 + self.below(80)).min(body.len());
                let copy = body[at..end].to_vec();
                drop(body.splice(at..at, copy));
            }
            4 => {
                // A piece of it somewhere else.
                let copy = body[at..end].to_vec();
                let to = self.below(body.len() + 1);
                drop(body.splice(to..to, copy));
            }
            _ => {
                // Between two members, where it is most likely to stay JSON.
                if let Some(comma) = body.iter().skip(at).position(|byte| *byte == b',') {
                    let piece: Vec<u8> = self.pick::<&[u8]>(&MEMBERS).to_vec();
                    let comma = at + comma;
                    drop(body.splice(comma..comma, piece));
                }
            }
        }
    }

    fn encode(&mut self, body: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(body).into_owned();
        match self.below(6) {
            0 => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            1 => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            2 => text
                .chars()
                .flat_map(|sign| u32::from(sign).to_le_bytes())
                .collect(),
            3 => text
                .chars()
                .flat_map(|sign| u32::from(sign).to_be_bytes())
                .collect(),
            4 => [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            _ => text
                .bytes()
                .flat_map(|byte| {
                    if byte == b'i' {
                        vec![0xc1, 0xa9]
                    } else {
                        vec![byte]
                    }
                })
                .collect(),
        }
    }
}

const PIECES: [&[u8]; 30] = [
    b"\xef\xbb\xbf",
    b"\xc1\xa9",
    b"\\ud800",
    b"\\udc00",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"/*",
    b"*/",
    b"//",
    b"#",
    b"NaN",
    b"Infinity",
    b"\0",
    b"\x0c",
    b"\x1e",
    b"\xc2\xa0",
    b"'",
    b"\"",
    b"\\",
    b"\\u0022",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"+",
    b"0",
    b".5",
    b"\xe2\x80\xa8",
];

const MEMBERS: [&[u8]; 8] = [
    br#","initiator":{"value":"mallory"}"#,
    br#","variables":{"initiator":{"value":"mallory"}}"#,
    br#","v\u0061riables":{"initiator":{"value":"mallory"}}"#,
    br#","\u0069nitiator":{"value":"mallory"}"#,
    br#","startInstructions":[{"type":"startBeforeActivity","variables":{"initiator":{"value":"mallory"}}}]"#,
    br#","processVariables":{"initiator":{"value":"mallory"}}"#,
    br#","x":[[[[[[[[{"initiator":1}]]]]]]]]"#,
    br#","modifications":{"initiatorName":null}"#,
];

//! Texts as JSON strings (RFC 8259 §7), those that need no escape without a look at each character.

/// Appends `value` as a JSON string.
pub(crate) fn push(json: &mut String, value: &str) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    // Looked at to the end, as that is done for many bytes at once.
    if value.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        push_plain(json, value);
    } else {
        json.push_str(&serde_json::Value::from(value).to_string());
    }
}

/// The same of a text that has nothing to escape.
pub(crate) fn push_plain(json: &mut String, value: &str) {
    json.push('"');
    json.push_str(value);
    json.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_serde_json_writes(value in prop_oneof![
            ".{0,40}",
            "[ -~]{0,40}",
            "[\\x00-\\x22\\x5b-\\x5d\\x7e-\\x81]{0,40}",
        ]) {
            let mut json = String::from(",");
            super::push(&mut json, &value);
            prop_assert_eq!(json, format!(",{}", serde_json::Value::from(value)));
        }
    }
}

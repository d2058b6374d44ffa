//! Reads from a BPMN document which variables its start events name for the initiator.

use quick_xml::events::Event;
use quick_xml::reader::Reader;

/// The initiator variables of the start events of the process `key`; of every process where there is no key,
/// or no process of just that id (a database may compare keys without case). `None` if the document cannot
/// be read.
///
/// The engine looks at the start events that are children of the process (source: `parseStartEvents`), and
/// at the attribute of its own namespace, which is bound to any prefix; so any prefix counts here.
pub(super) fn initiators(xml: &str, key: Option<&str>) -> Option<Vec<Box<str>>> {
    let mut reader = Reader::from_str(xml);
    let mut of_all: Vec<Box<str>> = Vec::new();
    // Once the process with the key has come.
    let mut of_key: Option<Vec<Box<str>>> = None;
    let mut depth = 0_usize;
    // The depth of the children of a process, and whether it has the key.
    let mut inside: Option<(usize, bool)> = None;
    loop {
        let event = reader.read_event().ok()?;
        let (element, opens) = match &event {
            Event::Start(element) => (element, true),
            Event::Empty(element) => (element, false),
            Event::End(_) => {
                depth = depth.checked_sub(1)?;
                if inside.is_some_and(|(children, _)| depth < children) {
                    inside = None;
                }
                continue;
            }
            Event::Eof => return (depth == 0).then_some(of_key.unwrap_or(of_all)),
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_)
            | Event::GeneralRef(_) => continue,
        };
        let local = element.local_name();
        if let Some((children, has_key)) = inside
            && children == depth
            && local.as_ref() == "startEvent"
        {
            for attribute in element.attributes() {
                let attribute = attribute.ok()?;
                if attribute.key.local_name().as_ref() == "initiator"
                    && attribute.key.prefix().is_some()
                {
                    let name = attribute
                        .normalized_value(quick_xml::XmlVersion::Implicit1_0)
                        .ok()?;
                    // The engine shows a document that is no UTF-8 with its letters lost.
                    if name.contains('\u{fffd}') {
                        return None;
                    }
                    let names = of_key.as_mut().filter(|_| has_key);
                    for names in names.into_iter().chain([&mut of_all]) {
                        if !name.is_empty() && !names.iter().any(|known| **known == *name) {
                            names.push(name.as_ref().into());
                        }
                    }
                }
            }
        }
        if local.as_ref() == "process" && inside.is_none() {
            let id = element.try_get_attribute("id").ok()?;
            let id = match &id {
                Some(id) => Some(
                    id.normalized_value(quick_xml::XmlVersion::Implicit1_0)
                        .ok()?,
                ),
                None => None,
            };
            let has_key = key.is_some() && id.as_deref() == key;
            if has_key {
                of_key.get_or_insert_default();
            }
            if opens {
                inside = Some((depth + 1, has_key));
            }
        }
        if opens {
            depth += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, key: Option<&str>) -> Option<Vec<String>> {
        let xml = format!(
            "<?xml version=\"1.0\"?><b:definitions xmlns:b=\"x\" xmlns:camunda=\"y\" xmlns:q=\"z\">{body}</b:definitions>"
        );
        initiators(&xml, key).map(|names| names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn start_events_of_the_process_name_their_variables() {
        for (body, key, want) in [
            (
                "<b:process id=\"a\"><b:startEvent camunda:initiator=\"starter\"/></b:process>",
                Some("a"),
                vec!["starter"],
            ),
            (
                "<b:process id=\"a\"><b:startEvent q:initiator=\"starter\"><b:x/></b:startEvent></b:process>",
                Some("a"),
                vec!["starter"],
            ),
            (
                "<b:process id='a'><b:startEvent camunda:initiator='a&amp;b'/></b:process>",
                Some("a"),
                vec!["a&b"],
            ),
            (
                "<b:process id=\"a\"><b:startEvent initiator=\"starter\"/></b:process>",
                Some("a"),
                vec![],
            ),
            (
                "<b:process id=\"a\"><b:startEvent camunda:initiator=\"\"/></b:process>",
                Some("a"),
                vec![],
            ),
            (
                "<b:process id=\"a\"><b:task camunda:initiator=\"x\"/></b:process>",
                Some("a"),
                vec![],
            ),
            (
                "<b:process id=\"a\"><b:subProcess><b:startEvent camunda:initiator=\"x\"/></b:subProcess></b:process>",
                Some("a"),
                vec![],
            ),
            (
                "<b:process id=\"a\"><b:startEvent camunda:initiator=\"x\"/></b:process><b:process id=\"c\"><b:startEvent camunda:initiator=\"y\"/></b:process>",
                Some("c"),
                vec!["y"],
            ),
            (
                "<b:process id=\"a\"><b:startEvent camunda:initiator=\"x\"/></b:process><b:process id=\"c\"><b:startEvent camunda:initiator=\"y\"/></b:process>",
                None,
                vec!["x", "y"],
            ),
            (
                "<b:process id=\"a\"><b:startEvent camunda:initiator=\"x\"/></b:process><b:process id=\"c\"/>",
                Some("c"),
                vec![],
            ),
            (
                "<b:process id=\"a\"><b:startEvent camunda:initiator=\"x\"/></b:process>",
                Some("A"),
                vec!["x"],
            ),
            (
                "<b:process id=\"a\"><b:startEvent camunda:initiator=\"x\"/><b:startEvent camunda:initiator=\"y\"/><b:startEvent camunda:initiator=\"x\"/></b:process>",
                Some("a"),
                vec!["x", "y"],
            ),
            (
                "<!-- <b:process id=\"a\"> --><b:process id=\"a\"><![CDATA[<b:startEvent camunda:initiator=\"x\"/>]]></b:process>",
                Some("a"),
                vec![],
            ),
        ] {
            assert_eq!(
                read(body, key),
                Some(want.into_iter().map(str::to_owned).collect()),
                "{body}"
            );
        }
    }

    #[test]
    fn what_is_no_document_is_not_read() {
        for body in [
            "<b:process id=\"a\">",
            "</b:process>",
            "<b:process id=\"a\"><b:startEvent a=1/></b:process>",
            "<b:process id=\"a\"><b:startEvent camunda:initiator=\"&nope;\"/></b:process>",
        ] {
            assert_eq!(read(body, Some("a")), None, "{body}");
        }
    }
}

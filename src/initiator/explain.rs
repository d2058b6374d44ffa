//! What the rules of an operation come to, for people.

use super::body::Place;
use super::{Rules, Treatment};
use crate::operation::{BodyPath, Step};

/// What happens to protected names at one place of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// They are removed, and the caller's are written.
    Written,
    /// They are removed.
    Removed,
    /// The request is refused if one is there.
    Refused,
}

impl Rules {
    /// What happens to protected names, place by place: `startInstructions[].variables` is one.
    #[must_use]
    pub fn protections(&self) -> Vec<(String, Protection)> {
        if self.treatment == Treatment::Leave {
            return Vec::new();
        }
        let places = self.operation.body_paths.iter();
        places
            .filter_map(|path| match path {
                BodyPath::Map(steps) => {
                    let protection = match (self.treatment, steps.as_slice()) {
                        (Treatment::Write(member), [only]) if only.member == member => {
                            Protection::Written
                        }
                        _ if Place::of(path).edits_by_name(*self) => Protection::Refused,
                        _ => Protection::Removed,
                    };
                    Some((text(steps), protection))
                }
                BodyPath::Names(steps) => Some((text(steps) + "[]", Protection::Refused)),
                BodyPath::NamedObjects(steps) => {
                    Some((text(steps) + "[].name", Protection::Refused))
                }
                // The name is in the path, and has been looked at.
                BodyPath::Segment => None,
            })
            .collect()
    }
}

/// The place as the catalogue's table writes it.
fn text(steps: &[Step]) -> String {
    let step = |step: &Step| [step.member, if step.each { "[]" } else { "" }].concat();
    steps.iter().map(step).collect::<Vec<_>>().join(".")
}

//! The one pass over a body: goes down to the places of the catalogue and gathers the edits.
//!
//! It recurses as deep as the catalogue's places are, never as deep as the body is.

use super::{Rules, Treatment};
use crate::access::Access;
use crate::audit::cut;
use crate::identity::Identity;
use crate::operation::{BodyPath, Guarded, Step};
use crate::problem::Problem;
use crate::request_info::Findings;
use crate::splice::{Fate, Kind, Reader, SpliceError};

/// All that a pass needs to know.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) rules: Rules,
    pub(super) is_protected: &'a dyn Fn(&str) -> bool,
    pub(super) identity: &'a Identity,
    pub(super) access: &'a Access,
    /// The members to write, as JSON; empty where nothing is written.
    pub(super) written: &'a str,
    /// Where what the audit log wants to know of the body is noted.
    pub(super) findings: Option<&'a Findings>,
}

/// A place of the catalogue, and how many steps of the way to it have been gone.
#[derive(Clone, Copy)]
pub(super) struct Place {
    path: &'static BodyPath,
    gone: usize,
}

/// Why a pass ended early.
enum Refusal {
    Splice(SpliceError),
    Problem(Problem),
}

impl Walk<'_> {
    pub(super) fn run(&self, body: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
        let operation = self.rules.operation;
        let mut reader = Reader::new(body)?;
        for guarded in &operation.guarded {
            if let (Guarded::Suffix(ending), false) = (guarded, self.access.members.expressions) {
                reader.refuse_names_ending(ending);
            }
        }
        let read = if operation.body_paths.contains(&BodyPath::Segment) {
            expect(&mut reader, || "the body".to_owned(), Kind::Object)
                .and_then(|()| self.typed_value(&mut reader))
        } else {
            self.top_level(&mut reader)
        };
        match read {
            Ok(()) => Ok(reader.finish()?),
            Err(Refusal::Problem(problem)) => Err(problem),
            Err(Refusal::Splice(SpliceError::NameRefused { name, .. })) => Err(self.denied(&name)),
            Err(Refusal::Splice(error)) => Err(error.into()),
        }
    }

    fn top_level(&self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let operation = self.rules.operation;
        let places: Vec<Place> = operation.body_paths.iter().map(Place::of).collect();
        let mut users_missing = if self.access.members.others {
            Vec::new()
        } else {
            operation.user_fields.clone()
        };
        let mut to_write = match self.rules.treatment {
            Treatment::Write(member) => Some(member),
            Treatment::Protect | Treatment::Leave => None,
        };
        expect(reader, || "the body".to_owned(), Kind::Object)?;
        let top = reader.object(|reader, name| {
            if !self.access.members.skips
                && operation
                    .guarded
                    .iter()
                    .any(|guarded| matches!(guarded, Guarded::Member(member) if *member == name))
            {
                return Err(Refusal::Problem(self.denied(name)));
            }
            if !self.access.members.others && operation.user_fields.contains(&name) {
                if reader.kind()? != Kind::String || reader.str()? != self.identity.id() {
                    return Err(Refusal::Problem(self.denied_user(name)));
                }
                users_missing.retain(|field| *field != name);
                return Ok(Fate::Keep);
            }
            if to_write == Some(name) {
                to_write = None;
            }
            if let Some(note) = self.notes(name)
                && reader.kind()? == Kind::String
            {
                note(cut(&reader.str()?));
                return Ok(Fate::Keep);
            }
            self.member(reader, name, &places)?;
            Ok(Fate::Keep)
        })?;
        if let Some(field) = users_missing.first() {
            return Err(Refusal::Problem(self.denied_user(field)));
        }
        if let Some(member) = to_write {
            reader.append(top, &format!(r#""{member}":{{{}}}"#, self.written));
        }
        Ok(())
    }

    /// How a member of the top level is noted for the audit log, if it is.
    fn notes(&self, name: &str) -> Option<impl FnOnce(String)> {
        let findings = self.findings?;
        let note = match (name, self.rules.operation.id) {
            ("businessKey", _) => Findings::note_business_key,
            ("messageName", "deliverMessage") | ("name", "throwSignal") => Findings::note_event,
            _ => return None,
        };
        Some(move |text| note(findings, text))
    }

    /// Reads the value of a member of an object that lies on the way to `places`.
    fn member(&self, reader: &mut Reader<'_>, name: &str, places: &[Place]) -> Result<(), Refusal> {
        let below: Vec<Place> = places
            .iter()
            .filter_map(|place| place.below(name))
            .collect();
        let Some(first) = below.first() else {
            reader.skip()?;
            return Ok(());
        };
        if reader.kind()? == Kind::Null {
            let null = reader.skip()?;
            if self.is_written(first) {
                reader.replace(null, format!("{{{}}}", self.written));
            }
            return Ok(());
        }
        if first.each() {
            expect(reader, || first.member(), Kind::Array)?;
            return reader.array(|reader| self.place(reader, &below));
        }
        self.place(reader, &below)
    }

    /// Reads a value that is one of `places`, or an object on the way to them.
    fn place(&self, reader: &mut Reader<'_>, places: &[Place]) -> Result<(), Refusal> {
        match places {
            [place] if place.is_reached() => match place.path {
                BodyPath::Map(_) => self.map(reader, *place),
                BodyPath::Names(_) => self.names(reader, *place),
                BodyPath::NamedObjects(_) => self.named_objects(reader, *place),
                BodyPath::Segment => Err(Refusal::Problem(Problem::Internal)),
            },
            [first, ..] if places.iter().all(|place| !place.is_reached()) => {
                expect(reader, || first.label(), Kind::Object)?;
                reader.object(|reader, name| {
                    self.member(reader, name, places)?;
                    Ok::<_, Refusal>(Fate::Keep)
                })?;
                Ok(())
            }
            // One place inside another: no row has that (see the tests), and nothing may pass by it.
            _ => Err(Refusal::Problem(Problem::Internal)),
        }
    }

    /// Reads a map of variables: protected names go, or are refused; ours are written.
    fn map(&self, reader: &mut Reader<'_>, place: Place) -> Result<(), Refusal> {
        expect(reader, || place.label(), Kind::Object)?;
        let map = reader.object(|reader, name| {
            if self.protects(name) {
                if place.edits_by_name(self.rules) {
                    return Err(Refusal::Problem(Problem::ProtectedVariable(name.into())));
                }
                reader.skip()?;
                return Ok(Fate::Remove);
            }
            if reader.kind()? == Kind::Object {
                self.typed_value(reader)?;
            } else {
                reader.skip()?;
            }
            Ok(Fate::Keep)
        })?;
        if self.is_written(&place) {
            reader.append(map, self.written);
        }
        Ok(())
    }

    /// Reads a list of variables' names.
    fn names(&self, reader: &mut Reader<'_>, place: Place) -> Result<(), Refusal> {
        expect(reader, || place.label(), Kind::Array)?;
        reader.array(|reader| {
            expect(reader, || place.element(), Kind::String)?;
            self.refuse_protected(&reader.str()?)
        })
    }

    /// Reads a list of objects that have variables' names as their `name`.
    fn named_objects(&self, reader: &mut Reader<'_>, place: Place) -> Result<(), Refusal> {
        expect(reader, || place.label(), Kind::Array)?;
        reader.array(|reader| {
            expect(reader, || place.element(), Kind::Object)?;
            reader.object(|reader, member| {
                if member == "name" && reader.kind()? != Kind::Null {
                    expect(reader, || format!("{}.name", place.element()), Kind::String)?;
                    self.refuse_protected(&reader.str()?)?;
                } else {
                    reader.skip()?;
                }
                Ok::<_, Refusal>(Fate::Keep)
            })?;
            Ok(())
        })
    }

    /// Reads `{"value":…,"type":…,"valueInfo":{…}}`, each member once; an `Object` names the Java class that the
    /// engine makes of the value, so for those who may not run code it must be a known one.
    fn typed_value(&self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        if reader.skip_typed_string() {
            return Ok(());
        }
        let (mut is_object, mut type_name, mut format) = (false, None, None);
        reader.record(["type", "value", "valueInfo"], |reader, member| {
            match member {
                // The case of a type's name counts only behind its first letter (engine fact).
                "type" if reader.kind()? == Kind::String => {
                    is_object = !reader.skip_str("String")
                        && matches!(&*reader.str()?, "Object" | "object");
                }
                "valueInfo"
                    if !self.access.members.expressions && reader.kind()? == Kind::Object =>
                {
                    let known = ["objectTypeName", "serializationDataFormat"];
                    reader.record(known, |reader, member| {
                        let text = match member {
                            "objectTypeName" => &mut type_name,
                            "serializationDataFormat" => &mut format,
                            _ => {
                                reader.skip()?;
                                return Ok(());
                            }
                        };
                        if reader.kind()? == Kind::String {
                            *text = Some(reader.str()?.into_owned());
                        } else {
                            reader.skip()?;
                        }
                        Ok::<_, Refusal>(())
                    })?;
                }
                _ => {
                    reader.skip()?;
                }
            }
            Ok::<_, Refusal>(())
        })?;
        let object_types = &self.access.object_types;
        let may = self.access.members.expressions
            || object_types.allow(type_name.as_deref(), format.as_deref());
        if is_object && !may {
            return Err(Refusal::Problem(self.denied("type: Object")));
        }
        Ok(())
    }

    fn protects(&self, name: &str) -> bool {
        self.rules.treatment != Treatment::Leave && (self.is_protected)(name)
    }

    fn refuse_protected(&self, name: &str) -> Result<(), Refusal> {
        if self.protects(name) {
            return Err(Refusal::Problem(Problem::ProtectedVariable(name.into())));
        }
        Ok(())
    }

    fn is_written(&self, place: &Place) -> bool {
        let Treatment::Write(member) = self.rules.treatment else {
            return false;
        };
        matches!(place.path, BodyPath::Map(steps) if matches!(steps.as_slice(), [only] if only.member == member))
    }

    fn denied_user(&self, member: &str) -> Problem {
        Problem::denied_user(self.rules.operation.id, &self.access.profile, member)
    }

    fn denied(&self, member: &str) -> Problem {
        Problem::denied_member(self.rules.operation.id, &self.access.profile, member)
    }
}

impl Place {
    pub(super) fn of(path: &'static BodyPath) -> Self {
        Self { path, gone: 0 }
    }

    fn steps(&self) -> &'static [Step] {
        match self.path {
            BodyPath::Map(steps) | BodyPath::Names(steps) | BodyPath::NamedObjects(steps) => steps,
            BodyPath::Segment => &[],
        }
    }

    /// This place seen from the value of the member `name`, if that is on the way to it.
    fn below(&self, name: &str) -> Option<Self> {
        let step = self.steps().get(self.gone)?;
        (step.member == name).then_some(Self {
            path: self.path,
            gone: self.gone + 1,
        })
    }

    fn is_reached(&self) -> bool {
        self.gone == self.steps().len()
    }

    /// Whether the last step led to an array, each element of which is meant.
    fn each(&self) -> bool {
        self.steps()
            .get(self.gone.wrapping_sub(1))
            .is_some_and(|step| step.each)
    }

    /// Whether a map edits variables by name, so that leaving one out would not do what was asked.
    pub(super) fn edits_by_name(&self, rules: Rules) -> bool {
        rules.operation.id == VARIABLES_ASYNC
            || self
                .steps()
                .last()
                .is_some_and(|step| step.member == "modifications")
    }

    /// The value that was reached, for messages.
    fn label(&self) -> String {
        if self.each() {
            self.element()
        } else {
            self.member()
        }
    }

    fn element(&self) -> String {
        format!("an element of {}", self.member())
    }

    /// The way gone so far: `` `startInstructions[].variables` ``.
    fn member(&self) -> String {
        let steps: Vec<String> = self
            .steps()
            .iter()
            .take(self.gone)
            .map(|step| format!("{}{}", step.member, if step.each { "[]" } else { "" }))
            .collect();
        let way = steps.join(".");
        format!("`{}`", way.strip_suffix("[]").unwrap_or(&way))
    }
}

impl From<SpliceError> for Refusal {
    fn from(error: SpliceError) -> Self {
        Self::Splice(error)
    }
}

/// Refuses a value of another kind than the engine takes at a place.
fn expect(
    reader: &mut Reader<'_>,
    place: impl FnOnce() -> String,
    wanted: Kind,
) -> Result<(), Refusal> {
    let found = reader.kind()?;
    if found == wanted {
        return Ok(());
    }
    Err(Refusal::Splice(SpliceError::WrongKind {
        place: place().into_boxed_str(),
        found,
        wanted,
        at: reader.position(),
    }))
}

/// `POST /process-instance/variables-async`: sets variables of many instances by name.
const VARIABLES_ASYNC: &str = "setVariablesAsyncOperation";

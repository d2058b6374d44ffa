//! Which Java classes an `Object` variable may name.

use std::sync::Arc;

/// The classes that variables of type `Object` may name, for those who may not run code.
///
/// The engine makes an instance of the class that the variable names, and its JSON or XML calls whatever setters
/// and, when it is read, getters that class has; with a class of the engine's own path that is running code. So
/// only names that are known to be harmless pass. Serialized Java objects never do.
#[derive(Debug, Clone)]
pub struct ObjectTypes(Arc<[String]>);

impl ObjectTypes {
    /// `names` beside values and collections of the language, which nothing comes of: whole class names, or
    /// `com.example.orders.*` for a package and what is below it.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        let harmless = HARMLESS.map(str::to_owned).into_iter();
        Self(harmless.chain(names.iter().cloned()).collect())
    }

    /// Whether a variable may have this `objectTypeName` in this `serializationDataFormat`.
    ///
    /// # Examples
    /// ```
    /// use bpmgate::access::ObjectTypes;
    /// let types = ObjectTypes::new(&["com.example.*".into()]);
    /// let json = Some("application/json");
    /// assert!(types.allow(Some("java.util.ArrayList<com.example.Order>"), json));
    /// assert!(!types.allow(Some("java.util.ArrayList<org.h2.Driver>"), json));
    /// assert!(!types.allow(Some("com.example.Order"), None));
    /// ```
    #[must_use]
    pub fn allow(&self, type_name: Option<&str>, format: Option<&str>) -> bool {
        let is_text = format.is_some_and(|format| {
            let format = format.trim();
            !format.is_empty() && !format.eq_ignore_ascii_case(JAVA)
        });
        let mut classes = type_name
            .unwrap_or_default()
            .split(['<', '>', ',', ' '])
            .filter(|class| !class.is_empty())
            .peekable();
        is_text && classes.peek().is_some() && classes.all(|class| self.knows(class))
    }

    /// Whether this is a whole class name, or a package with `.*` behind it.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        let path = name.strip_suffix(".*").unwrap_or(name);
        let is_part = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|sign| sign.is_alphanumeric() || "_$".contains(sign))
        };
        path.contains('.') && path.split('.').all(is_part)
    }

    fn knows(&self, class: &str) -> bool {
        self.0.iter().any(|known| match known.strip_suffix('*') {
            Some(package) => class.starts_with(package),
            None => class == known,
        })
    }
}

impl Default for ObjectTypes {
    fn default() -> Self {
        Self::new(&[])
    }
}

const HARMLESS: [&str; 18] = [
    "java.lang.Boolean",
    "java.lang.Byte",
    "java.lang.Double",
    "java.lang.Float",
    "java.lang.Integer",
    "java.lang.Long",
    "java.lang.Short",
    "java.lang.String",
    "java.math.BigDecimal",
    "java.math.BigInteger",
    "java.util.ArrayList",
    "java.util.Date",
    "java.util.HashMap",
    "java.util.HashSet",
    "java.util.LinkedHashMap",
    "java.util.LinkedHashSet",
    "java.util.TreeMap",
    "java.util.UUID",
];

/// The format of values that Java deserializes; also the engine's default for the type `Object`.
const JAVA: &str = "application/x-java-serialized-object";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_classes_or_of_packages() {
        for (name, want) in [
            ("com.example.Order", true),
            ("com.example.Order$Line", true),
            ("com.example.*", true),
            ("com.*", false),
            ("*", false),
            ("com.example*", false),
            ("com.example.", false),
            ("Order", false),
            ("", false),
            ("com.example.A, B.c", false),
        ] {
            assert_eq!(ObjectTypes::is_name(name), want, "{name}");
        }
    }

    #[test]
    fn only_known_classes_in_a_text_format() {
        let types = ObjectTypes::new(&["com.example.*".to_owned()]);
        for (name, format, want) in [
            ("java.util.ArrayList", "application/json", true),
            ("java.util.ArrayList", "application/xml", true),
            (
                "java.util.HashMap<java.lang.String,java.util.ArrayList<com.example.a.B>>",
                "application/json",
                true,
            ),
            (
                "java.util.HashMap<java.lang.String, com.example.B>",
                "application/json",
                true,
            ),
            ("com.example.Order", " application/json", true),
            (
                "com.example.Order",
                "application/x-java-serialized-object",
                false,
            ),
            (
                "com.example.Order",
                " Application/X-Java-Serialized-Object ",
                false,
            ),
            ("com.example.Order", "", false),
            ("com.examples.Order", "application/json", false),
            ("com.example", "application/json", false),
            ("java.util.ArrayLists", "application/json", false),
            ("java.util.arraylist", "application/json", false),
            (
                "java.util.ArrayList<org.h2.Driver>",
                "application/json",
                false,
            ),
            ("org.h2.Driver", "application/json", false),
            ("[Lorg.h2.Driver;", "application/json", false),
            (
                "java.util.ArrayList[org.h2.Driver]",
                "application/json",
                false,
            ),
            ("<>", "application/json", false),
            ("", "application/json", false),
        ] {
            assert_eq!(
                types.allow(Some(name), Some(format)),
                want,
                "{name} {format}"
            );
        }
        assert!(!types.allow(None, Some("application/json")));
        assert!(!types.allow(Some("com.example.Order"), None));
        let none = ObjectTypes::default();
        assert!(!none.allow(Some("com.example.Order"), Some("application/json")));
    }
}

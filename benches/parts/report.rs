//! What was measured, as text, as tables of Markdown, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::load::Measured;

pub struct Report {
    pub connections: usize,
    pub rounds: usize,
    /// Whether contenders and load have cores of their own.
    pub pinned: bool,
    pub sections: Vec<Section>,
    /// What those who take part do not do, and who was left out.
    pub notes: Vec<String>,
}

/// A line of the table with all who took part.
pub struct Section {
    pub key: &'static str,
    pub name: &'static str,
    pub rows: Vec<Row>,
    pub judged: Vec<Judged>,
    /// Why something is missing.
    pub notes: Vec<String>,
}

/// A contender with what was measured in each round.
pub struct Row {
    pub contender: String,
    pub measured: Vec<Measured>,
    /// How many times its CPU bpmgate may take.
    pub limit: Option<f64>,
}

/// A figure, and the limit it is held to.
pub struct Judged {
    pub what: String,
    /// Beside whom, or whose.
    pub beside: String,
    pub figure: Spread,
    pub unit: &'static str,
    pub limit: Option<f64>,
    /// The limit is the least and not the most.
    pub least: bool,
}

impl Row {
    /// This one's figure over another's, round by round.
    pub fn over(
        &self,
        other: &Self,
        what: &str,
        figure: fn(&Measured) -> f64,
        limit: Option<f64>,
    ) -> Judged {
        let rounds = self.measured.iter().zip(&other.measured);
        Judged {
            what: what.to_owned(),
            beside: other.contender.clone(),
            figure: Spread::of(rounds.map(|(own, others)| figure(own) / figure(others))),
            unit: "x",
            limit,
            least: false,
        }
    }
}

impl Judged {
    fn met(&self) -> Option<bool> {
        let (limit, figure) = (self.limit?, self.figure.median);
        Some(if self.least {
            figure >= limit
        } else {
            figure <= limit
        })
    }

    /// The figure with its range, the limit, whether it is kept.
    fn shown(&self) -> [String; 3] {
        let Spread {
            median,
            least,
            most,
        } = self.figure;
        let (unit, digits) = (self.unit, if self.unit == "x" { 3 } else { 1 });
        let mut figure = format!("{median:.digits$}{unit}");
        if least < most {
            let _ = write!(figure, " ({least:.digits$}-{most:.digits$})");
        }
        let sign = if self.least { ">=" } else { "<=" };
        let limit = match self.limit {
            Some(limit) => format!("{sign} {limit}{unit}"),
            None => "-".to_owned(),
        };
        let met = match self.met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        [figure, limit, met.to_owned()]
    }
}

impl Report {
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.conditions());
        for section in &self.sections {
            let _ = writeln!(text, "{}: {}", section.key, section.name);
            if !section.rows.is_empty() {
                let _ = write!(text, "  {:30}", "");
                for (name, ..) in FIGURES {
                    let _ = write!(text, "{name:>16}");
                }
                text.push('\n');
            }
            for row in &section.rows {
                let _ = write!(text, "  {:30}", row.contender);
                for figure in row.medians() {
                    let _ = write!(text, "{figure:>16.1}");
                }
                text.push('\n');
            }
            for judged in &section.judged {
                let [figure, limit, met] = judged.shown();
                let what = format!("{}, {}", judged.what, judged.beside);
                let _ = writeln!(text, "  {what:56} {figure:26} target {limit:12} met: {met}");
            }
            for note in &section.notes {
                let _ = writeln!(text, "  {note}");
            }
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.conditions());
        text += "| line | what | beside | bpmgate (range) | target | met |\n|---|---|---|---|---|---|\n";
        for section in &self.sections {
            for judged in &section.judged {
                let [figure, limit, met] = judged.shown();
                let (key, what, beside) = (section.key, &judged.what, &judged.beside);
                let _ = writeln!(
                    text,
                    "| `{key}` | {what} | {beside} | {figure} | {limit} | {met} |"
                );
            }
            for note in &section.notes {
                let _ = writeln!(text, "| `{}` | {note} | | | | |", section.key);
            }
        }
        text += "\n| line | contender |";
        for (name, ..) in FIGURES {
            let _ = write!(text, " {name} |");
        }
        text += "\n|---|---|---|---|---|---|---|\n";
        for section in &self.sections {
            for row in &section.rows {
                let _ = write!(text, "| `{}` | {} |", section.key, row.contender);
                for figure in row.medians() {
                    let _ = write!(text, " {figure:.1} |");
                }
                text.push('\n');
            }
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    pub fn json(&self) -> Value {
        let sections = self.sections.iter().map(|section| {
            let rows = section.rows.iter().map(|row| {
                let mut figures = serde_json::Map::new();
                for (_, key, figure) in FIGURES {
                    let spread = Spread::of(row.measured.iter().map(figure)).json();
                    figures.insert(key.to_owned(), spread);
                }
                json!({"contender": row.contender, "figures": figures})
            });
            let judged = section.judged.iter().map(|judged| {
                json!({
                    "what": judged.what, "beside": judged.beside, "figure": judged.figure.json(),
                    "unit": judged.unit.trim(), "limit": judged.limit, "met": judged.met(),
                })
            });
            json!({
                "line": section.key, "name": section.name, "contenders": rows.collect::<Vec<_>>(),
                "judged": judged.collect::<Vec<_>>(), "notes": section.notes,
            })
        });
        json!({
            "connections": self.connections, "rounds": self.rounds, "pinned": self.pinned,
            "lines": sections.collect::<Vec<_>>(), "notes": self.notes,
        })
    }

    fn conditions(&self) -> String {
        let cores = if self.pinned {
            "the contenders on one core, load and engine on the others"
        } else {
            "too few cores to keep contenders and load apart"
        };
        format!(
            "{} connections, medians of {} rounds, {cores}",
            self.connections, self.rounds
        )
    }
}

impl Row {
    fn medians(&self) -> impl Iterator<Item = f64> {
        FIGURES
            .map(|(_, _, figure)| Spread::of(self.measured.iter().map(figure)).median)
            .into_iter()
    }
}

/// The middle of some figures, and their range.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self {
            // Of an even number, what is between the two in the middle.
            median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            least: at(0),
            most: at(last),
        }
    }

    fn json(&self) -> Value {
        json!({"median": self.median, "least": self.least, "most": self.most})
    }
}

/// A figure of each round: as it is shown, as JSON names it.
type Figure = (&'static str, &'static str, fn(&Measured) -> f64);

const FIGURES: [Figure; 5] = [
    ("requests/s", "requests_per_second", |measured| {
        measured.per_second
    }),
    ("p50 us", "p50_us", |measured| measured.p50),
    ("p99 us", "p99_us", |measured| measured.p99),
    ("CPU us/request", "cpu_us_per_request", |measured| {
        measured.cpu
    }),
    ("load us/request", "load_cpu_us_per_request", |measured| {
        measured.load
    }),
];

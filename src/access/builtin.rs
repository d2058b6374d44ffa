//! The built-in profiles, each as what it allows of the catalogue.

use crate::operation::{Kind, Operation};

use super::Members;

/// A built-in profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Builtin {
    /// Nothing.
    None,
    /// What a person at a task list does, for themselves.
    User,
    /// What a worker of external tasks does.
    Worker,
    /// All of `user` for anybody, and what keeps instances running.
    Operator,
    /// Deployments, and suspending definitions.
    Deployer,
    /// Every row of the catalogue.
    Admin,
    /// As `admin`, and also what is no row of the catalogue.
    Transparent,
}

impl Builtin {
    /// All of them, from the least to the most.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::User,
        Self::Worker,
        Self::Operator,
        Self::Deployer,
        Self::Admin,
        Self::Transparent,
    ];

    /// The name in the configuration and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::User => "user",
            Self::Worker => "worker",
            Self::Operator => "operator",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
            Self::Transparent => "transparent",
        }
    }

    /// What of a request's members the profile may use.
    #[must_use]
    pub const fn members(self) -> Members {
        let (skips, expressions) = match self {
            Self::None | Self::User | Self::Worker | Self::Deployer => (false, false),
            Self::Operator => (true, false),
            Self::Admin | Self::Transparent => (true, true),
        };
        Members {
            skips,
            expressions,
            others: skips,
            people: expressions,
        }
    }

    /// Whether the profile allows this row.
    #[must_use]
    pub fn allows(self, row: &Operation) -> bool {
        match self {
            Self::None => false,
            Self::User => reads_as_user(row) || starts(row) || USER_WRITES.contains(&row.id),
            Self::Worker => reads_definitions(row) || works_on_external_tasks(row),
            Self::Operator => Self::User.allows(row) || operates(row),
            Self::Deployer => {
                reads_definitions(row) || row.group == "Deployment" || suspends_definitions(row)
            }
            Self::Admin | Self::Transparent => true,
        }
    }
}

/// Definitions with their forms, diagrams and sources; not how many instances each has.
fn reads_definitions(row: &Operation) -> bool {
    reads_one_by_one(row) && (DEFINITIONS.contains(&row.group) || GENERAL.contains(&row.group))
}

/// Definitions, instances, tasks and their history. Not filters (a stored one runs expressions), not
/// people, not the operation log.
fn reads_as_user(row: &Operation) -> bool {
    reads_definitions(row) || (reads_one_by_one(row) && USER_READS.contains(&row.group))
}

fn reads_one_by_one(row: &Operation) -> bool {
    row.kind == Kind::Read && !row.path.contains("/statistics") && !row.path.contains("/report")
}

/// Process starts that have a place for the caller.
fn starts(row: &Operation) -> bool {
    row.kind == Kind::Start && row.group == "Process Definition" && !row.body_paths.is_empty()
}

/// Retries and priority are the operator's.
fn works_on_external_tasks(row: &Operation) -> bool {
    row.group == "External Task" && row.kind != Kind::Admin
}

/// Whatever kind the row has.
fn operates(row: &Operation) -> bool {
    let reads_or_sets_external_tasks =
        row.group == "External Task" && matches!(row.kind, Kind::Read | Kind::Admin);
    OPERATED.contains(&row.group)
        || reads_or_sets_external_tasks
        || (row.kind == Kind::Read && OPERATOR_READS.contains(&row.group))
        || (row.kind == Kind::Start && row.group == "Process Definition")
}

fn suspends_definitions(row: &Operation) -> bool {
    row.group == "Process Definition" && row.path.ends_with("/suspended")
}

const GENERAL: [&str; 2] = ["Engine", "Version"];

const DEFINITIONS: [&str; 4] = [
    "Process Definition",
    "Decision Definition",
    "Decision Requirements Definition",
    "Case Definition",
];

const USER_READS: [&str; 12] = [
    "Process Instance",
    "Process Instance Comment",
    "Task",
    "Task Attachment",
    "Task Comment",
    "Task Local Variable",
    "Task Variable",
    "Variable Instance",
    "Historic Process Instance",
    "Historic Activity Instance",
    "Historic Task Instance",
    "Historic Variable Instance",
];

/// What `user` may write, beside starts.
const USER_WRITES: [&str; 6] = [
    "claim",
    "unclaim",
    "complete",
    "submit",
    "createComment",
    "addAttachment",
];

/// Groups of which the operator may use every row.
const OPERATED: [&str; 20] = [
    "Batch",
    "Condition",
    "Event Subscription",
    "Execution",
    "Historic User Operation Log",
    "Incident",
    "Job",
    "Job Definition",
    "Message",
    "Migration",
    "Modification",
    "Process Instance",
    "Process Instance Comment",
    "Signal",
    "Task",
    "Task Attachment",
    "Task Comment",
    "Task Identity Link",
    "Task Local Variable",
    "Task Variable",
];

/// Groups that the operator may read: beside what `user` may, reports and statistics too.
const OPERATOR_READS: [&str; 14] = [
    "Process Definition",
    "Variable Instance",
    "Historic Activity Instance",
    "Historic Batch",
    "Historic Decision Instance",
    "Historic Detail",
    "Historic External Task Log",
    "Historic Incident",
    "Historic Job Log",
    "Historic Process Definition",
    "Historic Process Instance",
    "Historic Task Instance",
    "Historic Variable Instance",
    "Metrics",
];

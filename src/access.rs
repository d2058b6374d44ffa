//! Who may do what (types; the decision follows).

/// What the access check granted; put into the request's extensions by
/// [`AuthorizeLayer`](crate::layer::AuthorizeLayer), read where the body is read.
#[derive(Debug, Clone)]
pub struct Access {
    /// The profile that allowed the operation.
    pub profile: std::sync::Arc<str>,
    /// Whether the `guarded` members of the operation (catalogue column) may be used.
    pub guarded_allowed: bool,
    /// Whether every member of the operation's `user_fields` must be present and be the caller's id.
    pub own_user_only: bool,
}

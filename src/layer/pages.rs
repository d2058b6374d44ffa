//! Pages that a program adds to the gateway's own routes: below one path, and without a token.

use std::fmt;
use std::sync::Arc;

use http::Response;

use crate::body::Body;

/// Answers for everything below one path.
#[derive(Clone)]
pub struct Pages {
    path: &'static str,
    answer: Arc<Answer>,
}

type Answer = dyn Fn(&str) -> Option<Response<Body>> + Send + Sync;

impl Pages {
    /// `path` as in `/demo`; `answer` is given what follows it, as in `/assets/app.js`, or nothing, and
    /// makes an answer to GET of what there is.
    pub fn new(
        path: &'static str,
        answer: impl Fn(&str) -> Option<Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            path,
            answer: Arc::new(answer),
        }
    }

    /// Where they begin.
    #[must_use]
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// What of a normalized path is below theirs.
    pub(super) fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(self.path)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    pub(super) fn answer(&self, rest: &str) -> Option<Response<Body>> {
        (self.answer)(rest)
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

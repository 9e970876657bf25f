//! What a command says when it fails: `error: …` with its causes for people, one JSON object for scripts.

use std::error::Error;
use std::io;

use serde::Serialize;
use vecino_client::{ClientError, Outcome, PointId, Retry};

use super::text::quoted_id;
use crate::backup::BackupError;
use crate::files::FileError;

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    code: String,
    message: String,
    causes: Vec<String>,
    retry: Retry,
}

impl Failure {
    /// A failure that would repeat itself.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), causes: Vec::new(), retry: Retry::No }
    }

    /// The same failure, of a command that did nothing and may be given again.
    pub fn safe_to_retry(self) -> Self {
        Self { retry: Retry::Safe, ..self }
    }

    /// Any error, with its chain of sources.
    pub fn of(code: &str, error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::new(code, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            // Most messages quote their cause; saying it twice helps nobody.
            if !failure.causes.last().unwrap_or(&failure.message).contains(&text) {
                failure.causes.push(text);
            }
            source = cause.source();
        }
        failure
    }

    /// A failed read or write of what is named.
    pub fn io(what: &str, error: &io::Error) -> Self {
        Self::new("io", format!("{what}: {error}"))
    }

    /// A point that was not written; `None` where it was.
    pub fn of_outcome(id: &PointId, outcome: &Outcome) -> Option<Self> {
        let (code, reason, retry) = match outcome {
            Outcome::Written(_) => return None,
            Outcome::Refused(reason) => ("invalid", reason, Retry::No),
            Outcome::Unavailable(reason) => ("unavailable", reason, Retry::Safe),
            Outcome::Unknown(reason) => ("unknown", reason, Retry::Unknown),
        };
        let note = if retry == Retry::Unknown { "; it may or may not take effect" } else { "" };
        Some(Self { retry, ..Self::new(code, format!("point {}: {reason}{note}", quoted_id(id))) })
    }

    /// What the process ends with: 2 for a wrong command line, 130 after Ctrl-C, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self.code.as_str() {
            "usage" => 2,
            "interrupted" => 130,
            _ => 1,
        }
    }

    /// As it goes to stderr, without the newline.
    pub fn render(&self, json: bool) -> String {
        let Self { code, message, causes, retry } = self;
        if json {
            let message = [message].into_iter().chain(causes).map(String::as_str).collect::<Vec<_>>().join(": ");
            let error = ErrorJson { code, message, retry: *retry };
            return serde_json::to_string(&ErrorEnvelope { error }).expect("strings and numbers always make JSON");
        }
        let mut text = format!("error: {message}");
        for cause in causes {
            text.push_str(&format!("\n  because {cause}"));
        }
        text
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (code, retry) = match &error {
            ClientError::Request { code, retry, .. } => (code.name(), *retry),
            ClientError::Certificates(_) | ClientError::NoIdentity => ("certificates", Retry::No),
            ClientError::NotWritten(report) if report.has_refused() => ("invalid", Retry::No),
            ClientError::NotWritten(report) if report.has_unknown() => ("unknown", Retry::Unknown),
            ClientError::NotWritten(_) => ("unavailable", Retry::Safe),
            ClientError::OtherCollection { .. } => ("already_exists", Retry::No),
            ClientError::Address { .. } | ClientError::AddressCount { .. } => ("address", Retry::No),
            _ => ("client", Retry::No),
        };
        let mut failure = Self { retry, ..Self::of(code, &error) };
        // Where the message names the node itself, naming it before the message too would say it twice.
        if let Some(node) = error.node().map(|node| node.to_string())
            && let Some(rest) = failure.message.strip_prefix(&format!("{node}: "))
            && rest.contains(&node)
        {
            failure.message = rest.to_owned();
        }
        failure
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Client(error) => error.into(),
            error => Self::of(error.code(), &error),
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::of("file", &error)
    }
}

#[derive(Serialize)]
struct ErrorEnvelope<'a> {
    error: ErrorJson<'a>,
}

#[derive(Serialize)]
struct ErrorJson<'a> {
    code: &'a str,
    message: String,
    retry: Retry,
}

#[cfg(test)]
mod tests {
    use vecino_client::ErrorCode;

    use super::*;

    fn request(code: ErrorCode, retry: Retry) -> ClientError {
        let node = "127.0.0.1:7400".parse().unwrap();
        let message = "collection \"films\" is unknown".to_owned();
        ClientError::Request { operation: "Get", node, attempts: 1, code, message, retry }
    }

    #[test]
    fn a_refusal_of_a_node_keeps_its_code_and_advice() {
        let failure = Failure::from(request(ErrorCode::NotFound, Retry::No));
        assert_eq!(failure.render(false), "error: 127.0.0.1:7400: collection \"films\" is unknown");
        assert_eq!(
            failure.render(true),
            r#"{"error":{"code":"not_found","message":"127.0.0.1:7400: collection \"films\" is unknown","retry":"no"}}"#
        );
        let overloaded = Failure::from(request(ErrorCode::Overloaded, Retry::AfterMs(50))).render(true);
        assert!(overloaded.contains(r#""code":"overloaded""#) && overloaded.ends_with(r#""retry":{"after_ms":50}}}"#));
    }

    #[test]
    fn a_node_is_named_once() {
        let node = "127.0.0.1:9".parse().unwrap();
        let message = "127.0.0.1:9 cannot be reached: it is silent".to_owned();
        let error = ClientError::Request {
            operation: "Get",
            node,
            attempts: 1,
            code: ErrorCode::Connection,
            message: message.clone(),
            retry: Retry::No,
        };
        assert_eq!(Failure::from(error).render(false), format!("error: {message}"));
    }

    #[test]
    fn the_exit_code_tells_misuse_and_interruption_from_failure() {
        for (code, exit_code) in [("io", 1), ("usage", 2), ("interrupted", 130), ("unavailable", 1)] {
            assert_eq!(Failure::new(code, "…").exit_code(), exit_code, "{code}");
        }
    }

    #[test]
    fn codes_are_spelled_as_on_the_wire() {
        for code in [
            ErrorCode::Invalid,
            ErrorCode::NotFound,
            ErrorCode::AlreadyExists,
            ErrorCode::Unavailable,
            ErrorCode::Overloaded,
            ErrorCode::Timeout,
            ErrorCode::Forbidden,
            ErrorCode::Protocol,
            ErrorCode::NotReady,
            ErrorCode::Internal,
            ErrorCode::Connection,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }

    #[test]
    fn causes_are_listed_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] Middle);
        #[derive(Debug, thiserror::Error)]
        #[error("middle: {0}")]
        struct Middle(#[source] io::Error);
        let failure = Failure::of("io", &Outer(Middle(io::Error::other("disk"))));
        assert_eq!(failure.render(false), "error: outer\n  because middle: disk");
        assert!(failure.render(true).contains(r#""message":"outer: middle: disk""#));
    }

    #[test]
    fn an_unwritten_point_says_whether_to_try_again() {
        let id = PointId::from(7);
        assert_eq!(Failure::of_outcome(&id, &Outcome::Written(vecino_client::Version::ZERO)), None);
        let refused = Failure::of_outcome(&id, &Outcome::Refused("dimension 2, not 3".into())).unwrap();
        assert_eq!(
            refused.render(true),
            r#"{"error":{"code":"invalid","message":"point 7: dimension 2, not 3","retry":"no"}}"#
        );
        let unknown = Failure::of_outcome(&"a".into(), &Outcome::Unknown("late".into())).unwrap();
        assert_eq!(unknown.render(false), "error: point \"a\": late; it may or may not take effect");
    }
}

//! What can be wrong with a message, and the one table of codes and statuses.
//!
//! The peer's mistake is an [`HttpError`]; a call in the wrong order is our own and is
//! [`Error::Misuse`].
use std::borrow::Cow;

/// Stable names of the peer's mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    BadRequestLine,
    BadTarget,
    BadHost,
    BadField,
    BadFraming,
    BadChunk,
    BodyTooLarge,
    TargetTooLong,
    ExpectationFailed,
    HeadTooLarge,
    MethodNotImplemented,
    TransferCodingNotImplemented,
    VersionNotSupported,
    Http2Preface,
    UpstreamMalformed,
    UpstreamTruncated,
}

impl Code {
    /// Every code with its HTTP status and its name on the wire.
    pub const TABLE: [(Code, u16, &str); 16] = [
        (Code::BadRequestLine, 400, "bad_request_line"),
        (Code::BadTarget, 400, "bad_target"),
        (Code::BadHost, 400, "bad_host"),
        (Code::BadField, 400, "bad_header"),
        (Code::BadFraming, 400, "bad_framing"),
        (Code::BadChunk, 400, "bad_chunk"),
        (Code::BodyTooLarge, 413, "body_too_large"),
        (Code::TargetTooLong, 414, "target_too_long"),
        (Code::ExpectationFailed, 417, "expectation_failed"),
        (Code::HeadTooLarge, 431, "head_too_large"),
        (Code::MethodNotImplemented, 501, "method_not_implemented"),
        (Code::TransferCodingNotImplemented, 501, "transfer_coding_not_implemented"),
        (Code::VersionNotSupported, 505, "http_version_not_supported"),
        (Code::Http2Preface, 505, "http2_preface"),
        (Code::UpstreamMalformed, 502, "upstream_malformed"),
        (Code::UpstreamTruncated, 502, "upstream_truncated"),
    ];

    pub fn status(self) -> u16 {
        Self::TABLE[self as usize].1
    }

    pub fn name(self) -> &'static str {
        Self::TABLE[self as usize].2
    }
}

/// The peer sent something that is not, or that we do not take as, HTTP/1.1. The connection cannot
/// be used further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HttpError {
    pub code: Code,
    pub message: Cow<'static, str>,
}

impl HttpError {
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        HttpError { code, message: message.into() }
    }

    pub(crate) fn field(message: &'static str) -> Self {
        Self::new(Code::BadField, message)
    }

    pub(crate) fn framing(message: &'static str) -> Self {
        Self::new(Code::BadFraming, message)
    }

    pub(crate) fn chunk(message: &'static str) -> Self {
        Self::new(Code::BadChunk, message)
    }

    pub(crate) fn head_too_large(limit: usize) -> Self {
        Self::new(Code::HeadTooLarge, format!("the head of the message is larger than {limit} bytes"))
    }

    pub(crate) fn truncated(message: &'static str) -> Self {
        Self::new(Code::UpstreamTruncated, message)
    }

    /// The same mistake, made by an upstream: never the client's fault, so always 502.
    pub(crate) fn of_upstream(self) -> Self {
        HttpError { code: Code::UpstreamMalformed, ..self }
    }
}

/// Why a parser did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The caller asked in the wrong order.
    #[error("{0}")]
    Misuse(&'static str),
}

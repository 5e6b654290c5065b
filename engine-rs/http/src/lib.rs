//! Sans-I/O HTTP/1.1 and server-sent-event codec: bytes in, messages out.
//!
//! Nothing here knows a socket, a thread, a clock or Python. Modules may use those above them in
//! the list only: `grammar` (which bytes may stand where), `error`, `buffer` and `lines` (received
//! bytes), `fields`, `framing` (what the fields say of the message), `chunked`, `head`, `target`,
//! then the two parsers. `encode` and `sse` need only the first two.
mod buffer;
mod chunked;
mod encode;
mod error;
mod fields;
mod framing;
mod grammar;
mod head;
mod lines;
mod request;
mod response;
mod sse;
mod status;
mod target;

pub use encode::{EncodeError, LAST_CHUNK, RequestEncoder, ResponseEncoder, chunk_frame};
pub use error::{Code, Error, HttpError};
pub use fields::Fields;
pub use request::{Limits, RequestHead, RequestParser};
pub use response::{ResponseHead, ResponseParser};
pub use sse::SseScanner;

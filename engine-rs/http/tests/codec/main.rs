//! The codec through its public face. One file for each part of the messages; `cases` says how a table is run.
mod arrivals;
mod cases;

/// A request whose fields are Host and the ones given.
macro_rules! with {
    ($($field:literal),*) => { concat!("POST /v1 HTTP/1.1\r\nHost: a\r\n", $($field, "\r\n",)* "\r\n").as_bytes() };
}

/// A request whose body comes as the bytes given.
macro_rules! chunks {
    ($body:literal) => {
        concat!("POST /v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", $body).as_bytes()
    };
}

/// A request with this first line.
macro_rules! line {
    ($line:literal) => {
        concat!($line, "\r\nHost: a\r\n\r\n").as_bytes()
    };
}

/// A request with this Host.
macro_rules! host {
    ($host:literal) => {
        concat!("GET / HTTP/1.1\r\nHost:", $host, "\r\n\r\n").as_bytes()
    };
}

mod chunks;
mod connection;
mod encode;
mod fields;
mod framing;
mod limits;
mod request_line;
mod responses;
mod sse;

//! Which byte may stand where: one table of classes for all byte values, and the few grammar rules
//! that are made of them.
//!
//! A rule belongs here when it looks at bytes alone and knows nothing of messages.

/// `tchar` of RFC 9110 5.6.2: method and field names.
pub(crate) const TOKEN: u8 = 1;
/// Bytes of a field value, RFC 9110 5.5: visible characters, SP, HTAB, obs-text. No other control
/// byte, so no CR, LF or NUL.
pub(crate) const VALUE: u8 = 1 << 1;
/// Bytes of a path: `pchar` and `/` of RFC 3986 3.3, and `[ ] |`, which browsers send as they are.
pub(crate) const PATH: u8 = 1 << 2;
/// Bytes of a query: visible ASCII without `#`, `"`, `<`, `>`. Wider than RFC 3986 3.4, as browsers
/// leave `{ } ^ \` and others unescaped.
pub(crate) const QUERY: u8 = 1 << 3;
/// `reg-name` of RFC 3986 3.2.2 without the comma, which would be a list of hosts.
pub(crate) const HOST: u8 = 1 << 4;
/// Bytes of a quoted string (RFC 9110 5.6.4) in a chunk extension: visible characters, SP, obs-text. No HTAB, as control
/// bytes have no place there.
pub(crate) const QUOTED: u8 = 1 << 5;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = classes_of(byte as u8);
        byte += 1;
    }
    table
}

const fn classes_of(byte: u8) -> u8 {
    let mut classes = 0;
    if byte.is_ascii_alphanumeric() || one_of(byte, b"!#$%&'*+-.^_`|~") {
        classes |= TOKEN;
    }
    if byte == b'\t' || byte == b' ' || byte.is_ascii_graphic() || byte >= 0x80 {
        classes |= VALUE;
    }
    if byte.is_ascii_alphanumeric() || one_of(byte, b"-._~%!$&'()*+,;=:@/[]|") {
        classes |= PATH;
    }
    if byte.is_ascii_graphic() && !one_of(byte, b"#\"<>") {
        classes |= QUERY;
    }
    if byte.is_ascii_alphanumeric() || one_of(byte, b"-._~%!$&'()*+;=") {
        classes |= HOST;
    }
    if byte == b' ' || byte.is_ascii_graphic() || byte >= 0x80 {
        classes |= QUOTED;
    }
    classes
}

const fn one_of(byte: u8, set: &[u8]) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

#[inline]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// How many leading bytes belong to the class.
#[inline]
pub(crate) fn span(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|&byte| !is(byte, class)).unwrap_or(bytes.len())
}

#[inline]
pub(crate) fn all(bytes: &[u8], class: u8) -> bool {
    span(bytes, class) == bytes.len()
}

pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Each `%` is followed by two hexadecimal digits (RFC 3986 2.1).
pub(crate) fn escapes_are_whole(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'%', bytes)
        .all(|at| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

/// Without the SP and HTAB at both ends (OWS, RFC 9110 5.6.3).
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Elements of a comma-separated list, trimmed, without the empty ones (RFC 9110 5.6.1.2).
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// `uri-host [ ":" port ]` of RFC 9110 7.2, not empty.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let (name, port) = match value {
        [b'[', rest @ ..] => match memchr::memchr(b']', rest) {
            Some(end) if is_ipv6(&rest[..end]) => (&rest[..end], &rest[end + 1..]),
            _ => return false,
        },
        _ => {
            let end = span(value, HOST);
            if !escapes_are_whole(&value[..end]) {
                return false;
            }
            value.split_at(end)
        }
    };
    !name.is_empty() && (port.is_empty() || port.strip_prefix(b":").is_some_and(is_port))
}

fn is_ipv6(address: &[u8]) -> bool {
    std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_port(digits: &[u8]) -> bool {
    digits.is_empty() || (digits.len() <= 5 && number(digits).is_some_and(|port| port <= 65535))
}

/// `1*DIGIT` of at most 18 digits, which fit in 63 bits whatever they are.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}

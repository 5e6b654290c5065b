//! How the bytes of every case arrive: whole, one by one, in threes, and with others behind them.

/// What stands behind a message when a case is run with trailing bytes. No message can begin so.
pub const TRAILING: &[u8] = b"\0 trailing";

/// The bytes in the pieces in which they are to arrive.
pub fn arrivals(bytes: &[u8]) -> [Vec<&[u8]>; 3] {
    [vec![bytes], bytes.chunks(1).collect(), bytes.chunks(3).collect()]
}

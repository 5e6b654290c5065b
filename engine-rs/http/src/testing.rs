//! The three ways in which every parser case is run.

/// How the bytes of a case arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    Whole,
    OneByOne,
}

pub(crate) const ARRIVALS: [Arrival; 2] = [Arrival::Whole, Arrival::OneByOne];

impl Arrival {
    pub(crate) fn pieces(self, bytes: &[u8]) -> Vec<&[u8]> {
        match self {
            Arrival::Whole => vec![bytes],
            Arrival::OneByOne => bytes.chunks(1).collect(),
        }
    }
}

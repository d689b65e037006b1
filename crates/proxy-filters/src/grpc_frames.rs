//! The messages in a gRPC body: each is a flag, four bytes of length and a payload (gRPC over HTTP/2,
//! "Length-Prefixed-Message").

const HEADER_BYTES: usize = 5;

/// Finds where messages begin and end, however their bytes arrive.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    header: [u8; HEADER_BYTES],
    filled: usize,
    /// Bytes of the present payload that are still to come.
    payload: u64,
}

/// What some bytes are part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the input belong to it.
    pub bytes: usize,
    /// The header of a message is complete with them.
    pub begins: bool,
    /// The message is.
    pub ends: bool,
}

impl Frames {
    /// Takes bytes up to the end of a header or of a message. There must be some.
    pub fn step(&mut self, input: &[u8]) -> Step {
        if self.payload > 0 {
            let most = usize::try_from(self.payload).unwrap_or(usize::MAX);
            let bytes = most.min(input.len());
            self.payload -= bytes as u64;
            return Step {
                bytes,
                begins: false,
                ends: self.payload == 0,
            };
        }
        let bytes = (HEADER_BYTES - self.filled).min(input.len());
        self.header[self.filled..self.filled + bytes].copy_from_slice(&input[..bytes]);
        self.filled += bytes;
        let begins = self.filled == HEADER_BYTES;
        if begins {
            let [_, length @ ..] = self.header;
            self.payload = u64::from(u32::from_be_bytes(length));
            self.filled = 0;
        }
        Step {
            bytes,
            begins,
            ends: begins && self.payload == 0,
        }
    }

    /// Counts the messages whose header is complete with these bytes.
    pub fn count(&mut self, mut input: &[u8]) -> u64 {
        let mut begun = 0;
        while !input.is_empty() {
            let step = self.step(input);
            begun += u64::from(step.begins);
            input = &input[step.bytes..];
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_their_bytes_arrive() {
        let body = b"\0\0\0\0\x03abc\0\0\0\0\0\x01\0\0\0\x01x";
        for size in 1..=body.len() {
            let mut frames = Frames::default();
            let counted: u64 = body.chunks(size).map(|piece| frames.count(piece)).sum();
            assert_eq!(counted, 3, "in pieces of {size}");
        }
    }

    #[test]
    fn an_empty_message_begins_and_ends_with_its_header() {
        let step = Frames::default().step(&[0; 7]);
        assert_eq!(
            step,
            Step {
                bytes: 5,
                begins: true,
                ends: true
            }
        );
    }
}

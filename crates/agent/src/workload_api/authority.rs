//! The `:authority` of clients that are built on gRPC's C core (Python, C++, Ruby, PHP). On a Unix socket they send its
//! path with percent signs, `tmp%2Fnode.sock`, which is no authority by RFC 3986, so that the `h2` crate ends the
//! stream. Nobody looks at it here. This takes the percent signs out on the way in, each for another character: what
//! the header compression (RFC 7541) of both ends remembers keeps its length, and thus its place.

use std::collections::VecDeque;

/// What a client sends first (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// Length, type, flags and stream of a frame (RFC 9113, section 4.1).
const FRAME_HEAD_BYTES: usize = 9;
/// Longer frames than this are an error (`SETTINGS_MAX_FRAME_SIZE`); they are left to the `h2` crate.
const MAX_FRAME_BYTES: usize = 16 << 10;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Length of a stream dependency and a weight.
const PRIORITY_BYTES: usize = 5;

/// `:authority` in the static table (RFC 7541, appendix A), and as a text.
const AUTHORITY_INDEX: usize = 1;
const AUTHORITY: &[u8] = b":authority";

/// The bytes of one client, frame by frame.
#[derive(Debug)]
pub(super) struct Mended {
    state: State,
    /// What may be read.
    ready: VecDeque<u8>,
}

#[derive(Debug)]
enum State {
    /// This many bytes have nothing in them that matters.
    Pass(usize),
    /// The head of a frame, so far.
    Head(Vec<u8>),
    /// The payload of a HEADERS frame, so far.
    Block {
        flags: u8,
        payload: Vec<u8>,
        length: usize,
    },
}

impl Default for Mended {
    fn default() -> Self {
        Self {
            state: State::Pass(PREFACE_BYTES),
            ready: VecDeque::new(),
        }
    }
}

impl Mended {
    /// Takes what the client has sent.
    pub(super) fn take(&mut self, mut sent: &[u8]) {
        while !sent.is_empty() {
            let (state, used) = match std::mem::replace(&mut self.state, State::Pass(0)) {
                State::Pass(0) => (State::Head(Vec::with_capacity(FRAME_HEAD_BYTES)), 0),
                State::Pass(left) => {
                    let used = left.min(sent.len());
                    self.ready.extend(&sent[..used]);
                    (State::Pass(left - used), used)
                }
                State::Head(mut head) => {
                    let used = (FRAME_HEAD_BYTES - head.len()).min(sent.len());
                    head.extend(&sent[..used]);
                    (self.begin(head), used)
                }
                State::Block {
                    flags,
                    mut payload,
                    length,
                } => {
                    let used = (length - payload.len()).min(sent.len());
                    payload.extend(&sent[..used]);
                    (self.end(flags, payload, length), used)
                }
            };
            self.state = state;
            sent = &sent[used..];
        }
    }

    /// What comes after this much of a frame's head.
    fn begin(&mut self, head: Vec<u8>) -> State {
        let [one, two, three, kind, flags, ..] = head[..] else {
            return State::Head(head);
        };
        if head.len() < FRAME_HEAD_BYTES {
            return State::Head(head);
        }
        self.ready.extend(&head);
        let length = usize::from(one) << 16 | usize::from(two) << 8 | usize::from(three);
        if kind != HEADERS || length == 0 || length > MAX_FRAME_BYTES {
            return State::Pass(length);
        }
        State::Block {
            flags,
            payload: Vec::with_capacity(length),
            length,
        }
    }

    /// What comes after this much of a HEADERS frame's payload.
    fn end(&mut self, flags: u8, mut payload: Vec<u8>, length: usize) -> State {
        if payload.len() < length {
            return State::Block {
                flags,
                payload,
                length,
            };
        }
        let start = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { PRIORITY_BYTES } else { 0 };
        if let Some(fields) = payload.get_mut(start..) {
            // Padding is zeros, which read as fields without a name; nothing of them is changed.
            mend(fields);
        }
        self.ready.extend(&payload);
        State::Pass(0)
    }

    /// Moves what may be read into `buffer`, as much as fits.
    pub(super) fn read(&mut self, buffer: &mut tokio::io::ReadBuf<'_>) {
        while buffer.remaining() > 0 && !self.ready.is_empty() {
            let (first, _) = self.ready.as_slices();
            let some = first.len().min(buffer.remaining());
            buffer.put_slice(&first[..some]);
            self.ready.drain(..some);
        }
    }

    /// Whether there is something to read.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// Takes percent signs out of the authority in the fields of a header block, or of its first part. What is damaged is
/// left to whoever reads it in earnest.
fn mend(fields: &mut [u8]) {
    let mut at = 0;
    while mend_one(fields, &mut at).is_some() {}
}

/// One field (RFC 7541, section 6); `None` at the end, and at what cannot be read.
fn mend_one(fields: &mut [u8], at: &mut usize) -> Option<()> {
    let first = *fields.get(*at)?;
    if first & 0x80 != 0 {
        // An indexed field.
        return integer(fields, at, 7).map(drop);
    }
    if first & 0xe0 == 0x20 {
        // A new size of the table.
        return integer(fields, at, 5).map(drop);
    }
    // A literal, to be remembered or not.
    let index = integer(fields, at, if first & 0x40 != 0 { 6 } else { 4 })?;
    let of_authority = match index {
        0 => {
            let (start, end, _) = string(fields, at)?;
            fields[start..end] == *AUTHORITY
        }
        index => index == AUTHORITY_INDEX,
    };
    let (start, end, compressed) = string(fields, at)?;
    if of_authority && !compressed {
        for byte in fields[start..end].iter_mut().filter(|byte| **byte == b'%') {
            *byte = b'-';
        }
    }
    Some(())
}

/// A number whose first bits are the last `bits` of a byte (RFC 7541, section 5.1).
fn integer(fields: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let most = (1_usize << bits) - 1;
    let mut number = usize::from(*fields.get(*at)?) & most;
    *at += 1;
    if number < most {
        return Some(number);
    }
    // No frame needs more than three of these.
    for shift in [0, 7, 14] {
        let byte = *fields.get(*at)?;
        *at += 1;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Where a text begins and ends, and whether it is compressed (RFC 7541, section 5.2).
fn string(fields: &[u8], at: &mut usize) -> Option<(usize, usize, bool)> {
    let compressed = *fields.get(*at)? & 0x80 != 0;
    let length = integer(fields, at, 7)?;
    let start = *at;
    let end = start.checked_add(length).filter(|end| *end <= fields.len())?;
    *at = end;
    Some((start, end, compressed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python's client sent: a frame's priority, and the fields.
    const FIELDS: &[u8] =
        b"\x04\0\0\0\x01@\x05:path /SpiffeWorkloadAPI/FetchX509SVID@\n:authority\x14tmp%2Fab%2Fsink.sock\
        \x83\x86@\x02te\x08trailers\0\x12workload.spiffe.io\x04true";

    /// The same without its first five bytes, which are of a frame's priority.
    fn fields() -> &'static [u8] {
        &FIELDS[5..]
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    fn sent(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        all.extend(frames.concat());
        all
    }

    fn mended(parts: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
        let mut mended = Mended::default();
        for part in parts {
            mended.take(&part);
        }
        mended.ready.into()
    }

    #[test]
    fn the_authority_loses_its_percent_signs_however_the_bytes_are_cut() {
        let mut long = FIELDS.to_vec();
        long[0] = 0;
        let frames = [
            frame(4, 0, &[]),
            frame(1, 0x4, fields()),
            frame(0, 1, b"@\n:authority\x03%%%"),
            frame(1, 0x24, &long),
        ];
        let all = sent(&frames);
        let mut right = all.clone();
        for at in 0..right.len() {
            if right[at..].starts_with(b"tmp%2Fab%2Fsink.sock") {
                right[at + 3] = b'-';
                right[at + 8] = b'-';
            }
        }
        for size in [1, 2, 7, 100, all.len()] {
            let got = mended(all.chunks(size).map(<[u8]>::to_vec));
            assert!(got == right, "cut into {size}");
        }
    }

    #[test]
    fn an_indexed_name_is_known_and_other_fields_stay() {
        let mut fields = b"\x41\x03a%b\x40\x04name\x03a%b\x01\x03c%d\x0f\x01\x03e%f".to_vec();
        mend(&mut fields);
        assert_eq!(
            fields,
            b"\x41\x03a-b\x40\x04name\x03a%b\x01\x03c-d\x0f\x01\x03e%f"
        );
    }

    #[test]
    fn damaged_blocks_are_left_as_they_are() {
        for damaged in [
            &b"\x41\x7fa%b"[..],
            b"\x41",
            b"\x7f\xff\xff\xff\xff",
            b"\x40\x0a:auth",
            b"\x3f",
        ] {
            let mut fields = damaged.to_vec();
            mend(&mut fields);
            assert_eq!(fields, damaged);
        }
        let frame = frame(1, 0x2c, &[1]);
        assert_eq!(
            mended([sent(std::slice::from_ref(&frame))].into_iter()),
            sent(&[frame])
        );
    }

    #[test]
    fn a_recorded_block_keeps_its_length() {
        let mut fields = fields().to_vec();
        mend(&mut fields);
        assert_eq!(fields.len(), self::fields().len());
        assert!(!fields.contains(&b'%'));
    }
}

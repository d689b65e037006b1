//! Counts the frames that a peer sends, and says when they are a flood: the limits of Envoy's `ProtocolConstraints`.
//!
//! What `h2` bounds by itself is not counted here: resets before a request was accepted (CVE-2023-44487), streams that
//! we have to reset (CVE-2025-8671), `CONTINUATION` frames (CVE-2024-27316), the size of heads after decompression, and
//! acknowledgements of pings and settings, for which reading stops until they are written.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use proxy_upstream::config::Http2Options;
use tokio::time::Instant;

/// Bytes of a frame's header (RFC 9113, section 4.1).
const FRAME_HEADER_BYTES: usize = 9;

/// Bytes of a client's preface.
const PREFACE_BYTES: u64 = 24;

/// Frames that are counted.
mod frame_type {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const PRIORITY: u8 = 2;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

const END_STREAM: u8 = 0x1;

/// `WINDOW_UPDATE` frames that are free on each connection.
const FREE_WINDOW_UPDATES: u64 = 5;

/// What a peer sends too much of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flood {
    /// Frames without payload.
    Empty,
    /// `PRIORITY` frames.
    Priority,
    /// `WINDOW_UPDATE` frames.
    WindowUpdate,
    /// `RST_STREAM` frames.
    Reset,
}

/// How many resets are left (`stream_reset_burst`), and since when (`stream_reset_rate`).
#[derive(Clone, Copy, Debug)]
struct Resets {
    left: u64,
    since: Instant,
}

/// The counts of one connection.
#[derive(Debug)]
pub(crate) struct Meter {
    options: Http2Options,
    scanner: RefCell<Scanner>,
    flood: Cell<Option<Flood>>,
    /// Bytes from the peer, and to it.
    pub(crate) received: Cell<u64>,
    pub(crate) sent: Cell<u64>,
    /// Streams opened.
    pub(crate) streams: Cell<u64>,
    /// Pieces of bodies sent; each is at least one `DATA` frame.
    pub(crate) data_sent: Cell<u64>,
    /// The peer has said that the connection ends.
    pub(crate) going_away: Cell<bool>,
    empty_in_row: Cell<u64>,
    priorities: Cell<u64>,
    window_updates: Cell<u64>,
    /// None where resets are not limited; begins with the first.
    resets: Option<Cell<Option<Resets>>>,
    /// When bytes last came, where somebody wants to know.
    last_read: Option<Cell<Instant>>,
}

/// Finds the headers of frames in a stream of bytes.
#[derive(Debug, Default)]
struct Scanner {
    /// Bytes of the preface or of a payload that are still to come.
    skip: u64,
    header: [u8; FRAME_HEADER_BYTES],
    filled: usize,
}

impl Meter {
    /// For the peer of a connection; `is_client` says that it begins with a preface.
    pub(crate) fn new(options: Http2Options, is_client: bool) -> Self {
        Meter {
            options,
            scanner: RefCell::new(Scanner {
                skip: if is_client { PREFACE_BYTES } else { 0 },
                ..Scanner::default()
            }),
            flood: Cell::new(None),
            received: Cell::new(0),
            sent: Cell::new(0),
            streams: Cell::new(0),
            data_sent: Cell::new(0),
            going_away: Cell::new(false),
            empty_in_row: Cell::new(0),
            priorities: Cell::new(0),
            window_updates: Cell::new(0),
            resets: is_client.then(Cell::default),
            last_read: options
                .keepalive
                .and_then(|keepalive| keepalive.idle_interval)
                .map(|_| Cell::new(Instant::now())),
        }
    }

    /// Takes note of bytes that came.
    pub(crate) fn read(&self, mut bytes: &[u8]) {
        self.received.set(self.received.get() + bytes.len() as u64);
        if let Some(last_read) = &self.last_read {
            last_read.set(Instant::now());
        }
        let scanner = &mut *self.scanner.borrow_mut();
        while !bytes.is_empty() {
            if scanner.skip > 0 {
                let skipped = usize::try_from(scanner.skip)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                scanner.skip -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (FRAME_HEADER_BYTES - scanner.filled).min(bytes.len());
            scanner.header[scanner.filled..scanner.filled + taken].copy_from_slice(&bytes[..taken]);
            scanner.filled += taken;
            bytes = &bytes[taken..];
            if scanner.filled == FRAME_HEADER_BYTES {
                let [high, middle, low, kind, flags, ..] = scanner.header;
                let length = u32::from_be_bytes([0, high, middle, low]);
                scanner.skip = u64::from(length);
                scanner.filled = 0;
                self.count(kind, flags, length);
            }
        }
    }

    /// What the peer has sent too much of.
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    /// How long nothing has come, where somebody wants to know.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.last_read.as_ref().map(|last_read| last_read.get().elapsed())
    }

    /// Takes one reset off those that are left; false when there is none.
    fn may_reset(&self, resets: &Cell<Option<Resets>>) -> bool {
        let now = Instant::now();
        let mut state = resets.get().unwrap_or(Resets {
            left: self.options.stream_reset_burst,
            since: now,
        });
        let seconds = now.saturating_duration_since(state.since).as_secs();
        if seconds > 0 {
            let gained = seconds.saturating_mul(self.options.stream_reset_rate);
            state.left = state
                .left
                .saturating_add(gained)
                .min(self.options.stream_reset_burst);
            state.since = now;
        }
        let left = state.left.checked_sub(1);
        state.left = left.unwrap_or(0);
        resets.set(Some(state));
        left.is_some()
    }

    fn count(&self, kind: u8, flags: u8, length: u32) {
        let limits = &self.options;
        let over = match kind {
            frame_type::DATA | frame_type::HEADERS | frame_type::CONTINUATION => {
                let is_empty = length == 0 && flags & END_STREAM == 0;
                let in_row = if is_empty { self.empty_in_row.get() + 1 } else { 0 };
                self.empty_in_row.set(in_row);
                (in_row > u64::from(limits.max_empty_frames)).then_some(Flood::Empty)
            }
            frame_type::PRIORITY => {
                let count = increment(&self.priorities);
                let allowed = u64::from(limits.max_priority_frames) * (1 + self.streams.get());
                (count > allowed).then_some(Flood::Priority)
            }
            frame_type::WINDOW_UPDATE => {
                let count = increment(&self.window_updates);
                let by_data = u64::from(limits.max_window_update_frames) * self.data_sent.get();
                let allowed = FREE_WINDOW_UPDATES + 2 * (self.streams.get() + by_data);
                (count > allowed).then_some(Flood::WindowUpdate)
            }
            frame_type::RST_STREAM => {
                let refused = self.resets.as_ref().is_some_and(|resets| !self.may_reset(resets));
                refused.then_some(Flood::Reset)
            }
            frame_type::GOAWAY => {
                self.going_away.set(true);
                None
            }
            _ => None,
        };
        if over.is_some() && self.flood.get().is_none() {
            self.flood.set(over);
        }
    }
}

fn increment(cell: &Cell<u64>) -> u64 {
    let count = cell.get() + 1;
    cell.set(count);
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    fn meter() -> Meter {
        Meter::new(Http2Options::default(), false)
    }

    #[test]
    fn two_frames_without_payload_in_a_row_are_a_flood() {
        let meter = meter();
        for payload in [&b""[..], b"x", b""] {
            meter.read(&frame(frame_type::DATA, 0, payload));
            assert_eq!(meter.flood(), None);
        }
        meter.read(&frame(frame_type::DATA, END_STREAM, b""));
        meter.read(&frame(frame_type::DATA, 0, b""));
        assert_eq!(meter.flood(), None, "the end of a stream counts for nothing");
        meter.read(&frame(frame_type::CONTINUATION, 0, b""));
        assert_eq!(meter.flood(), Some(Flood::Empty));
    }

    #[test]
    fn priorities_are_limited_by_streams() {
        let meter = meter();
        let priority = frame(frame_type::PRIORITY, 0, &[0; 5]);
        (0..100).for_each(|_| meter.read(&priority));
        assert_eq!(meter.flood(), None);
        meter.streams.set(1);
        (0..100).for_each(|_| meter.read(&priority));
        assert_eq!(meter.flood(), None);
        meter.read(&priority);
        assert_eq!(meter.flood(), Some(Flood::Priority));
    }

    #[test]
    fn window_updates_are_limited_by_what_is_sent() {
        let meter = meter();
        let update = frame(frame_type::WINDOW_UPDATE, 0, &[0, 0, 0, 1]);
        meter.data_sent.set(1);
        (0..25).for_each(|_| meter.read(&update));
        assert_eq!(meter.flood(), None);
        meter.read(&update);
        assert_eq!(meter.flood(), Some(Flood::WindowUpdate));
    }

    #[tokio::test(start_paused = true)]
    async fn resets_are_limited_by_burst_and_rate() {
        let options = Http2Options {
            stream_reset_burst: 10,
            stream_reset_rate: 2,
            ..Http2Options::default()
        };
        let meter = Meter::new(options, true);
        meter.read(&[0; 24]);
        let reset = frame(frame_type::RST_STREAM, 0, &[0; 4]);
        (0..10).for_each(|_| meter.read(&reset));
        tokio::time::advance(Duration::from_secs(1)).await;
        (0..2).for_each(|_| meter.read(&reset));
        assert_eq!(meter.flood(), None);
        meter.read(&reset);
        assert_eq!(meter.flood(), Some(Flood::Reset));
        // A host may refuse as many streams as it likes.
        let host = Meter::new(options, false);
        (0..100).for_each(|_| host.read(&reset));
        assert_eq!(host.flood(), None);
    }

    #[test]
    fn frames_are_found_however_their_bytes_arrive() {
        let meter = Meter::new(Http2Options::default(), true);
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // What looks like a header inside a payload is none.
        bytes.extend(frame(
            frame_type::DATA,
            0,
            &frame(frame_type::PRIORITY, 0, &[0; 5]),
        ));
        bytes.extend(frame(frame_type::PRIORITY, 0, &[0; 5]));
        bytes.chunks(1).for_each(|byte| meter.read(byte));
        assert_eq!(meter.priorities.get(), 1);
        assert_eq!(meter.received.get(), bytes.len() as u64);
        assert!(!meter.going_away.get());
        meter.read(&frame(frame_type::GOAWAY, 0, &[0; 8]));
        assert!(meter.going_away.get());
    }
}

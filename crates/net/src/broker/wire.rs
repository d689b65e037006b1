//! The lines that travel on a broker channel.
//!
//! Questions: `listen ADDRESS`, `namespace`, `socket v4|v6 COUNT`. Answers: `ok` and what belongs to it, or
//! `error KIND TEXT`. Descriptors travel beside the answer, in the order of its words.

use std::io;
use std::net::SocketAddr;

use super::ListenerKind;
use crate::socket::Family;

/// A question to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Open listeners for this address.
    Listen(SocketAddr),
    /// Hand over the channel into the namespace.
    Namespace,
    /// Make so many unbound sockets.
    Socket(Family, usize),
}

impl Question {
    /// The line that asks it.
    pub(crate) fn encode(self) -> String {
        match self {
            Self::Listen(address) => format!("listen {address}"),
            Self::Namespace => "namespace".to_owned(),
            Self::Socket(Family::V4, count) => format!("socket v4 {count}"),
            Self::Socket(Family::V6, count) => format!("socket v6 {count}"),
        }
    }

    /// Reads the line; `None` when it is not a question of this protocol.
    pub(crate) fn decode(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let question = match words.next()? {
            "listen" => Self::Listen(words.next()?.parse().ok()?),
            "namespace" => Self::Namespace,
            "socket" => {
                let family = match words.next()? {
                    "v4" => Family::V4,
                    "v6" => Family::V6,
                    _ => return None,
                };
                Self::Socket(family, words.next()?.parse().ok()?)
            }
            _ => return None,
        };
        words.next().is_none().then_some(question)
    }
}

/// The answer to `listen`: a word per descriptor, `KIND@ADDRESS`.
pub(crate) fn encode_listeners(listeners: impl Iterator<Item = (ListenerKind, SocketAddr)>) -> String {
    let mut line = "ok".to_owned();
    for (kind, address) in listeners {
        let kind = match kind {
            ListenerKind::Plain => "plain",
            ListenerKind::Redirected => "redirected",
            ListenerKind::Direct => "direct",
        };
        line.push_str(&format!(" {kind}@{address}"));
    }
    line
}

/// Reads the answer to `listen`.
pub(crate) fn decode_listeners(words: &str) -> io::Result<Vec<(ListenerKind, SocketAddr)>> {
    let broken = || unreadable(words);
    words
        .split_ascii_whitespace()
        .map(|word| {
            let (kind, address) = word.split_once('@').ok_or_else(broken)?;
            let kind = match kind {
                "plain" => ListenerKind::Plain,
                "redirected" => ListenerKind::Redirected,
                "direct" => ListenerKind::Direct,
                _ => return Err(broken()),
            };
            Ok((kind, address.parse().map_err(|_| broken())?))
        })
        .collect()
}

/// The answer to `namespace`: a word per address of the application that is elsewhere, `CONFIGURED=REAL`.
pub(crate) fn encode_moved(moved: &[(SocketAddr, SocketAddr)]) -> String {
    let mut line = "ok".to_owned();
    for (configured, real) in moved {
        line.push_str(&format!(" {configured}={real}"));
    }
    line
}

/// Reads the answer to `namespace`.
pub(crate) fn decode_moved(words: &str) -> io::Result<Vec<(SocketAddr, SocketAddr)>> {
    let pair = |word: &str| {
        let (configured, real) = word.split_once('=')?;
        Some((configured.parse().ok()?, real.parse().ok()?))
    };
    let pairs = words.split_ascii_whitespace().map(pair).collect::<Option<_>>();
    pairs.ok_or_else(|| unreadable(words))
}

fn unreadable(words: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the broker answered \"{words}\""),
    )
}

/// The line for a refusal. The kind travels as the error number where there is one, so that `AddrInUse` stays itself.
pub(crate) fn encode_error(error: &io::Error) -> String {
    format!("error {} {error}", error.raw_os_error().unwrap_or_default())
}

/// Splits an answer into its words after `ok`, or the error that it carries.
pub(crate) fn decode_answer(line: &str) -> io::Result<&str> {
    if let Some(words) = line.strip_prefix("ok") {
        return Ok(words.trim_start());
    }
    let Some((number, text)) = line.strip_prefix("error ").and_then(|rest| rest.split_once(' ')) else {
        return Err(unreadable(line));
    };
    let kind = match number.parse() {
        Ok(0) | Err(_) => io::ErrorKind::Other,
        Ok(number) => io::Error::from_raw_os_error(number).kind(),
    };
    Err(io::Error::new(kind, text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_survive_the_wire() {
        let address: SocketAddr = "[::1]:15001".parse().unwrap();
        for question in [
            Question::Listen(address),
            Question::Namespace,
            Question::Socket(Family::V4, 8),
            Question::Socket(Family::V6, 1),
        ] {
            assert_eq!(Question::decode(&question.encode()), Some(question));
        }
    }

    #[test]
    fn a_line_that_is_no_question_is_refused() {
        for line in [
            "",
            "listen",
            "listen somewhere",
            "socket v5 1",
            "socket v4",
            "namespace now",
            "bind 0.0.0.0:1",
        ] {
            assert_eq!(Question::decode(line), None, "{line}");
        }
    }

    #[test]
    fn an_error_keeps_its_kind_and_text() {
        let error = io::Error::from_raw_os_error(98);
        let back = decode_answer(&encode_error(&error)).unwrap_err();
        assert_eq!(back.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(back.to_string(), error.to_string());
        let custom = decode_answer(&encode_error(&io::Error::other(
            "port 9080 is not a service port",
        )))
        .unwrap_err();
        assert_eq!(custom.to_string(), "port 9080 is not a service port");
    }
}

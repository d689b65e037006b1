//! Reads llhttp's Markdown: a title, a `meta` comment, an `http` block and a `log` block per vector.

/// One message, as the events tell it.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Message {
    /// Method and target, or the status code and nothing.
    pub(super) start: (String, String),
    /// Names in lower case and trimmed values; `host` is left out, it moves into the authority.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, String)>,
    /// The head was complete.
    pub(super) head_complete: bool,
    /// The message was complete.
    pub(super) complete: bool,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        let state = (self.head_complete, self.complete);
        write!(
            f,
            "{:?} {:?} {body:?} {:?} {state:?}",
            self.start, self.fields, self.trailers
        )
    }
}

/// How the input must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Everything was taken.
    Accept,
    /// A protocol error.
    Refuse,
    /// The connection now belongs to another protocol (CONNECT, upgrade).
    HandOver,
    /// The connection ended inside a message.
    Unfinished,
}

/// What a vector demands.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) messages: Vec<Message>,
    pub(super) verdict: Verdict,
}

/// One vector.
#[derive(Clone, Debug)]
pub(super) struct Vector {
    pub(super) title: String,
    pub(super) is_request: bool,
    /// The application says that there is no body, as for a response to HEAD.
    pub(super) skip_body: bool,
    /// The connection ends behind the input.
    pub(super) finish: bool,
    pub(super) input: Vec<u8>,
    pub(super) expected: Expected,
}

/// All vectors of a file.
pub(super) fn parse(text: &str) -> Vec<Vector> {
    let mut vectors = Vec::new();
    let (mut title, mut meta, mut input) = (String::new(), String::new(), None);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix('#') {
            title = rest.trim_start_matches('#').trim().to_owned();
        } else if line.contains("meta=") {
            line.clone_into(&mut meta);
        } else if line == "```http" {
            input = Some(read_input(&block(&mut lines)));
        } else if line == "```log"
            && let Some(input) = input.take()
        {
            vectors.push(vector(&title, &meta, input, &block(&mut lines)));
        }
    }
    vectors
}

/// The lines of a fenced block, joined by LF.
fn block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> String {
    lines
        .take_while(|line| *line != "```")
        .collect::<Vec<_>>()
        .join("\n")
}

/// Turns a block into bytes: a backslash at a line's end joins it to the next, other line ends become CRLF.
fn read_input(block: &str) -> Vec<u8> {
    unescape(&block.replace("\\\n", "").replace('\n', "\r\n"))
}

/// Resolves `\r`, `\n`, `\t`, `\f`, `\xHH` and octal escapes.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digits = |from: usize, radix: u32, most: usize| {
            let length = bytes[from..]
                .iter()
                .take(most)
                .take_while(|&&byte| char::from(byte).is_digit(radix))
                .count();
            let value = u32::from_str_radix(&text[from..from + length], radix).unwrap_or_default();
            (length, value as u8)
        };
        let (skip, byte) = match (bytes[at], bytes.get(at + 1)) {
            (b'\\', Some(b'r')) => (2, b'\r'),
            (b'\\', Some(b'n')) => (2, b'\n'),
            (b'\\', Some(b't')) => (2, b'\t'),
            (b'\\', Some(b'f')) => (2, 0x0c),
            (b'\\', Some(b'x')) => {
                let (length, value) = digits(at + 2, 16, 2);
                (2 + length, value)
            }
            (b'\\', Some(b'0'..=b'7')) => {
                let (length, value) = digits(at + 1, 8, 3);
                (1 + length, value)
            }
            (byte, _) => (1, byte),
        };
        out.push(byte);
        at += skip;
    }
    out
}

fn vector(title: &str, meta: &str, input: Vec<u8>, log: &str) -> Vector {
    let kind = meta
        .split("\"type\":")
        .nth(1)
        .and_then(|rest| rest.split('"').nth(1))
        .unwrap_or_default();
    let is_request = kind.starts_with("request");
    let mut expected = read_log(log);
    for message in &mut expected.messages {
        finish_message(message, is_request);
    }
    if kind.contains("lenient") {
        expected = Expected {
            messages: Vec::new(),
            verdict: Verdict::Refuse,
        };
        // Only the verdict counts: whatever came before the lenient part may pass.
        expected.messages.resize(
            usize::from(u8::MAX),
            Message {
                complete: true,
                ..Message::default()
            },
        );
    }
    Vector {
        title: title.to_owned(),
        is_request,
        skip_body: meta.contains("\"skipBody\": true"),
        finish: kind.ends_with("-finish"),
        input,
        expected,
    }
}

/// Reads llhttp's event log.
fn read_log(log: &str) -> Expected {
    let mut messages: Vec<Message> = Vec::new();
    let mut verdict = Verdict::Accept;
    for line in log.lines() {
        let event = line.split_once(' ').map_or(line, |(_, event)| event);
        if event == "message begin" {
            messages.push(Message::default());
        } else if event.starts_with("error code=21") {
            // A pause that the test asked for.
        } else if event.starts_with("error code=22") {
            verdict = Verdict::HandOver;
        } else if event.starts_with("error code=") {
            verdict = Verdict::Refuse;
        } else if event == "finish=2" {
            verdict = Verdict::Unfinished;
        } else if let Some(message) = messages.last_mut() {
            message_event(message, event);
        }
    }
    Expected { messages, verdict }
}

fn message_event(message: &mut Message, event: &str) {
    if event == "message complete" {
        message.complete = true;
    } else if let Some(rest) = event.strip_prefix("headers complete ") {
        message.head_complete = true;
        if let Some(status) = rest.strip_prefix("status=") {
            message.start.0 = status.split(' ').next().unwrap_or_default().to_owned();
        }
    } else if let Some((_, span)) = event.split_once("span[") {
        let Some((kind, value)) = span.split_once("]=") else {
            return;
        };
        span_event(message, kind, value);
    }
}

fn span_event(message: &mut Message, kind: &str, value: &str) {
    let bytes = match value {
        "cr" => b"\r".to_vec(),
        "lf" => b"\n".to_vec(),
        "tab" => b"\t".to_vec(),
        "space" => b" ".to_vec(),
        quoted => unescape(
            quoted
                .strip_prefix('"')
                .and_then(|q| q.strip_suffix('"'))
                .unwrap_or(quoted),
        ),
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let fields = if message.head_complete {
        &mut message.trailers
    } else {
        &mut message.fields
    };
    match kind {
        "method" => message.start.0 += &text,
        "url" => message.start.1 += &text,
        "body" => message.body.extend_from_slice(&bytes),
        "header_field" => fields.push((text, String::new())),
        "header_value" => {
            if let Some(field) = fields.last_mut() {
                field.1 += &text;
            }
        }
        _ => {}
    }
}

/// Brings a message into the form in which we keep it.
fn finish_message(message: &mut Message, is_request: bool) {
    for field in message.fields.iter_mut().chain(&mut message.trailers) {
        field.0 = field.0.to_ascii_lowercase();
        field.1 = field.1.trim_matches([' ', '\t']).to_owned();
    }
    if !is_request {
        return;
    }
    message.fields.retain(|(name, _)| name != "host");
    // An absolute target is kept without user information, and without a path has the path "/".
    if let Some((scheme, rest)) = message.start.1.split_once("://") {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let rest = &rest[rest[..end].rfind('@').map_or(0, |at| at + 1)..];
        message.start.1 = format!("{scheme}://{rest}");
    }
    if let Some((_, rest)) = message.start.1.split_once("://") {
        let path = message.start.1.len() - rest.len() + rest.find(['/', '?', '#']).unwrap_or(rest.len());
        if !message.start.1[path..].starts_with('/') {
            message.start.1.insert(path, '/');
        }
    }
}

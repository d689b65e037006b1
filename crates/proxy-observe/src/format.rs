//! The line that a stream becomes: text, or JSON (`envoy.config.core.v3.SubstitutionFormatString`).

use api_envoy::Struct;
use api_envoy::envoy::config::core::v3::substitution_format_string::Format as FormatProto;
use api_envoy::envoy::config::core::v3::{SubstitutionFormatString, data_source};
use api_envoy::wkt::json_struct;
use proxy_core::error::ConfigContext as _;
use proxy_core::substitution::{Context, Format};
use proxy_core::{ConfigError, ConfigResult};

/// Envoy's default format.
const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// A compiled line format.
#[derive(Clone, Debug)]
pub struct LineFormat {
    body: Body,
    omit_empty: bool,
}

#[derive(Clone, Debug)]
enum Body {
    Text(Format),
    Json(Node),
}

/// A JSON value with formats for strings.
#[derive(Clone, Debug)]
enum Node {
    Object(Vec<(String, Node)>),
    List(Vec<Node>),
    Format(Format),
    /// Numbers, booleans and null, printed as they are.
    Fixed(String),
}

impl LineFormat {
    /// Envoy's default.
    ///
    /// # Errors
    /// Never: the default parses.
    pub fn default_text() -> ConfigResult<Self> {
        Self::text(DEFAULT)
    }

    /// A text format, newline included.
    ///
    /// # Errors
    /// An unknown operator.
    pub fn text(format: &str) -> ConfigResult<Self> {
        Ok(Self {
            body: Body::Text(Format::parse(format)?),
            omit_empty: false,
        })
    }

    /// A JSON format; every line ends in a newline.
    ///
    /// # Errors
    /// An unknown operator.
    pub fn json(format: &Struct) -> ConfigResult<Self> {
        Ok(Self {
            body: Body::Json(node(&json_struct(format))?),
            omit_empty: false,
        })
    }

    /// The format of a message.
    ///
    /// # Errors
    /// An unknown operator, or a source of the text that is not inline.
    pub fn compile(proto: &SubstitutionFormatString) -> ConfigResult<Self> {
        let mut compiled = match &proto.format {
            Some(FormatProto::JsonFormat(json)) => Self::json(json).within("json_format")?,
            Some(FormatProto::TextFormatSource(source)) => match &source.specifier {
                Some(data_source::Specifier::InlineString(text)) => {
                    Self::text(text).within("text_format_source")?
                }
                _ => {
                    return Err(ConfigError::at(
                        "text_format_source",
                        "only inline_string is supported",
                    ));
                }
            },
            #[allow(deprecated)]
            Some(FormatProto::TextFormat(text)) => Self::text(text).within("text_format")?,
            None => Self::default_text()?,
        };
        compiled.omit_empty = proto.omit_empty_values;
        Ok(compiled)
    }

    /// Writes the line.
    pub fn write(&self, context: &Context<'_>, out: &mut Vec<u8>) {
        match &self.body {
            Body::Text(format) => format.write(context, if self.omit_empty { b"" } else { b"-" }, out),
            Body::Json(node) => {
                self.write_node(node, context, out);
                out.push(b'\n');
            }
        }
    }

    /// Writes a JSON value; false, and nothing, when it is to be left out.
    fn write_node(&self, node: &Node, context: &Context<'_>, out: &mut Vec<u8>) -> bool {
        match node {
            Node::Fixed(text) => out.extend_from_slice(text.as_bytes()),
            Node::Format(format) => return self.write_value(format, context, out),
            Node::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    if !self.write_node(item, context, out) {
                        out.extend_from_slice(b"null");
                    }
                }
                out.push(b']');
            }
            Node::Object(entries) => {
                out.push(b'{');
                let mut first = true;
                for (key, value) in entries {
                    let mark = out.len();
                    if !first {
                        out.push(b',');
                    }
                    write_string(key.as_bytes(), out);
                    out.push(b':');
                    if self.write_node(value, context, out) {
                        first = false;
                    } else {
                        out.truncate(mark);
                    }
                }
                out.push(b'}');
            }
        }
        true
    }

    fn write_value(&self, format: &Format, context: &Context<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let Some(operator) = format.single() else {
            format.write(context, if self.omit_empty { b"" } else { b"-" }, out);
            quote_from(start, out);
            return true;
        };
        match (operator.write(context, out), operator.is_number()) {
            (true, true) => {}
            (true, false) => quote_from(start, out),
            (false, _) if self.omit_empty => return false,
            (false, _) => out.extend_from_slice(b"null"),
        }
        true
    }
}

fn node(json: &serde_json::Value) -> ConfigResult<Node> {
    Ok(match json {
        serde_json::Value::Object(map) => {
            let entries = map
                .iter()
                .map(|(k, v)| Ok((k.clone(), node(v).map_err(|e| e.within(k))?)));
            // Envoy prints the keys of a JSON format in order.
            let mut entries = entries.collect::<ConfigResult<Vec<_>>>()?;
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Node::Object(entries)
        }
        serde_json::Value::Array(items) => Node::List(items.iter().map(node).collect::<ConfigResult<_>>()?),
        serde_json::Value::String(text) => Node::Format(Format::parse(text)?),
        other => Node::Fixed(other.to_string()),
    })
}

/// Makes a JSON string of what was written from `start` on.
fn quote_from(start: usize, out: &mut Vec<u8>) {
    let value = &out[start..];
    if value
        .iter()
        .all(|byte| (0x20..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\'))
    {
        out.insert(start, b'"');
        out.push(b'"');
    } else {
        let value = out.split_off(start);
        write_string(&value, out);
    }
}

/// Writes a JSON string; bytes that are not UTF-8 become replacement characters.
fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if u32::from(c) < 0x20 => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

//! Character classes of RFC 9110 and RFC 9112, as tables and as loops that the compiler vectorises.

/// For each byte its lower case when it may stand in a token (RFC 9110 section 5.6.2), else 0.
pub(crate) static TOKEN_LOWER: [u8; 256] = token_lower();

const fn token_lower() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        let allowed = character.is_ascii_alphanumeric()
            || matches!(
                character,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        if allowed {
            table[byte] = character.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
}

/// True for a character of a token (RFC 9110, section 5.6.2).
#[inline]
#[must_use]
pub fn is_token(byte: u8) -> bool {
    TOKEN_LOWER[byte as usize] != 0
}

/// True when every byte may stand in a field value or reason phrase: visible, space, tab, or above ASCII.
#[inline]
pub(crate) fn is_field_value(value: &[u8]) -> bool {
    !value.iter().fold(false, |bad, &byte| {
        bad | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f)
    })
}

/// True when every byte is visible ASCII, as a request target demands.
#[inline]
pub(crate) fn is_visible(value: &[u8]) -> bool {
    !value
        .iter()
        .fold(false, |bad, &byte| bad | (byte <= 0x20) | (byte >= 0x7f))
}

/// The methods that are taken: those that Envoy's HTTP/1 parser knows unless `allow_custom_methods` is set.
const METHODS: &[&[u8]] = &[
    b"GET",
    b"POST",
    b"PUT",
    b"HEAD",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"TRACE",
    b"ACL",
    b"BIND",
    b"CHECKOUT",
    b"COPY",
    b"LINK",
    b"LOCK",
    b"M-SEARCH",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MOVE",
    b"NOTIFY",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SOURCE",
    b"SUBSCRIBE",
    b"UNBIND",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
];

/// True when requests with this method are taken.
#[inline]
pub(crate) fn is_method(method: &[u8]) -> bool {
    METHODS.contains(&method)
}

/// True when a method could still become one with which requests are taken.
pub(crate) fn is_method_prefix(start: &[u8]) -> bool {
    METHODS.iter().any(|method| method.starts_with(start))
}

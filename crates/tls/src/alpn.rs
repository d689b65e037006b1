//! Application protocols as settings name them (RFC 7301).

use crate::limits::MAX_ALPN_BYTES;
use crate::refusal::ContextError;

/// The names in rustls's form.
pub(crate) fn protocols(names: &[String]) -> Result<Vec<Vec<u8>>, ContextError> {
    const WHAT: &str = "alpn_protocols";
    let wire: usize = names.iter().map(|name| 1 + name.len()).sum();
    if wire > MAX_ALPN_BYTES {
        return Err(ContextError::TooMany {
            what: WHAT,
            limit: MAX_ALPN_BYTES,
        });
    }
    let name = |name: &String| match name.len() {
        1..=255 => Ok(name.as_bytes().to_vec()),
        length => Err(ContextError::invalid(
            WHAT,
            format!("a name has {length} bytes, not 1 to 255"),
        )),
    };
    names.iter().map(name).collect()
}

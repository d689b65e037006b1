//! The status line (RFC 9112 section 4).

use crate::error::ParseError;
use crate::head::ResponseHead;
use crate::header_id::HeaderId;
use crate::request::{check_unfinished_version, parse_version};
use crate::syntax::is_field_value;

/// Where the status code begins: behind `HTTP/1.1` and a space.
const STATUS_OFFSET: usize = 9;

/// Parses `version SP 3DIGIT [SP reason]`. The reason is dropped: nothing may depend on it.
pub(crate) fn parse_line(line: &[u8], head: &mut ResponseHead) -> Result<(), ParseError> {
    if line.len() < STATUS_OFFSET + 3 || line[STATUS_OFFSET - 1] != b' ' {
        return Err(ParseError::StatusLine);
    }
    head.version = parse_version(&line[..STATUS_OFFSET - 1])?;
    let digits = &line[STATUS_OFFSET..STATUS_OFFSET + 3];
    if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return Err(ParseError::StatusLine);
    }
    let reason = &line[STATUS_OFFSET + 3..];
    if !matches!(reason.first(), None | Some(b' ')) || !is_field_value(reason) {
        return Err(ParseError::StatusLine);
    }
    let status = digits
        .iter()
        .fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    let base = head.headers.take_block(digits);
    head.headers.push_pseudo(HeaderId::Status, base..base + 3);
    head.set_parsed_status(status);
    Ok(())
}

/// Finds what is already wrong with the beginning of a status line.
pub(crate) fn check_unfinished_line(line: &[u8]) -> Result<(), ParseError> {
    if line.len() < STATUS_OFFSET {
        return check_unfinished_version(line);
    }
    parse_version(&line[..STATUS_OFFSET - 1])?;
    let shape_is_right = line[STATUS_OFFSET - 1] == b' '
        && line[STATUS_OFFSET..].iter().take(3).all(u8::is_ascii_digit)
        && matches!(line.get(STATUS_OFFSET + 3), None | Some(b' '))
        && is_field_value(line);
    if shape_is_right {
        Ok(())
    } else {
        Err(ParseError::StatusLine)
    }
}

//! PEM text (RFC 7468), read strictly: a damaged file is refused whole, never read in part.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// What PEM calls a certificate.
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
/// What PEM calls a signing request.
pub(crate) const REQUEST: &str = "CERTIFICATE REQUEST";
/// What older OpenSSL calls a signing request.
pub(crate) const OLD_REQUEST: &str = "NEW CERTIFICATE REQUEST";
/// What PEM calls a revocation list.
pub(crate) const REVOCATION_LIST: &str = "X509 CRL";
/// What PEM calls a private key in PKCS #8.
pub(crate) const PKCS8: &str = "PRIVATE KEY";

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
const LINE: usize = 64;

/// Why a PEM text is refused. No variant carries what was between the marks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Nothing is in it.
    #[error("the PEM text is empty: a {0} is expected")]
    Empty(&'static str),
    /// It is larger than allowed.
    #[error("the PEM text has {bytes} bytes, more than {maximum}")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// The limit.
        maximum: usize,
    },
    /// It has more blocks than allowed.
    #[error("the PEM text has more blocks than {maximum}")]
    TooMany {
        /// The limit.
        maximum: usize,
    },
    /// It is not text.
    #[error("the PEM text is not UTF-8")]
    NotText,
    /// A block does not end, or ends without having begun.
    #[error("the PEM text is truncated or damaged at line {line}")]
    Truncated {
        /// Where, counted from 1.
        line: usize,
    },
    /// A block's content is not base64.
    #[error("the PEM block that ends at line {line} is not valid base64")]
    Base64 {
        /// Where it ends, counted from 1.
        line: usize,
    },
    /// A block is encrypted, or has other headers.
    #[error("the PEM block at line {line} is encrypted or has headers, which is not supported")]
    Headers {
        /// Where, counted from 1.
        line: usize,
    },
    /// A block is something else.
    #[error("the PEM text holds a {found} where a {expected} is expected")]
    Unexpected {
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// One block: what it says it is, and its bytes, which are wiped as they may be a key.
pub(crate) struct Block {
    pub(crate) label: String,
    pub(crate) der: Zeroizing<Vec<u8>>,
}

/// Every block of `text`, of at most `maximum` bytes, `most` at most. Text between blocks is a comment, as
/// `openssl x509 -text` writes it.
pub(crate) fn blocks(text: &[u8], maximum: usize, most: usize) -> Result<Vec<Block>, PemError> {
    if text.len() > maximum {
        return Err(PemError::TooLarge {
            bytes: text.len(),
            maximum,
        });
    }
    let text = std::str::from_utf8(text).map_err(|_| PemError::NotText)?;
    let mut found = Vec::new();
    let mut open: Option<Open<'_>> = None;
    for (number, line) in text.lines().enumerate().map(|(i, l)| (i + 1, l.trim())) {
        let truncated = PemError::Truncated { line: number };
        open = match open {
            None if line.starts_with(BEGIN) && found.len() == most => {
                return Err(PemError::TooMany { maximum: most });
            }
            None if line.starts_with(BEGIN) => Some(Open::new(label(line, BEGIN).ok_or(truncated)?)),
            None if line.starts_with(DASHES) => return Err(truncated),
            None => None,
            Some(block) if line.starts_with(END) => {
                if label(line, END) != Some(block.label) {
                    return Err(truncated);
                }
                found.push(block.close(number)?);
                None
            }
            Some(_) if line.starts_with(DASHES) => return Err(truncated),
            Some(_) if line.contains(':') => return Err(PemError::Headers { line: number }),
            Some(mut block) => {
                block.lines.push(line);
                Some(block)
            }
        };
    }
    match open {
        Some(_) => Err(PemError::Truncated {
            line: text.lines().count(),
        }),
        None => Ok(found),
    }
}

/// Every block of `text`, each of which must be an `expected`, one at least and `most` at most.
pub(crate) fn only(
    text: &[u8],
    expected: &'static str,
    maximum: usize,
    most: usize,
) -> Result<Vec<Block>, PemError> {
    let found = blocks(text, maximum, most)?;
    if found.is_empty() {
        return Err(PemError::Empty(expected));
    }
    match found.iter().find(|b| b.label != expected) {
        Some(other) => Err(PemError::Unexpected {
            found: other.label.clone(),
            expected,
        }),
        None => Ok(found),
    }
}

/// `der` as a block, in lines of 64 characters, with a newline at the end.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    std::mem::take(&mut *encode_secret(label, der))
}

/// As [`encode`], in a buffer that is wiped. It is sized once, so that growing it leaves no copy behind.
pub(crate) fn encode_secret(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    let size = base64.len() + base64.len() / LINE + 2 * (BEGIN.len() + label.len() + DASHES.len() + 2);
    let mut out = Zeroizing::new(String::with_capacity(size));
    for part in [BEGIN, label, DASHES, "\n"] {
        out.push_str(part);
    }
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    for part in [END, label, DASHES, "\n"] {
        out.push_str(part);
    }
    out
}

struct Open<'t> {
    label: &'t str,
    lines: Vec<&'t str>,
}

impl<'t> Open<'t> {
    fn new(label: &'t str) -> Self {
        Self {
            label,
            lines: Vec::new(),
        }
    }

    /// What is put together is wiped, in a buffer of its size: whoever writes many blocks makes nobody wipe much.
    fn close(self, line: usize) -> Result<Block, PemError> {
        let bytes = self.lines.iter().map(|line| line.len()).sum();
        let mut base64 = Zeroizing::new(String::with_capacity(bytes));
        for part in &self.lines {
            base64.push_str(part);
        }
        let der = STANDARD
            .decode(base64.as_bytes())
            .map_err(|_| PemError::Base64 { line })?;
        Ok(Block {
            label: self.label.to_owned(),
            der: Zeroizing::new(der),
        })
    }
}

fn label<'t>(line: &'t str, mark: &str) -> Option<&'t str> {
    let label = line.strip_prefix(mark)?.strip_suffix(DASHES)?;
    (!label.is_empty() && !label.contains('-')).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Vec<u8>>, PemError> {
        let read = only(text.as_bytes(), CERTIFICATE, 4096, 4)?;
        Ok(read.iter().map(|b| b.der.to_vec()).collect())
    }

    #[test]
    fn what_is_written_is_read_back_whatever_its_length() {
        for length in [1, 2, 3, 47, 48, 49, 96, 500] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let text = encode(CERTIFICATE, &bytes);
            assert!(text.lines().all(|l| l.len() <= LINE) && text.ends_with("-----\n"));
            assert_eq!(read(&text), Ok(vec![bytes]));
        }
    }

    #[test]
    fn several_blocks_with_comments_between_are_read_in_order() {
        let text = format!(
            "# the chain\r\n{}\nsubject=CN = root\n{}",
            encode(CERTIFICATE, b"one").replace('\n', "\r\n"),
            encode(CERTIFICATE, b"two")
        );
        assert_eq!(read(&text), Ok(vec![b"one".to_vec(), b"two".to_vec()]));
    }

    #[test]
    fn an_empty_text_is_refused() {
        for text in ["", "\n\n", "nothing here"] {
            assert_eq!(read(text), Err(PemError::Empty(CERTIFICATE)));
        }
    }

    #[test]
    fn a_text_that_is_cut_anywhere_is_refused() {
        let whole = format!(
            "{}{}",
            encode(CERTIFICATE, &[7; 100]),
            encode(CERTIFICATE, b"two")
        );
        let first = encode(CERTIFICATE, &[7; 100]).len();
        for cut in 1..whole.len() - 1 {
            // Where the first block ends, with or without its newline, the text is a chain of one; a few dashes
            // after it are a comment.
            let whole_block = (first - 1..first + DASHES.len()).contains(&cut);
            assert_eq!(read(&whole[..cut]).is_ok(), whole_block, "{:?}", &whole[..cut]);
        }
    }

    #[test]
    fn a_text_that_lost_its_beginning_is_refused() {
        let whole = encode(CERTIFICATE, &[7; 100]);
        for cut in 1..whole.len() - 1 {
            assert!(read(&whole[cut..]).is_err(), "{:?}", &whole[cut..]);
        }
    }

    #[test]
    fn a_key_among_certificates_is_refused() {
        let text = encode(CERTIFICATE, b"one") + &encode(PKCS8, b"two");
        let wrong = PemError::Unexpected {
            found: PKCS8.to_owned(),
            expected: CERTIFICATE,
        };
        assert_eq!(read(&text), Err(wrong));
    }

    #[test]
    fn blocks_whose_ends_do_not_match_are_refused() {
        let text = encode(CERTIFICATE, b"one").replace("END CERT", "END OTHER CERT");
        assert_eq!(read(&text), Err(PemError::Truncated { line: 3 }));
        let nested =
            encode(CERTIFICATE, b"one").replace("\n-----END", "\n-----BEGIN CERTIFICATE-----\n-----END");
        assert_eq!(read(&nested), Err(PemError::Truncated { line: 3 }));
    }

    #[test]
    fn encrypted_keys_and_bad_base64_are_named() {
        let text = "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(read(text), Err(PemError::Headers { line: 2 }));
        let text = "-----BEGIN CERTIFICATE-----\nAA*A\n-----END CERTIFICATE-----\n";
        assert_eq!(read(text), Err(PemError::Base64 { line: 3 }));
    }

    #[test]
    fn what_is_too_large_or_too_many_is_refused() {
        assert!(matches!(
            read(&"x".repeat(5000)),
            Err(PemError::TooLarge { bytes: 5000, .. })
        ));
        let five = encode(CERTIFICATE, b"one").repeat(5);
        assert_eq!(read(&five), Err(PemError::TooMany { maximum: 4 }));
        assert_eq!(blocks(&[0xff, 0xfe], 10, 1).err(), Some(PemError::NotText));
    }

    /// A buffer of the whole text's size for each block would be 20 GB here.
    #[test]
    fn many_small_blocks_take_no_longer_than_one_large_one() {
        let many = encode(CERTIFICATE, b"").repeat(20_000);
        let began = std::time::Instant::now();
        let read = blocks(many.as_bytes(), many.len(), 20_000).expect("blocks");
        assert_eq!(read.len(), 20_000);
        assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
        let more = blocks(many.as_bytes(), many.len(), 19_999).err();
        assert_eq!(more, Some(PemError::TooMany { maximum: 19_999 }));
    }
}

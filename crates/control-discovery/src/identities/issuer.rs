//! The keys of an issuer of JWTs, from a file: a JSON Web Key Set, looked at again and again, since issuers change keys.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use control_ca::{IssuerKeys, OidcError, OidcRules};

use crate::limits;

/// Whose JWTs are worth an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Who it is, and for whom its tokens must be.
    pub rules: OidcRules,
    /// The file with its public keys.
    pub keys: PathBuf,
}

/// Why there are no keys, or no new ones.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error("the file cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("the file has more than {} bytes", limits::MAX_KEYS_FILE_BYTES)]
    TooLarge,
    #[error(transparent)]
    Content(#[from] OidcError),
}

/// Follows the keys in a file, for ever. What cannot be read leaves those that were there.
pub(super) async fn follow(path: PathBuf, keys: Arc<ArcSwap<Option<IssuerKeys>>>) {
    let (mut seen, mut told) = (Vec::new(), String::new());
    loop {
        match read(&path) {
            Ok(text) if text == seen => {}
            Ok(text) => match IssuerKeys::from_json(&text) {
                Ok(read) => {
                    tracing::info!(?read, path = %path.display(), "keys of the issuer of JWTs");
                    keys.store(Arc::new(Some(read)));
                    (seen, told) = (text, String::new());
                }
                Err(error) => tell(&path, &error.into(), &mut told),
            },
            Err(error) => tell(&path, &error, &mut told),
        }
        tokio::time::sleep(limits::KEYS_POLL_INTERVAL).await;
    }
}

/// Logs a failure unless it is the one that was logged last.
fn tell(path: &Path, error: &KeysError, told: &mut String) {
    let error = error.to_string();
    if *told != error {
        tracing::error!(%error, path = %path.display(), "the keys of the issuer of JWTs are not taken");
        *told = error;
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeysError> {
    let mut text = Vec::new();
    let limit = limits::MAX_KEYS_FILE_BYTES;
    let file = std::fs::File::open(path)?;
    file.take(limit as u64 + 1).read_to_end(&mut text)?;
    match text.len() > limit {
        true => Err(KeysError::TooLarge),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The public key of RFC 7515, appendix A.3.
    const KEYS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "one",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

    #[tokio::test(start_paused = true)]
    async fn keys_are_followed_and_broken_ones_leave_the_old_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let keys = Arc::new(ArcSwap::from_pointee(None));
        let following = tokio::spawn(follow(path.clone(), Arc::clone(&keys)));
        tokio::time::sleep(limits::KEYS_POLL_INTERVAL).await;
        assert!(keys.load().is_none());
        std::fs::write(&path, KEYS).unwrap();
        tokio::time::sleep(limits::KEYS_POLL_INTERVAL * 2).await;
        assert!(keys.load().is_some());
        std::fs::write(&path, "{}").unwrap();
        tokio::time::sleep(limits::KEYS_POLL_INTERVAL * 2).await;
        assert!(keys.load().is_some());
        following.abort();
    }
}

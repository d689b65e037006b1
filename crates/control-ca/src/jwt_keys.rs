//! The keys that sign JWT-SVIDs: the authority's, and none that signs certificates.
//!
//! They are kept in a Secret of their own, [`JWT_KEYS_SECRET`], beside the authority's. A key is renewed long before it
//! expires, and a new one is published for a while before it signs, so that whoever verifies knows it by then. What the
//! old one signed verifies until that one expires.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::{KeyError, KeyKind, KeyType, PrivateKey, PublicKey};
use serde_json::{Value, json};

use crate::limits::{CLOCK_SKEW, JWT_KEY_LIFETIME, JWT_KEY_PREPARATION, JWT_KEY_RENEWAL, MAX_JWT_KEYS};
use crate::secret::SecretData;

/// The name of the Secret of the keys that sign JWT-SVIDs.
pub const JWT_KEYS_SECRET: &str = "lateen-jwt-svid-keys";
/// The type of that Secret.
pub const JWT_KEYS_SECRET_TYPE: &str = "lateen.io/jwt-svid-keys";

/// The Secret's one entry: a JSON array of keys, the newest last.
const ENTRY: &str = "keys.json";

/// A key that signs JWT-SVIDs, ECDSA on P-256. `Debug` shows no key.
pub struct JwtKey {
    id: String,
    key: PrivateKey,
    made: SystemTime,
    signs_from: SystemTime,
    expires: SystemTime,
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtKey({})", self.id)
    }
}

/// Why there are no keys. Nothing of a key is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtKeysError {
    /// The Secret's entry is absent, or is not what is kept there.
    #[error("{ENTRY}: {0}")]
    Damaged(&'static str),
    /// A key cannot be made, read or written.
    #[error("{ENTRY}")]
    Key(#[from] KeyError),
    /// There are too many.
    #[error("{ENTRY} has {0} keys, more than {MAX_JWT_KEYS}")]
    TooMany(usize),
}

impl JwtKey {
    fn generate(signs_from: SystemTime, now: SystemTime) -> Result<Self, JwtKeysError> {
        let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
        Ok(Self {
            id: key_id(key.public_key()),
            key,
            made: now,
            signs_from,
            expires: now + JWT_KEY_LIFETIME,
        })
    }

    /// `kid`: a hash of the public key, so that no two keys have the same.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What verifies its signatures.
    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// When nobody is to believe it any more. Whole seconds.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Whether it was made later than `now`, by more than clocks may differ.
    fn is_early(&self, now: SystemTime) -> bool {
        self.made > now + CLOCK_SKEW
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.key.sign(message)
    }

    fn write(&self) -> Result<Value, KeyError> {
        Ok(json!({
            "kid": self.id,
            "key": self.key.to_pem()?.as_str(),
            "made": seconds(self.made),
            "signsFrom": seconds(self.signs_from),
            "expires": seconds(self.expires),
        }))
    }

    fn read(value: &Value) -> Result<Self, JwtKeysError> {
        let moment = |field: &str| {
            let seconds = value[field].as_u64().map(Duration::from_secs);
            seconds.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since))
        };
        let text = |field: &str| value[field].as_str();
        let (Some(id), Some(pem)) = (text("kid"), text("key")) else {
            return Err(JwtKeysError::Damaged("a key lacks kid or key"));
        };
        let key = PrivateKey::from_pem(pem.as_bytes())?;
        if *key.public_key().kind() != KeyType::EcdsaP256 {
            return Err(JwtKeysError::Damaged("a key is not an ECDSA key on P-256"));
        }
        if key_id(key.public_key()) != id {
            return Err(JwtKeysError::Damaged("a kid is not its key's"));
        }
        let (Some(made), Some(signs_from), Some(expires)) =
            (moment("made"), moment("signsFrom"), moment("expires"))
        else {
            return Err(JwtKeysError::Damaged("a key lacks made, signsFrom or expires"));
        };
        Ok(Self {
            id: id.to_owned(),
            key,
            made,
            signs_from,
            expires,
        })
    }
}

/// The keys of one authority, the newest last.
#[derive(Clone, Debug)]
pub struct JwtKeys(Vec<Arc<JwtKey>>);

impl JwtKeys {
    /// The first key of an authority that has none. It signs at once.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate(now: SystemTime) -> Result<Self, JwtKeysError> {
        Self(Vec::new()).renewed(now)
    }

    /// The same with one more, and without those that have expired or were made under a clock that was ahead.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn renewed(&self, now: SystemTime) -> Result<Self, JwtKeysError> {
        let now = crate::x509::whole_second(now);
        let signs_from = match self.signing(now) {
            Some(_) => now + JWT_KEY_PREPARATION,
            None => now,
        };
        let mut keys: Vec<_> = self
            .valid(now)
            .filter(|key| !key.is_early(now))
            .cloned()
            .collect();
        keys.push(Arc::new(JwtKey::generate(signs_from, now)?));
        Ok(Self(keys))
    }

    /// When the next key is to be made, as it looks at `now`: at once, when none signs. Keys that were made under a clock
    /// that was ahead put nothing off.
    pub fn due(&self, now: SystemTime) -> SystemTime {
        let mut timely = self.0.iter().rev().filter(|key| !key.is_early(now));
        let newest = timely.next().filter(|_| self.signing(now).is_some());
        newest
            .and_then(|key| key.made.checked_add(JWT_KEY_RENEWAL))
            .unwrap_or(now)
    }

    /// The key that signs at `now`: the newest whose time has come.
    pub fn signing(&self, now: SystemTime) -> Option<&JwtKey> {
        let mut valid = self.0.iter().rev().filter(|key| now < key.expires);
        valid.find(|key| key.signs_from <= now).map(Arc::as_ref)
    }

    /// Every key that is to be believed at `now`, those included that will sign.
    pub fn valid(&self, now: SystemTime) -> impl Iterator<Item = &Arc<JwtKey>> {
        self.0.iter().filter(move |key| now < key.expires)
    }

    /// The Secret of these keys. It holds private keys.
    ///
    /// # Errors
    /// When a key cannot be written.
    pub fn to_secret(&self) -> Result<SecretData, KeyError> {
        let keys: Result<Vec<Value>, KeyError> = self.0.iter().map(|key| key.write()).collect();
        let text = Value::from(keys?).to_string();
        Ok(SecretData::from([(ENTRY.to_owned(), text.into_bytes())]))
    }

    /// Takes up the keys of a Secret.
    ///
    /// # Errors
    /// When anything is missing or damaged.
    pub fn from_secret(data: &SecretData) -> Result<Self, JwtKeysError> {
        let text = data.get(ENTRY).ok_or(JwtKeysError::Damaged("it is not there"))?;
        // The library's own error might quote what it has read.
        let value: Value =
            serde_json::from_slice(text).map_err(|_| JwtKeysError::Damaged("it is not JSON"))?;
        let values = value.as_array().ok_or(JwtKeysError::Damaged("it is no array"))?;
        if values.len() > MAX_JWT_KEYS {
            return Err(JwtKeysError::TooMany(values.len()));
        }
        let keys: Result<Vec<JwtKey>, JwtKeysError> = values.iter().map(JwtKey::read).collect();
        let mut keys: Vec<Arc<JwtKey>> = keys?.into_iter().map(Arc::new).collect();
        keys.sort_by_key(|key| key.made);
        Ok(Self(keys))
    }
}

/// 128 bits of the key's SHA-256, in base64url.
fn key_id(key: &PublicKey) -> String {
    let hash = digest::digest(&digest::SHA256, key.der());
    let part: Vec<u8> = hash.as_ref().iter().copied().take(16).collect();
    URL_SAFE_NO_PAD.encode(part)
}

/// Since 1970, as JWTs count.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

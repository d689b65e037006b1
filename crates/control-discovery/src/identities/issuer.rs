//! The keys of an issuer of JWTs: a JSON Web Key Set (RFC 7517), from a file or from the issuer's web server, where
//! OpenID Connect Discovery says where it is. It is looked at again and again, since issuers change keys.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use control_ca::{IssuerKeys, OidcError, OidcRules};
use serde_json::Value;

use super::web::{self, WebError};
use crate::limits;

/// Where the issuer says where its keys are (OpenID Connect Discovery 1.0, section 4).
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// Whose JWTs are worth an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Who it is, and for whom its tokens must be.
    pub rules: OidcRules,
    /// Where its public keys are.
    pub keys: KeysSource,
    /// A file with the authorities that its web server is verified by, in PEM.
    pub authorities: PathBuf,
}

/// Where an issuer's public keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysSource {
    /// In a file.
    File(PathBuf),
    /// At a URL, which begins with `https://`.
    Url(String),
    /// Where the issuer says.
    Discovery,
}

/// Why there are no keys, or no new ones.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error("the file cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("the file has more than {} bytes", limits::MAX_KEYS_BYTES)]
    TooLarge,
    #[error("{url}: {error}")]
    Web { url: String, error: WebError },
    #[error("{url} is of issuer {found:?}, where this one is expected")]
    OtherIssuer { url: String, found: String },
    #[error("{0} names no jwks_uri")]
    NoKeysNamed(String),
    #[error(transparent)]
    Content(#[from] OidcError),
}

/// Follows an issuer's keys, for ever. What cannot be read leaves those that were there.
pub(super) async fn follow(issuer: Issuer, keys: Arc<ArcSwap<Option<IssuerKeys>>>) {
    let (mut seen, mut told) = (Vec::new(), String::new());
    loop {
        let wait = match look(&issuer, &mut seen, &keys).await {
            Ok(()) => {
                told.clear();
                issuer.keys.interval()
            }
            Err(error) => {
                tell(&issuer.rules.issuer, &error, &mut told);
                limits::KEYS_POLL_INTERVAL
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Takes over the keys that are there now, unless they were `seen`.
async fn look(
    issuer: &Issuer,
    seen: &mut Vec<u8>,
    keys: &ArcSwap<Option<IssuerKeys>>,
) -> Result<(), KeysError> {
    let text = issuer.text().await?;
    if text == *seen {
        return Ok(());
    }
    let read = IssuerKeys::from_json(&text)?;
    tracing::info!(?read, issuer = issuer.rules.issuer, "keys of the issuer of JWTs");
    keys.store(Arc::new(Some(read)));
    *seen = text;
    Ok(())
}

impl KeysSource {
    /// How long what is there is believed.
    fn interval(&self) -> Duration {
        match self {
            Self::File(_) => limits::KEYS_POLL_INTERVAL,
            Self::Url(_) | Self::Discovery => limits::KEYS_FETCH_INTERVAL,
        }
    }
}

impl Issuer {
    async fn text(&self) -> Result<Vec<u8>, KeysError> {
        match &self.keys {
            KeysSource::File(path) => read(path),
            KeysSource::Url(url) => self.get(url).await,
            KeysSource::Discovery => self.get(&self.discover().await?).await,
        }
    }

    /// Where the issuer says that its keys are. It has to be the right issuer's word.
    async fn discover(&self) -> Result<String, KeysError> {
        let url = format!("{}{DISCOVERY_PATH}", self.rules.issuer.trim_end_matches('/'));
        let text = self.get(&url).await?;
        let said: Value =
            serde_json::from_slice(&text).map_err(|error| OidcError::Keys(error.to_string()))?;
        let found = said["issuer"].as_str().unwrap_or_default();
        if found != self.rules.issuer {
            let found = found.to_owned();
            return Err(KeysError::OtherIssuer { url, found });
        }
        let keys = said["jwks_uri"].as_str().map(str::to_owned);
        keys.ok_or(KeysError::NoKeysNamed(url))
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, KeysError> {
        let got = web::get(url, &self.authorities).await;
        let failed = |error| KeysError::Web {
            url: url.to_owned(),
            error,
        };
        got.map(|body| body.to_vec()).map_err(failed)
    }
}

/// Logs a failure unless it is the one that was logged last.
fn tell(issuer: &str, error: &KeysError, told: &mut String) {
    let error = error.to_string();
    if *told != error {
        tracing::error!(%error, issuer, "the keys of the issuer of JWTs are not taken");
        *told = error;
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeysError> {
    let mut text = Vec::new();
    let limit = limits::MAX_KEYS_BYTES;
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

    fn issuer(name: &str, keys: KeysSource, authorities: &Path) -> Issuer {
        Issuer {
            rules: OidcRules {
                issuer: name.to_owned(),
                audiences: Vec::new(),
            },
            keys,
            authorities: authorities.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_followed_and_broken_ones_leave_the_old_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let keys = Arc::new(ArcSwap::from_pointee(None));
        let issuer = issuer(
            "https://issuer.test",
            KeysSource::File(path.clone()),
            Path::new(""),
        );
        let following = tokio::spawn(follow(issuer, Arc::clone(&keys)));
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

    /// A web server with a certificate for `localhost`: its address, and its authority's file in `folder`.
    async fn web_server(folder: &Path, pages: fn(port: u16, path: &str) -> Option<String>) -> (u16, PathBuf) {
        let now = std::time::SystemTime::now();
        let authority = tls::CertificateAuthority::generate("web", now).unwrap();
        let issued = authority.issue_server(&["localhost"], now).unwrap();
        let acceptor = tls::server_acceptor(&issued.certificate_pem, &issued.key_pem, &["http/1.1"]).unwrap();
        let file = folder.join("web.pem");
        std::fs::write(&file, authority.certificate_pem()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let answer = move |request: hyper::Request<_>| async move {
                    let page: Option<String> = pages(port, request.uri().path());
                    drop::<hyper::Request<hyper::body::Incoming>>(request);
                    let status = if page.is_some() { 200 } else { 404 };
                    let answer = hyper::Response::builder().status(status);
                    answer.body(page.unwrap_or_default())
                };
                let served = hyper::server::conn::http1::Builder::new().serve_connection(
                    hyper_util::rt::TokioIo::new(stream),
                    hyper::service::service_fn(answer),
                );
                tokio::spawn(served);
            }
        });
        (port, file)
    }

    fn pages(port: u16, path: &str) -> Option<String> {
        let said = |issuer: &str| {
            format!(
                r#"{{"issuer": "https://localhost:{port}{issuer}", "jwks_uri": "https://localhost:{port}/keys"}}"#
            )
        };
        match path {
            "/keys" => Some(KEYS.to_owned()),
            "/.well-known/openid-configuration" => Some(said("")),
            "/other/.well-known/openid-configuration" => Some(said("")),
            "/mute/.well-known/openid-configuration" => {
                Some(format!(r#"{{"issuer": "https://localhost:{port}/mute"}}"#))
            }
            _ => None,
        }
    }

    #[tokio::test]
    async fn an_issuer_says_where_its_keys_are_and_what_it_should_not_say_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (port, file) = web_server(folder.path(), pages).await;
        let at = |path: &str| format!("https://localhost:{port}{path}");
        for (name, keys) in [
            (at(""), KeysSource::Discovery),
            (at("/"), KeysSource::Url(at("/keys"))),
        ] {
            let text = issuer(&name, keys, &file).text().await.unwrap();
            assert_eq!(text, KEYS.as_bytes());
        }
        let stranger = tls::CertificateAuthority::generate("other", std::time::SystemTime::now()).unwrap();
        let other = folder.path().join("other.pem");
        std::fs::write(&other, stranger.certificate_pem()).unwrap();
        let missing = folder.path().join("missing.pem");
        for (name, keys, authorities, reason) in [
            (
                at("/other"),
                KeysSource::Discovery,
                &file,
                "where this one is expected",
            ),
            (at("/mute"), KeysSource::Discovery, &file, "names no jwks_uri"),
            (at("/nowhere"), KeysSource::Discovery, &file, "answers 404"),
            (at(""), KeysSource::Discovery, &other, "TLS: "),
            (
                at(""),
                KeysSource::Discovery,
                &missing,
                "authorities of web servers",
            ),
            (
                format!("https://127.0.0.1:{port}"),
                KeysSource::Discovery,
                &file,
                "TLS: ",
            ),
            (
                at(""),
                KeysSource::Url(format!("http://localhost:{port}/keys")),
                &file,
                "is no URL",
            ),
        ] {
            let error = issuer(&name, keys, authorities)
                .text()
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}

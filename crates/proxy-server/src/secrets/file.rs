//! Secrets from a file: a discovery response in YAML, JSON or protobuf (`PathConfigSource`).

use std::io::Read as _;
use std::path::Path;
use std::rc::Rc;

use api_envoy::Message as _;
use api_envoy::envoy::service::discovery::v3::DiscoveryResponse;
use api_envoy::json::Schema;
use proxy_upstream::secrets::{SecretKey, SecretSource};

use super::{apply, only};
use crate::limits::SECRET_FILE_MAX_BYTES;
use crate::server::{Server, source};

/// Reads the file of a secret and puts in use what it holds. What cannot be used is counted and logged, and what was
/// read before stays.
pub(super) fn read(server: &Rc<Server>, key: &SecretKey) {
    let SecretSource::File { path, .. } = &key.source else {
        return;
    };
    let stats = server.secret_stats.of(&key.name);
    stats.asked(&server.shard);
    let response = match load(path) {
        Ok(response) => response,
        Err(error) => {
            stats.failed(&server.shard);
            tracing::warn!(path = %path.display(), %error, "cannot read a secret");
            return;
        }
    };
    match only(&response.resources) {
        // What became of it is counted and logged where it is applied.
        Ok(resource) => drop(apply(
            server,
            key,
            source(resource.clone(), &response.version_info),
        )),
        Err(error) => {
            stats.updated(&server.shard, &response.version_info, false);
            tracing::warn!(path = %path.display(), %error, "a file of a secret is refused");
        }
    }
}

/// Errors say nothing of what is in the file but where it is wrong.
fn load(path: &Path) -> Result<DiscoveryResponse, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(SECRET_FILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > SECRET_FILE_MAX_BYTES {
        return Err(format!("it is longer than {SECRET_FILE_MAX_BYTES} bytes"));
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("pb") => DiscoveryResponse::decode(&*bytes).map_err(|error| error.to_string()),
        _ => {
            let text = String::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
            Schema::get()
                .parse_yaml(&text)
                .map_err(|_| "it does not parse as a discovery response".to_owned())
        }
    }
}

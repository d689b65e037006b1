//! An organization that the mesh does not know: its authority, servers that it vouches for, and files that it hands to
//! its customers.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use control_ca::{Authority, SelfSigned};
use identity::{KeyKind, SubjectName};
use tls::ServerContext;
use tls::settings::DownstreamTlsContext;

use super::KeyPair;

/// The folder of its files, in the working directory of the proxy under test.
const FOLDER: &str = "partner";

/// How long its root is valid.
const ROOT_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The organization.
#[derive(Debug)]
pub struct Partner {
    authority: Authority,
}

impl Partner {
    /// One with a new authority.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Self> {
        let settings = SelfSigned {
            organization: FOLDER.to_owned(),
            key: KeyKind::EcdsaP256,
            lifetime: ROOT_LIFETIME,
        };
        let authority = Authority::self_signed(&settings, SystemTime::now())?;
        Ok(Self { authority })
    }

    /// Writes what a customer gets: `partner/ca.pem`, and `partner/client.pem` with `partner/client-key.pem`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_files(&self, directory: &Path) -> Result<()> {
        let customer = SubjectName::Dns("customer.partner.test".to_owned());
        let pair = KeyPair::issue(&self.authority, &[customer])?;
        let folder = directory.join(FOLDER);
        std::fs::create_dir_all(&folder)?;
        for (name, content) in [
            ("ca.pem", self.authority.roots_pem().as_str()),
            ("client.pem", &pair.chain),
            ("client-key.pem", &pair.key),
        ] {
            let file = folder.join(name);
            std::fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }

    /// A server with these DNS names, which may ask for the certificate of a customer.
    pub(crate) fn server(&self, names: &[String], demanding: bool) -> Result<ServerContext> {
        let names: Vec<_> = names.iter().cloned().map(SubjectName::Dns).collect();
        let pair = KeyPair::issue(&self.authority, &names)?;
        let mut common = pair.context(&self.authority.roots_pem(), &["http/1.1"]);
        if !demanding {
            common.validation_context = None;
        }
        let settings = DownstreamTlsContext {
            common,
            require_client_certificate: demanding,
            ..DownstreamTlsContext::default()
        };
        Ok(ServerContext::new(&settings, SystemTime::now())?)
    }
}

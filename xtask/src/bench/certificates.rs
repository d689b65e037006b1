//! Certificates for the contenders, made by openssl: an authority, a server and a client with SPIFFE ids, all P-256.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::output;

/// Who calls.
pub(super) const CLIENT_ID: &str = "spiffe://cluster.local/ns/default/sa/client";
/// Who is called.
pub(super) const SERVER_ID: &str = "spiffe://cluster.local/ns/default/sa/server";

/// A folder with `ca.crt`, and for `client` and `server` a certificate and a key each.
pub(super) fn make(dir: &Path) -> Result<PathBuf> {
    let folder = dir.join("certificates");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(
        &folder,
        &[
            &[
                "req", "-x509", "-days", "2", "-subj", "/O=bench", "-keyout", "ca.key", "-out", "ca.crt",
            ],
            &curve[..],
        ]
        .concat(),
    )?;
    for (who, id) in [("client", CLIENT_ID), ("server", SERVER_ID)] {
        let names = format!(
            "subjectAltName=critical,URI:{id},DNS:{who}.test\nextendedKeyUsage=serverAuth,clientAuth\n"
        );
        std::fs::write(folder.join("names"), names)?;
        let (key, request, certificate) = (format!("{who}.key"), format!("{who}.csr"), format!("{who}.crt"));
        openssl(
            &folder,
            &[
                &["req", "-new", "-subj", "/", "-keyout", &key, "-out", &request],
                &curve[..],
            ]
            .concat(),
        )?;
        openssl(
            &folder,
            &[
                "x509",
                "-req",
                "-days",
                "1",
                "-in",
                &request,
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-extfile",
                "names",
                "-out",
                &certificate,
            ],
        )?;
    }
    Ok(folder)
}

fn openssl(folder: &Path, arguments: &[&str]) -> Result<()> {
    output(Command::new("openssl").current_dir(folder).args(arguments)).map(drop)
}

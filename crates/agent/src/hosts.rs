//! The application's `/etc/hosts`: every service's names, from the control plane's name table (NDS).

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use api_envoy::istio::networking::nds::v1::NameTable;
use api_envoy::istio::networking::nds::v1::name_table::NameInfo;

use crate::limits::MAX_HOSTS_BYTES;

/// The registry whose names have Kubernetes' short forms.
pub(crate) const KUBERNETES: &str = "Kubernetes";

/// A hosts file that is rewritten in place, because the application's namespace has *this* file mounted.
#[derive(Debug)]
pub struct HostsFile {
    file: File,
    base: String,
    namespace: String,
}

impl HostsFile {
    /// Creates the file with the host's own entries, for a workload in `namespace`.
    ///
    /// # Errors
    /// What creating or writing the file reports.
    pub fn create(path: &Path, namespace: &str) -> io::Result<Self> {
        let base =
            std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1 localhost\n".to_owned());
        // The mode lets applications read it that run as another user inside.
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o644)
            .open(path)?;
        (&file).write_all(base.as_bytes())?;
        Ok(Self {
            file,
            base,
            namespace: namespace.to_owned(),
        })
    }

    /// Writes the names of the table. A reader in between sees the old or the new file: the new bytes go over the old
    /// ones in one write, and only then is the rest cut off.
    ///
    /// # Errors
    /// What writing reports, for instance a full disk.
    pub fn update(&self, table: &NameTable) -> io::Result<()> {
        let text = format!(
            "{}\n# Services of the mesh.\n{}",
            self.base.trim_end(),
            render(table, &self.namespace)
        );
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }
}

/// One line per address and service, with all names that an application in `namespace` may use.
#[must_use]
pub fn render(table: &NameTable, namespace: &str) -> String {
    let mut text = String::new();
    for (host, info) in &table.table {
        if host.contains('*') {
            continue;
        }
        let names = names(host, info, namespace);
        for address in &info.ips {
            if text.len() + names.len() > MAX_HOSTS_BYTES {
                tracing::warn!(
                    limit = MAX_HOSTS_BYTES,
                    "the hosts file is full, names are missing"
                );
                return text;
            }
            let _ = writeln!(text, "{address} {names}");
        }
    }
    text
}

/// `reviews.default.svc.cluster.local reviews.default.svc reviews.default reviews`, as Kubernetes' search list allows.
fn names(host: &str, info: &NameInfo, namespace: &str) -> String {
    let mut names = vec![host.to_owned()];
    if info.registry == KUBERNETES && !info.shortname.is_empty() {
        let NameInfo {
            shortname,
            namespace: own,
            ..
        } = info;
        names.extend([format!("{shortname}.{own}.svc"), format!("{shortname}.{own}")]);
        if own == namespace {
            names.push(shortname.clone());
        }
    }
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ip: &str) -> NameTable {
        let mut table = NameTable::default();
        let reviews = NameInfo {
            ips: vec![ip.to_owned()],
            registry: KUBERNETES.to_owned(),
            shortname: "reviews".to_owned(),
            namespace: "default".to_owned(),
            ..NameInfo::default()
        };
        table
            .table
            .insert("reviews.default.svc.cluster.local".to_owned(), reviews);
        let external = NameInfo {
            ips: vec!["240.240.0.1".to_owned()],
            ..NameInfo::default()
        };
        table.table.insert("api.example.com".to_owned(), external);
        table
    }

    #[test]
    fn a_service_has_its_short_name_in_its_own_namespace_only() {
        let own = render(&table("10.96.0.7"), "default");
        assert!(own.contains(
            "10.96.0.7 reviews.default.svc.cluster.local reviews.default.svc reviews.default reviews\n"
        ));
        assert!(own.contains("240.240.0.1 api.example.com\n"));
        let other = render(&table("10.96.0.7"), "books");
        assert!(other.contains(" reviews.default\n"), "{other}");
    }

    #[test]
    fn the_file_is_rewritten_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let file = HostsFile::create(&path, "default").unwrap();
        let mut opened_before = File::open(&path).unwrap();
        file.update(&table("10.96.255.254")).unwrap();
        file.update(&table("10.96.0.7")).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut opened_before, &mut text).unwrap();
        assert!(text.contains("10.96.0.7 reviews"), "{text}");
        assert!(text.contains("localhost"), "the host's own entries stay");
        assert!(
            text.ends_with("reviews\n") || text.ends_with("com\n"),
            "nothing of the longer version is left: {text}"
        );
    }
}

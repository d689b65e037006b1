//! Which virtual host an authority belongs to (`VirtualHost.domains`): exact, then the longest suffix wildcard, then the
//! longest prefix wildcard, then `*`.

use api_envoy::envoy::config::route::v3 as pb;
use foldhash::{HashMap, HashMapExt as _};
use proxy_core::{ConfigError, ConfigResult};
use smallvec::SmallVec;

type ByName = HashMap<Box<[u8]>, u32>;

/// The domains of a route configuration. Values are indexes of virtual hosts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Domains {
    exact: ByName,
    /// By the length of what follows the asterisk, longest first.
    suffixes: Vec<(usize, ByName)>,
    /// By the length of what precedes the asterisk, longest first.
    prefixes: Vec<(usize, ByName)>,
    any: Option<u32>,
    ignore_port: bool,
}

impl Domains {
    pub(crate) fn compile(proto: &pb::RouteConfiguration) -> ConfigResult<Self> {
        let mut this = Self {
            ignore_port: proto.ignore_port_in_host_matching,
            ..Self::default()
        };
        for (index, host) in proto.virtual_hosts.iter().enumerate() {
            if host.domains.is_empty() {
                return Err(ConfigError::at("domains", "must not be empty")
                    .index(index)
                    .within("virtual_hosts"));
            }
            for (number, domain) in host.domains.iter().enumerate() {
                this.insert(domain, index as u32).map_err(|e| {
                    e.index(number)
                        .within("domains")
                        .index(index)
                        .within("virtual_hosts")
                })?;
            }
        }
        for by_length in [&mut this.suffixes, &mut this.prefixes] {
            by_length.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        }
        Ok(this)
    }

    fn insert(&mut self, domain: &str, host: u32) -> ConfigResult<()> {
        let domain = domain.to_ascii_lowercase();
        let duplicate =
            || ConfigError::new(format!("only unique domains are permitted, {domain} comes twice"));
        let table = if domain == "*" {
            return match self.any.replace(host) {
                None => Ok(()),
                Some(_) => Err(ConfigError::new("only a single wildcard domain is permitted")),
            };
        } else if let Some(suffix) = domain.strip_prefix('*') {
            (of_length(&mut self.suffixes, suffix.len()), suffix)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            (of_length(&mut self.prefixes, prefix.len()), prefix)
        } else {
            (&mut self.exact, domain.as_str())
        };
        match table.0.insert(table.1.as_bytes().into(), host) {
            None => Ok(()),
            Some(_) => Err(duplicate()),
        }
    }

    /// The virtual host of an authority.
    pub(crate) fn find(&self, authority: &[u8]) -> Option<u32> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.any;
        }
        let authority = if self.ignore_port {
            without_port(authority)
        } else {
            authority
        };
        if authority.iter().any(u8::is_ascii_uppercase) {
            let mut folded: SmallVec<[u8; 128]> = SmallVec::from_slice(authority);
            folded.make_ascii_lowercase();
            self.find_folded(&folded)
        } else {
            self.find_folded(authority)
        }
    }

    fn find_folded(&self, host: &[u8]) -> Option<u32> {
        if let Some(found) = self.exact.get(host) {
            return Some(*found);
        }
        // A wildcard stands for at least one character.
        let suffix = self.suffixes.iter().filter(|(length, _)| *length < host.len());
        let suffix = suffix
            .filter_map(|(length, table)| table.get(&host[host.len() - length..]))
            .next();
        if suffix.is_some() {
            return suffix.copied();
        }
        let prefix = self.prefixes.iter().filter(|(length, _)| *length < host.len());
        let prefix = prefix
            .filter_map(|(length, table)| table.get(&host[..*length]))
            .next();
        prefix.copied().or(self.any)
    }
}

fn of_length(tables: &mut Vec<(usize, ByName)>, length: usize) -> &mut ByName {
    let at = tables.iter().position(|(l, _)| *l == length).unwrap_or_else(|| {
        tables.push((length, ByName::new()));
        tables.len() - 1
    });
    &mut tables[at].1
}

/// The authority without its port, which is all that follows the last colon outside brackets (Envoy,
/// `HeaderUtility::getPortStart`).
pub(crate) fn without_port(authority: &[u8]) -> &[u8] {
    match (memchr::memrchr(b':', authority), memchr::memrchr(b']', authority)) {
        (Some(colon), Some(bracket)) if bracket > colon => authority,
        (Some(colon), _) => &authority[..colon],
        (None, _) => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains(hosts: &[&[&str]], ignore_port: bool) -> ConfigResult<Domains> {
        let virtual_hosts = hosts.iter().map(|domains| pb::VirtualHost {
            domains: domains.iter().map(|d| (*d).to_owned()).collect(),
            ..Default::default()
        });
        Domains::compile(&pb::RouteConfiguration {
            virtual_hosts: virtual_hosts.collect(),
            ignore_port_in_host_matching: ignore_port,
            ..Default::default()
        })
    }

    #[test]
    fn exact_beats_suffix_beats_prefix_beats_any_and_longer_beats_shorter() {
        let hosts: &[&[&str]] = &[
            &["www.foo.com"],
            &["*.foo.com"],
            &["*-bar.foo.com"],
            &["www.*"],
            &["www.foo.*"],
            &["*"],
        ];
        let domains = domains(hosts, false).unwrap();
        let find = |host: &str| domains.find(host.as_bytes());
        assert_eq!(find("www.foo.com"), Some(0));
        assert_eq!(find("WWW.Foo.COM"), Some(0));
        assert_eq!(find("a.foo.com"), Some(1));
        assert_eq!(find("a-bar.foo.com"), Some(2));
        assert_eq!(find("www.bar.org"), Some(3));
        assert_eq!(find("www.foo.org"), Some(4));
        assert_eq!(
            find("foo.com"),
            Some(5),
            "a wildcard stands for at least one character"
        );
        assert_eq!(find(".foo.com"), Some(5));
        assert_eq!(find(""), Some(5));
    }

    #[test]
    fn the_port_counts_unless_it_is_ignored() {
        let hosts: &[&[&str]] = &[&["a.test"], &["*"]];
        assert_eq!(domains(hosts, false).unwrap().find(b"a.test:80"), Some(1));
        assert_eq!(domains(hosts, true).unwrap().find(b"a.test:80"), Some(0));
        assert_eq!(domains(hosts, true).unwrap().find(b"a.test:"), Some(0));
        let ipv6: &[&[&str]] = &[&["[::1]"]];
        assert_eq!(domains(ipv6, true).unwrap().find(b"[::1]:80"), Some(0));
        assert_eq!(domains(ipv6, true).unwrap().find(b"[::1]"), Some(0));
    }

    #[test]
    fn a_domain_may_come_once() {
        let error = domains(&[&["a.test"], &["A.test"]], false).unwrap_err();
        assert_eq!(error.path(), "virtual_hosts[1].domains[0]");
        assert!(domains(&[&["*"], &["*"]], false).is_err());
        assert!(domains(&[&["*.a"], &["*.a"]], false).is_err());
    }
}

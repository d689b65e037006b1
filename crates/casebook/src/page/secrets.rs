//! The block that makes Secrets and ConfigMaps of files, with the commands that a reader copies.
//!
//! ```text
//! kubectl create -n istio-system secret tls shop --cert=shop.crt --key=shop.key
//! kubectl create -n istio-system secret generic shop --from-file=cert=shop.crt --from-file=cacert=ca.crt
//! kubectl create -n istio-system configmap partners --from-file=ca.crt=partners.crt
//! ```
//!
//! A command that ends in `--dry-run=client -o yaml | kubectl apply -f -` replaces the object. The runner does not run
//! kubectl: it puts the same object.

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use crate::certificates::Files;

/// What makes of a command one that replaces.
const REPLACES: &str = " --dry-run=client -o yaml | kubectl apply -f -";

/// A Secret or ConfigMap, and the files that it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    namespace: String,
    name: String,
    /// The type of a Secret; `None` for a ConfigMap.
    secret: Option<&'static str>,
    /// Entry and file.
    entries: Vec<(String, String)>,
}

/// Parses a block.
pub(super) fn parse(text: &str) -> Result<Vec<Command>> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let commands = lines.map(|line| command(line).with_context(|| format!("`{line}`")));
    let commands: Vec<Command> = commands.collect::<Result<_>>()?;
    if commands.is_empty() {
        bail!("there is no command");
    }
    Ok(commands)
}

fn command(line: &str) -> Result<Command> {
    let line = line.strip_suffix(REPLACES).unwrap_or(line);
    let mut words = line.split_whitespace();
    if (words.next(), words.next()) != (Some("kubectl"), Some("create")) {
        bail!("expected `kubectl create -n NAMESPACE secret tls|generic NAME ...`, or `configmap NAME ...`");
    }
    let mut namespace = "default";
    let mut plain = Vec::new();
    let mut entries = Vec::new();
    while let Some(word) = words.next() {
        match word.split_once('=') {
            None if word == "-n" => namespace = words.next().context("-n needs a namespace")?,
            None if !word.starts_with('-') => plain.push(word),
            Some(("--cert", file)) => entries.push(("tls.crt".to_owned(), file.to_owned())),
            Some(("--key", file)) => entries.push(("tls.key".to_owned(), file.to_owned())),
            Some(("--from-file", entry)) => {
                let (name, file) = entry.split_once('=').unwrap_or((entry, entry));
                entries.push((name.to_owned(), file.to_owned()));
            }
            _ => bail!("{word} is not understood"),
        }
    }
    let (secret, name) = match plain.as_slice() {
        ["secret", "tls", name] => (Some("kubernetes.io/tls"), *name),
        ["secret", "generic", name] => (Some("Opaque"), *name),
        ["configmap", name] => (None, *name),
        _ => bail!("expected `secret tls NAME`, `secret generic NAME` or `configmap NAME`"),
    };
    if entries.is_empty() {
        bail!("the object would be empty");
    }
    Ok(Command {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        secret,
        entries,
    })
}

impl Command {
    /// The object, with the content of its files.
    ///
    /// # Errors
    /// The page makes no such file.
    pub fn object(&self, files: &Files) -> Result<Value> {
        let mut data = Map::new();
        for (entry, file) in &self.entries {
            data.insert(entry.clone(), files.read(file)?.into());
        }
        let metadata = json!({"name": self.name, "namespace": self.namespace});
        Ok(match self.secret {
            Some(kind) => json!({
                "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "stringData": data,
            }),
            None => json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_kubectl_reads_them() {
        let text = "kubectl create -n istio-system secret tls shop --cert=shop.crt --key=shop.key --dry-run=client -o yaml | kubectl apply -f -\n\
                    kubectl create secret generic both --from-file=cert=shop.crt --from-file=ca.crt\n\
                    kubectl create configmap roots --from-file=ca.crt=shop.crt";
        let commands = parse(text).expect("commands");
        assert_eq!(
            (commands[0].namespace.as_str(), commands[0].secret),
            ("istio-system", Some("kubernetes.io/tls"))
        );
        let entry = |name: &str, file: &str| (name.to_owned(), file.to_owned());
        assert_eq!(
            commands[0].entries,
            [entry("tls.crt", "shop.crt"), entry("tls.key", "shop.key")]
        );
        assert_eq!(
            commands[1].entries,
            [entry("cert", "shop.crt"), entry("ca.crt", "ca.crt")]
        );
        assert_eq!((commands[2].name.as_str(), commands[2].secret), ("roots", None));
    }

    #[test]
    fn other_commands_are_refused() {
        for text in [
            "",
            "kubectl delete secret shop",
            "kubectl create secret tls shop",
            "kubectl create secret tls shop --cert=a --force",
            "kubectl create secret docker-registry shop --cert=a",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

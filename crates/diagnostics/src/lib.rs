//! What is wrong with user input, where, why and how to mend it.
//!
//! A [`Diagnostic`] never stops a push: the part of the input that cannot be used is left out, the rest works, and the
//! diagnostic says what was left out. Codes are those of Istio's analysis messages, so that existing documentation and
//! tools recognise them.

mod catalogue;

pub use catalogue::{Code, Severity};

use std::fmt;

use serde::Serialize;

/// The Kubernetes object a diagnostic is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ResourceRef {
    /// The kind, for example `VirtualService`.
    pub kind: String,
    /// The namespace; empty for cluster-wide kinds.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl ResourceRef {
    /// A reference to the object of this kind, namespace and name.
    pub fn new(kind: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}.{}", self.kind, self.name, self.namespace)
        }
    }
}

/// One finding about one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// Which kind of problem this is.
    pub code: Code,
    /// How bad it is; usually the code's own severity.
    pub severity: Severity,
    /// The object at fault.
    pub resource: ResourceRef,
    /// The field at fault as a path (`spec.http[0].route[1].destination.host`), empty for the object as a whole.
    pub field: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// How to mend it, in one sentence; empty where nothing useful can be said.
    pub hint: String,
}

impl Diagnostic {
    /// A finding with the severity that its code has in the catalogue.
    pub fn new(code: Code, resource: ResourceRef, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            resource,
            field: String::new(),
            message: message.into(),
            hint: String::new(),
        }
    }

    /// The same finding, at a field.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// The same finding, with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Diagnostic {
    /// One line as `istioctl analyze` prints: `Error [IST0101] (VirtualService reviews.default) message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} [{}] ({}) ", self.severity, self.code.id(), self.resource)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_prints_as_one_line_with_code_resource_and_field() {
        let resource = ResourceRef::new("VirtualService", "default", "reviews");
        let diagnostic = Diagnostic::new(
            Code::ReferencedResourceNotFound,
            resource,
            "host ghost does not exist",
        )
        .at("spec.http[0].route[0].destination.host")
        .hint("create the Service");
        assert_eq!(
            diagnostic.to_string(),
            "Error [IST0101] (VirtualService reviews.default) spec.http[0].route[0].destination.host: \
             host ghost does not exist (create the Service)"
        );
    }
}

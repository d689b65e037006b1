//! CEL expressions of CRDs, compiled, with the functions that Kubernetes adds to CEL.
//!
//! Source: the Kubernetes documentation, "Validation rules" and "Common Expression Language in Kubernetes".

mod environment;
mod functions;
mod url;

use serde_json::Value;

use crate::status::Cause;

pub(crate) use environment::context;

/// One `x-kubernetes-validations` entry.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) program: cel::Program,
    pub(crate) source: Box<str>,
    pub(crate) message: Option<Box<str>>,
    pub(crate) message_expression: Option<cel::Program>,
    pub(crate) reason: &'static str,
    pub(crate) field_path: Box<str>,
    /// The rule mentions `oldSelf` and runs on updates only.
    pub(crate) is_transition: bool,
    /// `oldSelf` is an optional value and the rule runs on creates too.
    pub(crate) optional_old_self: bool,
}

/// Parses one entry of `x-kubernetes-validations`; `path` is its place in the CRD.
pub(crate) fn parse_rule(entry: &Value, path: &str) -> Result<Rule, Cause> {
    let source = entry["rule"].as_str().unwrap_or_default();
    if source.trim().is_empty() {
        return Err(Cause::required(format!("{path}.rule"), "rule is not specified"));
    }
    let program = compile(source, &format!("{path}.rule"))?;
    let message_expression = match entry["messageExpression"].as_str() {
        Some(expression) => Some(compile(expression, &format!("{path}.messageExpression"))?),
        None => None,
    };
    let mentions_old_self = program.references().has_variable("oldSelf");
    let optional_old_self = entry["optionalOldSelf"].as_bool().unwrap_or(false);
    Ok(Rule {
        is_transition: mentions_old_self && !optional_old_self,
        optional_old_self,
        program,
        source: source.into(),
        message: entry["message"].as_str().map(Into::into),
        message_expression,
        reason: reason(entry["reason"].as_str(), path)?,
        field_path: entry["fieldPath"]
            .as_str()
            .unwrap_or_default()
            .trim_start_matches('.')
            .into(),
    })
}

fn compile(source: &str, path: &str) -> Result<cel::Program, Cause> {
    let fail = |detail: String| Cause::invalid(path, &source.into(), format!("compilation failed: {detail}"));
    let program = environment::environment()
        .compile(source)
        .map_err(|error| fail(error.to_string()))?;
    let references = program.references();
    match references
        .functions()
        .into_iter()
        .find(|name| !environment::is_known(name))
    {
        Some(name) => Err(fail(format!(
            "undeclared reference to '{name}' (in container '')"
        ))),
        None => Ok(program),
    }
}

fn reason(name: Option<&str>, path: &str) -> Result<&'static str, Cause> {
    const REASONS: &[&str] = &[
        "FieldValueInvalid",
        "FieldValueForbidden",
        "FieldValueRequired",
        "FieldValueDuplicate",
    ];
    let Some(name) = name else { return Ok(REASONS[0]) };
    REASONS
        .iter()
        .find(|known| **known == name)
        .copied()
        .ok_or_else(|| {
            let supported: Vec<String> = REASONS.iter().map(|known| (*known).to_owned()).collect();
            Cause::not_supported(format!("{path}.reason"), &name.into(), &supported)
        })
}

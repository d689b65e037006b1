//! The CEL environment of Kubernetes: the standard library, the strings and lists extensions, and functions of its own.

use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, Expr};
use cel::parser::Macro;
use cel::{Context, Env};

use super::functions;

/// What `duration(x)` is compiled to: Go's notation is stricter and wider than the crate's.
pub(super) const GO_DURATION: &str = "k8s_duration";

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(build()));

/// The environment that rules are compiled with.
pub(super) fn environment() -> &'static Arc<Env> {
    &ENVIRONMENT
}

/// A fresh evaluation context with every function of Kubernetes in it.
pub(crate) fn context() -> Context<'static, 'static> {
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    functions::register(&mut context);
    context
}

fn build() -> Env {
    let mut env = Env::stdlib();
    let go_duration = Macro::global("duration", 1, |helper, _target, arguments| {
        Ok(arguments.pop().map(|argument| {
            helper.next_expr(Expr::Call(CallExpr {
                func_name: GO_DURATION.to_owned(),
                target: None,
                args: vec![argument],
            }))
        }))
    });
    let extended = cel::extensions::strings(&mut env)
        .and_then(|()| cel::extensions::lists(&mut env))
        .and_then(|()| env.add_macro(go_duration));
    if let Err(error) = extended {
        unreachable!("the extensions declare each function once: {error:?}");
    }
    env
}

/// Functions of the standard library and of the extensions, apart from operators.
const LIBRARY: &[&str] = &[
    "all",
    "bool",
    "bytes",
    "charAt",
    "contains",
    "distinct",
    "double",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "flatten",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "has",
    "hasValue",
    "indexOf",
    "int",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "map",
    "matches",
    "max",
    "min",
    "none",
    "of",
    "ofNonZeroValue",
    "optFlatMap",
    "optMap",
    "or",
    "orValue",
    "quote",
    "range",
    "replace",
    "reverse",
    "size",
    "slice",
    "sort",
    "split",
    "startsWith",
    "string",
    "substring",
    "timestamp",
    "trim",
    "type",
    "uint",
    "upperAscii",
    "value",
];

/// Whether a compiled call can be evaluated here.
pub(super) fn is_known(name: &str) -> bool {
    let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
    let simple = name.rsplit('.').next().unwrap_or(name);
    is_operator || LIBRARY.contains(&simple) || functions::NAMES.contains(&simple)
}

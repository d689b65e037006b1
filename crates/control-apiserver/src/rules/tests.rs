//! Rules as Istio and Gateway API write them.

use serde_json::json;

use super::*;
use crate::expressions::parse_rule;
use crate::schema::parse;

fn with_rule(schema: Value, rule: Value) -> Schema {
    let mut schema = schema;
    schema["x-kubernetes-validations"] = json!([rule]);
    parse(&schema, "schema").unwrap()
}

fn failures(schema: &Schema, value: Value, old: Option<Value>) -> Vec<String> {
    let mut causes = Vec::new();
    check(schema, &value, old.as_ref(), &mut causes);
    causes.iter().map(ToString::to_string).collect()
}

fn text_rule(rule: &str) -> Schema {
    with_rule(json!({"type": "string"}), json!({"rule": rule, "message": "no"}))
}

fn holds(rule: &str, value: &str) -> bool {
    failures(&text_rule(rule), json!(value), None).is_empty()
}

#[test]
fn durations_follow_go() {
    let rule = "duration(self) >= duration('1ms')";
    assert!(holds(rule, "1s"));
    assert!(!holds(rule, "1us"));
    assert_eq!(
        failures(&text_rule(rule), json!("1sfoo"), None),
        [
            "<nil>: Invalid value: \"string\": type conversion error from 'string' to 'google.protobuf.Duration' evaluating rule: no"
        ]
    );
}

#[test]
fn urls_are_taken_apart() {
    let rule = "url(self).getScheme() in ['http', 'https']";
    assert!(holds(rule, "https://example.org:80/x?y"));
    assert!(!holds(rule, "ftp://example.org"));
    assert!(!holds(rule, "not a url"));
    assert!(holds(
        "isURL(self) && url(self).getHostname() == '::1'",
        "http://[::1]:80/"
    ));
    assert!(holds(
        "url(self).getPort() == '80' && url(self).getEscapedPath() == '/a'",
        "http://h:80/a?b=c"
    ));
    assert!(holds("!isURL(self)", "../x"));
}

#[test]
fn strings_and_keys_have_their_functions() {
    assert!(holds(
        "self.startsWith('unix://') ? self.substring(7, 8) == '/' : true",
        "unix:///a"
    ));
    assert!(!holds(
        "self.startsWith('unix://') ? self.substring(7, 8) == '/' : true",
        "unix://a"
    ));
    assert!(holds("self.find('[0-9]+') == '42'", "a42b7"));
    let ports = with_rule(
        json!({"type": "object", "additionalProperties": {"type": "string"}}),
        json!({"rule": "self.all(key, 0 < int(key) && int(key) <= 65535)", "message": "port"}),
    );
    assert!(failures(&ports, json!({"80": "x"}), None).is_empty());
    assert_eq!(failures(&ports, json!({"70000": "x"}), None).len(), 1);
}

#[test]
fn absent_fields_are_seen_by_has() {
    let schema = with_rule(
        json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}),
        json!({"rule": "(has(self.a) ? 1 : 0) + (has(self.b) ? 1 : 0) <= 1", "message": "one of"}),
    );
    assert!(failures(&schema, json!({"a": "1"}), None).is_empty());
    assert_eq!(
        failures(&schema, json!({"a": "1", "b": "2"}), None),
        ["<nil>: Invalid value: \"object\": one of"]
    );
}

#[test]
fn transition_rules_run_on_updates_only() {
    let schema = with_rule(json!({"type": "integer"}), json!({"rule": "self >= oldSelf"}));
    assert!(failures(&schema, json!(1), None).is_empty());
    assert!(failures(&schema, json!(2), Some(json!(1))).is_empty());
    assert_eq!(
        failures(&schema, json!(1), Some(json!(2))),
        ["<nil>: Invalid value: \"integer\": failed rule: self >= oldSelf"]
    );
}

#[test]
fn an_unknown_function_is_refused_when_the_rule_is_read() {
    let entry = json!({"rule": "quantity(self).isGreaterThan(quantity('1'))"});
    let cause = parse_rule(&entry, "rules[0]").unwrap_err();
    assert!(cause.message.contains("undeclared reference to"), "{cause}");
}

#[test]
fn a_message_expression_is_computed() {
    let schema = with_rule(
        json!({"type": "integer"}),
        json!({"rule": "self < 3", "messageExpression": "'got ' + string(self)"}),
    );
    assert_eq!(
        failures(&schema, json!(5), None),
        ["<nil>: Invalid value: \"integer\": got 5"]
    );
}

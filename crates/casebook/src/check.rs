//! Compares what came of an exchange with what the page promises.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::DataPlane;
use crate::client::{Answer, Outcome};
use crate::page::traffic::{Exchange, Expectation, Expected, HeaderExpectation, Share};
use crate::upstream::{NAME_HEADER, Seen};

/// How far a share may be off, in standard deviations: about one false alarm in 300 000 comparisons.
const TOLERANCE_DEVIATIONS: f64 = 4.5;

/// An outcome and what the access log says of it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What the client saw.
    pub outcome: Outcome,
    /// Response flags, when the page asks for them.
    pub flags: Option<String>,
}

/// Whether the page asks for response flags.
pub fn wants_flags(exchange: &Exchange) -> bool {
    exchange
        .expectations
        .iter()
        .any(|expectation| matches!(expectation.what, Expected::Flags(_)))
}

/// What is not as promised, as sentences.
pub fn problems(exchange: &Exchange, data_plane: DataPlane, observed: &[Observed]) -> Vec<String> {
    let mut problems = Vec::new();
    for expectation in applicable(&exchange.expectations, data_plane) {
        let mut found = Vec::new();
        for one in observed {
            found.extend(single(&expectation.what, one));
        }
        if let Expected::Answer { from, .. } = &expectation.what {
            found.extend(shares(from, observed));
        }
        found.sort();
        found.dedup();
        problems.extend(
            found
                .into_iter()
                .map(|problem| format!("line {}: {problem}", expectation.line)),
        );
    }
    problems
}

/// The expectations for a data plane; one that names it replaces those of the same sort that name none.
fn applicable(all: &[Expectation], data_plane: DataPlane) -> Vec<&Expectation> {
    let own = |other: &Expectation| other.only == Some(data_plane);
    let sort = |expectation: &Expectation| std::mem::discriminant(&expectation.what);
    let replaced = |expectation: &Expectation| {
        all.iter().any(|other| {
            own(other) && (sort(other) == sort(expectation) || closes(other) || closes(expectation))
        })
    };
    all.iter()
        .filter(|expectation| own(expectation) || (expectation.only.is_none() && !replaced(expectation)))
        .collect()
}

fn closes(expectation: &Expectation) -> bool {
    expectation.what == Expected::Closed
}

fn single(expected: &Expected, observed: &Observed) -> Vec<String> {
    let answer = match (&observed.outcome.answer, expected) {
        (Err(_), Expected::Closed) => return Vec::new(),
        (Ok(answer), Expected::Closed) => {
            return vec![format!("the connection should end, but was {}", brief(answer))];
        }
        (Err(error), Expected::Time(..) | Expected::Flags(_)) => {
            return vec![format!("no answer: {error}")];
        }
        (Err(error), _) => return vec![format!("no answer: {error}")],
        (Ok(answer), _) => answer,
    };
    match expected {
        Expected::Answer { status, headers, .. } => {
            let mut problems = Vec::new();
            if answer.status != *status {
                problems.push(format!(
                    "status {status} was expected, but it was {}",
                    brief(answer)
                ));
            }
            problems.extend(header_problems("the answer", &answer.headers, headers));
            problems
        }
        Expected::Upstream {
            method,
            path,
            authority,
            headers,
        } => upstream(answer, method, path, authority, headers),
        Expected::Certificate(file) if answer.certificate.as_ref() == Some(file) => Vec::new(),
        Expected::Certificate(file) => vec![match &answer.certificate {
            Some(other) => format!("the server should show {file}, but shows {other}"),
            None => format!("the server should show {file}, but shows something else, or nothing"),
        }],
        Expected::Text(text) if is_like(&answer.body, text) => Vec::new(),
        Expected::Text(text) => vec![format!("{text:?} was expected, but it was {}", brief(answer))],
        Expected::Flags(flags) => match &observed.flags {
            Some(seen) if seen == flags => Vec::new(),
            Some(seen) => vec![format!(
                "flag {flags} was expected, but the access log says {seen}"
            )],
            None => vec![format!(
                "flag {flags} was expected, but the access log has no line"
            )],
        },
        Expected::Time(from, to) => time(*from, *to, observed.outcome.elapsed),
        Expected::Closed => Vec::new(),
    }
}

/// Whether a text is the expected one, in which each `*` stands for anything.
fn is_like(text: &str, expected: &str) -> bool {
    let mut parts = expected.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn time(from: Duration, to: Duration, elapsed: Duration) -> Vec<String> {
    if (from..=to).contains(&elapsed) {
        return Vec::new();
    }
    vec![format!("it took {elapsed:.0?}, which is not in {from:?}..{to:?}")]
}

/// An answer in a few words.
fn brief(answer: &Answer) -> String {
    let from = named(answer)
        .map(|name| format!(" from {name}"))
        .unwrap_or_default();
    let body: String = answer.body.chars().take(120).collect();
    match answer.status {
        0 => format!("{body:?}"),
        status => format!("{status}{from} with body {body:?}"),
    }
}

/// Who answered: an HTTP upstream says it in a header, a TCP upstream with its first word.
fn named(answer: &Answer) -> Option<&str> {
    if answer.status == 0 {
        return answer.body.split_whitespace().next();
    }
    answer
        .headers
        .iter()
        .find(|(name, _)| name == NAME_HEADER)
        .map(|(_, value)| value.as_str())
}

fn header_problems(whose: &str, headers: &[(String, String)], expected: &[HeaderExpectation]) -> Vec<String> {
    let mut problems = Vec::new();
    for HeaderExpectation { name, value } in expected {
        let values: Vec<&str> = headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .collect();
        let seen = values.join(", ");
        match value {
            None if !values.is_empty() => {
                problems.push(format!("{whose} has {name}: {seen}, which should be absent"))
            }
            Some(value) if values.is_empty() => problems.push(format!("{whose} lacks {name}: {value}")),
            Some(value) if value != "*" && seen != *value => {
                problems.push(format!("{whose} has {name}: {seen} instead of {value}"));
            }
            _ => {}
        }
    }
    problems
}

fn upstream(
    answer: &Answer,
    method: &str,
    path: &str,
    authority: &str,
    headers: &[HeaderExpectation],
) -> Vec<String> {
    let Ok(seen) = serde_json::from_str::<Seen>(&answer.body) else {
        return vec![format!(
            "no upstream received it: the answer was {}",
            brief(answer)
        )];
    };
    let mut problems = Vec::new();
    if seen.method != method || seen.path != path {
        problems.push(format!(
            "the upstream received {} {} instead of {method} {path}",
            seen.method, seen.path
        ));
    }
    if !authority.is_empty() && seen.authority != authority {
        problems.push(format!(
            "the upstream received the host {} instead of {authority}",
            seen.authority
        ));
    }
    problems.extend(header_problems(
        "the request at the upstream",
        &seen.headers,
        headers,
    ));
    problems
}

/// Who answered, and how often.
fn shares(expected: &[(String, Option<Share>)], observed: &[Observed]) -> Vec<String> {
    if expected.is_empty() {
        return Vec::new();
    }
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let answers = observed.iter().filter_map(|one| one.outcome.answer.as_ref().ok());
    for answer in answers {
        *seen.entry(named(answer).unwrap_or("nobody")).or_default() += 1;
    }
    let total = f64::from(seen.values().sum::<u32>());
    let mut problems = Vec::new();
    for name in seen
        .keys()
        .filter(|name| !expected.iter().any(|(expected, _)| expected == *name))
    {
        problems.push(format!("{name} answered, which was not expected"));
    }
    for (name, share) in expected {
        let count = f64::from(seen.get(name.as_str()).copied().unwrap_or_default());
        match share {
            None if count == 0.0 => problems.push(format!("{name} never answered")),
            None => {}
            Some(Share::Count(wanted)) if count == f64::from(*wanted) => {}
            Some(Share::Count(wanted)) => {
                problems.push(format!("{name} answered {count} requests instead of {wanted}"));
            }
            Some(Share::Percent(percent)) => {
                let share = percent / 100.0;
                let deviation = (share * (1.0 - share) / total.max(1.0)).sqrt();
                if (count / total.max(1.0) - share).abs() > TOLERANCE_DEVIATIONS * deviation {
                    let part = 100.0 * count / total.max(1.0);
                    problems.push(format!(
                        "{name} answered {part:.1} % of {total} requests instead of {percent} %"
                    ));
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Page;
    use crate::page::{Action, Step};

    fn exchange(text: &str) -> Exchange {
        let page = Page::parse(&format!("# T\n```traffic\n{text}\n```\n")).expect("page");
        match page.steps.into_iter().next() {
            Some(Step {
                action: Action::Traffic(mut exchanges),
                ..
            }) => exchanges.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn answer(status: u16, upstream: &str, millis: u64) -> Observed {
        let seen = Seen {
            upstream: upstream.into(),
            method: "GET".into(),
            path: "/a".into(),
            authority: "reviews".into(),
            headers: vec![("x-a".into(), "1".into())],
        };
        let answer = Answer {
            status,
            headers: vec![(NAME_HEADER.into(), upstream.into()), ("x-b".into(), "2".into())],
            body: serde_json::to_string(&seen).expect("JSON"),
            certificate: None,
        };
        Observed {
            outcome: Outcome {
                answer: Ok(answer),
                elapsed: Duration::from_millis(millis),
            },
            flags: Some("-".into()),
        }
    }

    fn check(text: &str, observed: &[Observed], expected: &[&str]) {
        let exchange = exchange(&format!("GET http://reviews/\n{text}"));
        let found = problems(&exchange, DataPlane::Lateen, observed);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found} should say {expected}");
        }
    }

    #[test]
    fn an_answer_as_promised_has_no_problem() {
        let text = "=> 200 from v1\n  x-b: 2\n  - x-c\n=> upstream GET /a reviews\n  x-a: *\n=> flag -\n=> in 5ms..20ms";
        check(text, &[answer(200, "v1", 10)], &[]);
    }

    #[test]
    fn every_difference_is_named() {
        check("=> 201", &[answer(200, "v1", 0)], &["status 201 was expected"]);
        check(
            "=> 200 from v2",
            &[answer(200, "v1", 0)],
            &["v1 answered", "v2 never answered"],
        );
        check(
            "=> 200\n  x-b: 3\n  - x-b",
            &[answer(200, "v1", 0)],
            &["x-b: 2 instead of 3", "should be absent"],
        );
        check(
            "=> upstream GET /b",
            &[answer(200, "v1", 0)],
            &["received GET /a instead of GET /b"],
        );
        check("=> flag NC", &[answer(200, "v1", 0)], &["says -"]);
        check("=> in 1s..2s", &[answer(200, "v1", 10)], &["not in 1s..2s"]);
        check("=> closed", &[answer(200, "v1", 0)], &["should end"]);
    }

    #[test]
    fn shares_are_compared_within_chance() {
        let observed: Vec<_> = (0..400)
            .map(|n| answer(200, if n % 4 == 0 { "v1" } else { "v2" }, 0))
            .collect();
        check("=> 200 from 25% v1 75% v2", &observed, &[]);
        check("=> 200 from 30% v1 70% v2", &observed, &[]);
        check(
            "=> 200 from 50% v1 50% v2",
            &observed,
            &["v1 answered 25.0 %", "v2 answered 75.0 %"],
        );
    }

    #[test]
    fn a_tcp_upstream_is_known_by_its_first_word() {
        let said = |name: &str| Observed {
            outcome: Outcome {
                answer: Ok(Answer {
                    status: 0,
                    headers: Vec::new(),
                    body: format!("{name} hi"),
                    certificate: None,
                }),
                elapsed: Duration::ZERO,
            },
            flags: None,
        };
        let exchange = exchange("TCP a:1 \"hi\" x2\n=> from 1x v1 1x v2");
        let found = |observed: &[Observed]| problems(&exchange, DataPlane::Lateen, observed);
        assert_eq!(found(&[said("v1"), said("v2")]), [""; 0]);
        assert_eq!(
            found(&[said("v2"), said("v2")]),
            [
                "line 4: v1 answered 0 requests instead of 1",
                "line 4: v2 answered 2 requests instead of 1",
            ]
        );
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (expected, alike) in [
            ("a b c", true),
            ("a*c", true),
            ("*", true),
            ("*b*", true),
            ("a b c*", true),
            ("a", false),
            ("*b", false),
            ("a*d*c", false),
            ("a b c*c", false),
        ] {
            assert_eq!(is_like("a b c", expected), alike, "{expected}");
        }
    }

    #[test]
    fn numbers_are_compared_exactly() {
        let observed: Vec<_> = (0..4)
            .map(|n| answer(200, if n == 0 { "v1" } else { "v2" }, 0))
            .collect();
        let check = |text: &str, expected: &[&str]| {
            let exchange = exchange(&format!("GET http://reviews/ x4\n{text}"));
            assert_eq!(problems(&exchange, DataPlane::Lateen, &observed), expected);
        };
        check("=> 200 from 1x v1 3x v2", &[]);
        check(
            "=> 200 from 2x v1 2x v2",
            &[
                "line 4: v1 answered 1 requests instead of 2",
                "line 4: v2 answered 3 requests instead of 2",
            ],
        );
    }

    #[test]
    fn a_difference_of_data_planes_replaces_the_common_promise() {
        check(
            "=> 200\n=> on lateen 500 because of a reason",
            &[answer(500, "v1", 0)],
            &[],
        );
        check(
            "=> 200\n=> on envoy 500 because of a reason",
            &[answer(200, "v1", 0)],
            &[],
        );
        check(
            "=> 200\n=> on lateen closed because of a reason",
            &[answer(200, "v1", 0)],
            &["should end"],
        );
    }
}

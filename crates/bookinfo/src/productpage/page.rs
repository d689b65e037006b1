//! The HTML of the shop.

use std::fmt::Write;

use serde_json::Value;

use super::{DESCRIPTION_HTML, TITLE};

/// The most stars that a rating has.
const MAX_STARS: u64 = 5;

pub(crate) const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#222}\
nav{background:#222;color:#fff;padding:.7rem 1.5rem;display:flex;justify-content:space-between}\
nav a,nav button{color:#fff;background:none;border:1px solid #777;border-radius:4px;padding:.1rem .6rem}\
nav input{width:8rem}main{max-width:60rem;margin:2rem auto;padding:0 1rem}\
.columns{display:flex;gap:3rem;flex-wrap:wrap}.columns section{flex:1;min-width:18rem}\
blockquote{margin:0 0 1.2rem;padding-left:1rem;border-left:3px solid #ccc}small{color:#666}font{font-size:1.3rem}";

/// The page with everything on it.
pub(crate) fn render(user: Option<&str>, instance: &str, details: &Value, reviews: &Value) -> String {
    let mut html = head(TITLE);
    html.push_str("<nav><span>BookInfo Sample</span>");
    match user {
        Some(user) => {
            let _ = write!(html, "<span>{} (<a href=\"/logout\">sign out</a>)</span>", escape(user));
        }
        None => html.push_str(
            "<form method=\"post\" action=\"/login\"><input name=\"username\" placeholder=\"User Name\">\
             <input name=\"passwd\" type=\"password\" placeholder=\"Password\"> <button>Sign in</button></form>",
        ),
    }
    let _ = write!(
        html,
        "</nav><main><h1>{TITLE}</h1><p>{DESCRIPTION_HTML}</p><div class=\"columns\">"
    );
    details_section(&mut html, details);
    reviews_section(&mut html, reviews);
    let _ = write!(html, "</div><small>Page served by {}</small>", escape(instance));
    html.push_str("</main></body></html>\n");
    html
}

/// The page at `/`.
pub(crate) fn index() -> String {
    let mut html = head("Bookinfo");
    html.push_str(
        "<main><h1>Bookinfo</h1><p>A bookshop of five services, to see a service mesh at work. \
         <a href=\"/productpage\">Open the product page</a>.</p></main></body></html>\n",
    );
    html
}

fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <link rel=\"stylesheet\" href=\"/static/style.css\"></head><body>"
    )
}

fn details_section(html: &mut String, details: &Value) {
    html.push_str("<section><h2>Book Details</h2>");
    if let Some(apology) = details["error"].as_str() {
        let _ = write!(
            html,
            "<h3>Error fetching product details!</h3><p>{}</p></section>",
            escape(apology)
        );
        return;
    }
    html.push_str("<dl>");
    let rows = [
        ("Type", "type"),
        ("Pages", "pages"),
        ("Publisher", "publisher"),
        ("Language", "language"),
        ("ISBN-10", "ISBN-10"),
        ("ISBN-13", "ISBN-13"),
    ];
    for (label, key) in rows {
        let _ = write!(html, "<dt>{label}:</dt><dd>{}</dd>", text(&details[key]));
    }
    html.push_str("</dl></section>");
}

fn reviews_section(html: &mut String, reviews: &Value) {
    html.push_str("<section><h2>Book Reviews</h2>");
    if let Some(apology) = reviews["error"].as_str() {
        let _ = write!(
            html,
            "<h3>Error fetching product reviews!</h3><p>{}</p></section>",
            escape(apology)
        );
        return;
    }
    for review in reviews["reviews"].as_array().into_iter().flatten() {
        let _ = write!(html, "<blockquote><p>{}</p>", text(&review["text"]));
        let _ = write!(html, "<small>{}</small>", text(&review["reviewer"]));
        rating(html, &review["rating"]);
        html.push_str("</blockquote>");
    }
    let _ = write!(
        html,
        "<p>Reviews served by:<br><u>{}</u>",
        text(&reviews["podname"])
    );
    if let Some(cluster) = reviews["clustername"].as_str() {
        let _ = write!(html, " <small>on cluster</small> <u>{}</u>", escape(cluster));
    }
    html.push_str("</p></section>");
}

fn rating(html: &mut String, rating: &Value) {
    if let Some(apology) = rating["error"].as_str() {
        let _ = write!(html, "<p><i>{}</i></p>", escape(apology));
    } else if let Some(stars) = rating["stars"].as_u64() {
        let stars = stars.min(MAX_STARS);
        let _ = write!(html, "<p><font color=\"{}\">", text(&rating["color"]));
        for number in 0..MAX_STARS {
            html.push_str(if number < stars { "\u{2605}" } else { "\u{2606}" });
        }
        html.push_str("</font></p>");
    }
}

/// A JSON value as text: strings without quotes, nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape(text),
        other => escape(&other.to_string()),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn stars_have_the_color_of_their_version() {
        let reviews = json!({ "podname": "reviews-v3", "reviews": [
            { "reviewer": "Reviewer1", "text": "Good", "rating": { "stars": 4, "color": "red" } },
        ] });
        let html = render(None, "productpage-v1", &json!({}), &reviews);
        assert!(html.contains("<font color=\"red\">★★★★☆</font>"), "{html}");
        assert!(html.contains("<u>reviews-v3</u>"));
    }

    #[test]
    fn missing_parts_are_apologised_for() {
        let apology = "Sorry, product reviews are currently unavailable for this book.";
        let html = render(
            None,
            "productpage-v1",
            &json!({ "type": "paperback" }),
            &json!({ "error": apology }),
        );
        assert!(html.contains(apology));
        assert!(html.contains("paperback"));
    }

    #[test]
    fn a_user_cannot_write_html() {
        let html = render(Some("<script>"), "productpage-v1", &json!({}), &json!({}));
        assert!(html.contains("&lt;script&gt;"));
        assert!(!html.contains("<script>"));
    }
}

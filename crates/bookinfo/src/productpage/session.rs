//! Who is signed in: a cookie with the user's name, percent-encoded.
//!
//! The sample signs its cookie; here nothing depends on the name but which version of reviews answers.

use hyper::HeaderMap;
use hyper::header::COOKIE;

const COOKIE_NAME: &str = "session";

/// The signed-in user.
pub(crate) fn user(headers: &HeaderMap) -> Option<String> {
    let cookies = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = cookies
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == COOKIE_NAME)?;
    let user = percent_decode(value);
    (!user.is_empty()).then_some(user)
}

/// The `set-cookie` value that signs a user in.
pub(crate) fn cookie(user: &str) -> String {
    format!(
        "{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Lax",
        percent_encode(user)
    )
}

/// The `set-cookie` value that signs the user out.
pub(crate) fn clear() -> String {
    format!("{COOKIE_NAME}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0")
}

/// The field `username` of a form (`application/x-www-form-urlencoded`).
pub(crate) fn username(form: &[u8]) -> Option<String> {
    let form = std::str::from_utf8(form).ok()?;
    let (_, value) = form
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == "username")?;
    let user = percent_decode(&value.replace('+', " "));
    (!user.trim().is_empty()).then(|| user.trim().to_owned())
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn percent_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) if byte == b'%' => {
                decoded.push(value);
                rest = &after[2..];
            }
            _ => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_survives_form_and_cookie() {
        let user_name = username(b"username=jason+b%C3%A9&passwd=x").unwrap();
        assert_eq!(user_name, "jason b\u{e9}");
        let mut headers = HeaderMap::new();
        let pair = cookie(&user_name).split(';').next().unwrap().to_owned();
        headers.insert(COOKIE, format!("theme=dark; {pair}").parse().unwrap());
        assert_eq!(user(&headers).as_deref(), Some("jason b\u{e9}"));
    }

    #[test]
    fn nobody_is_signed_in_without_a_name() {
        assert_eq!(username(b"passwd=x"), None);
        assert_eq!(username(b"username=+"), None);
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, "session=".parse().unwrap());
        assert_eq!(user(&headers), None);
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%zz%4"), "%zz%4");
    }
}

//! Lines as the other side of a drain wants them. Pure.
//!
//! Each is counted in octets (RFC 6587 §3.4.1). Syslog has RFC 5424 in full; Heroku's log drains leave out its
//! structured data, and call every host `host`, so programs that read them expect just that.

use std::io::Write;

use aws_lc_rs::digest::{SHA256, digest};

use crate::model::{AppName, DrainUrl, Id};
use crate::telemetry::Line;

/// What the other side reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// RFC 5424. The host is the app's name.
    Syslog,
    /// `application/logplex-1`.
    Logplex,
}

/// Appends a line.
pub(super) fn put(out: &mut Vec<u8>, form: Form, app: &AppName, line: &Line) {
    let (source, process) = line.origin();
    let (stamp, message) = line.parts();
    put_parts(out, form, app, stamp, (source, process), message);
}

/// Appends what is said of the drain itself: `heroku[logplex]`.
pub(super) fn put_own(out: &mut Vec<u8>, form: Form, app: &AppName, stamp: &[u8], message: &str) {
    put_parts(out, form, app, stamp, ("heroku", "logplex"), message.as_bytes());
}

fn put_parts(
    out: &mut Vec<u8>,
    form: Form,
    app: &AppName,
    stamp: &[u8],
    (source, process): (&str, &str),
    message: &[u8],
) {
    let mut text = Vec::with_capacity(80 + message.len());
    let priority = priority(source, process, message);
    let host = match form {
        Form::Syslog => app.as_str(),
        Form::Logplex => "host",
    };
    let [source, process] = [source, process].map(|it| if it.is_empty() { "-" } else { it });
    // Writing to a Vec does not fail.
    let _ = write!(text, "<{priority}>1 ");
    text.extend_from_slice(stamp);
    let _ = write!(text, " {host} {source} {process} - ");
    match form {
        Form::Syslog => {
            text.extend_from_slice(b"- ");
            text.extend_from_slice(message);
        }
        Form::Logplex => {
            text.extend_from_slice(message);
            text.push(b'\n');
        }
    }
    let _ = write!(out, "{} ", text.len());
    out.extend_from_slice(&text);
}

/// Facility and severity, as Heroku's drains have them: local7.info for apps, local3.info for the router,
/// local0.info for figures, local5.warning for losses, syslog.notice for everything else.
fn priority(source: &str, process: &str, message: &[u8]) -> u8 {
    match (source, process) {
        ("app", _) => 190,
        (_, "router") => 158,
        (_, "logplex") => 172,
        _ if message.starts_with(b"source=") => 134,
        _ => 45,
    }
}

/// By what the other side can tell a drain from others: `d.` and a number in a UUID's clothes, the same for as long
/// as the app and the URL are.
pub fn token(app: &AppName, url: &DrainUrl) -> String {
    let digest = digest(&SHA256, format!("{app}\0{}", url.as_str()).as_bytes());
    let (id, _) = digest.as_ref().split_first_chunk().expect("a digest has more than 16 bytes");
    format!("d.{}", Id::of_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: Form, line: &str, expected: &str) {
        let text = format!("2026-11-21T01:44:50.123456+00:00 {line}").into_bytes().into();
        let mut out = Vec::new();
        put(&mut out, form, &AppName::parse("shop").unwrap(), &Line { number: 1, text });
        let out = String::from_utf8(out).unwrap();
        let (length, text) = out.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), text.len());
        assert_eq!(text, expected);
    }

    #[test]
    fn syslog_is_rfc_5424() {
        check(
            Form::Syslog,
            "app[web.1]: Listening on 5000",
            "<190>1 2026-11-21T01:44:50.123456+00:00 shop app web.1 - - Listening on 5000",
        );
        check(
            Form::Syslog,
            "heroku[router]: at=info",
            "<158>1 2026-11-21T01:44:50.123456+00:00 shop heroku router - - at=info",
        );
    }

    #[test]
    fn https_is_what_heroku_sends() {
        check(
            Form::Logplex,
            "heroku[web.1]: State changed from starting to up",
            "<45>1 2026-11-21T01:44:50.123456+00:00 host heroku web.1 - State changed from starting to up\n",
        );
        check(
            Form::Logplex,
            "heroku[web.1]: source=web.1 sample#load_avg_1m=0.1",
            "<134>1 2026-11-21T01:44:50.123456+00:00 host heroku web.1 - source=web.1 sample#load_avg_1m=0.1\n",
        );
    }

    #[test]
    fn a_token_belongs_to_an_app_and_a_url() {
        let (shop, blog) = (AppName::parse("shop").unwrap(), AppName::parse("blog").unwrap());
        let url = |text| DrainUrl::parse(text).unwrap();
        let of_shop = token(&shop, &url("https://a.test/x"));
        assert_eq!(of_shop, token(&shop, &url("https://a.test/x")));
        assert_ne!(of_shop, token(&blog, &url("https://a.test/x")));
        assert_ne!(of_shop, token(&shop, &url("https://a.test/y")));
        assert!(of_shop.starts_with("d.") && of_shop.len() == 38, "{of_shop}");
    }
}

//! Parts of lists, as Heroku's Platform API has them (Platform API reference, Ranges):
//! `Range: version ]15..; max=5, order=desc` asks for five that come after 15.

use axum::Json;
use axum::http::header::{ACCEPT_RANGES, CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde_json::Value;

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Part {
    /// Begins here, or just behind it.
    from: Option<(u64, Begin)>,
    max: Option<usize>,
    ascending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    At,
    Behind,
}

impl Part {
    /// What a request asks for. What cannot be understood asks for nothing in particular.
    pub(in crate::control) fn of(headers: &HeaderMap, property: &str) -> Self {
        let range = headers.get(RANGE).and_then(|it| it.to_str().ok()).unwrap_or_default();
        Self::parse(range, property)
    }

    fn parse(range: &str, property: &str) -> Self {
        let Some(range) = range.trim().strip_prefix(property) else { return Self::default() };
        let (bounds, options) = range.split_once(';').unwrap_or((range, ""));
        let first = bounds.split("..").next().unwrap_or_default().trim();
        let from = match first.strip_prefix(']') {
            Some(behind) => behind.parse().ok().map(|number| (number, Begin::Behind)),
            None => first.parse().ok().map(|number| (number, Begin::At)),
        };
        let mut part = Self { from, ..Self::default() };
        for option in options.split([';', ',']) {
            match option.trim().split_once('=') {
                Some(("max", max)) => part.max = max.parse().ok(),
                Some(("order", order)) => part.ascending = order == "asc",
                _ => {}
            }
        }
        part
    }

    /// The answer: this part of a list that begins with the highest number, and by what the next is asked for.
    pub(in crate::control) fn answer(
        self,
        property: &str,
        mut items: Vec<(u64, Value)>,
    ) -> Response {
        let Self { from, max, ascending } = self;
        if ascending {
            items.reverse();
        }
        let is_in = |number: u64| match (from, ascending) {
            (None, _) => true,
            (Some((first, Begin::At)), _) if number == first => true,
            (Some((first, _)), true) => number > first,
            (Some((first, _)), false) => number < first,
        };
        items.retain(|(number, _)| is_in(*number));
        let is_cut = max.is_some_and(|max| items.len() > max);
        items.truncate(max.unwrap_or(usize::MAX));
        let ends = items.first().zip(items.last()).map(|((first, _), (last, _))| (*first, *last));
        let mut headers = vec![(ACCEPT_RANGES, property.to_owned())];
        if let Some((first, last)) = ends {
            headers.push((CONTENT_RANGE, format!("{property} {first}..{last}")));
        }
        let items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
        let (Some(max), Some((_, last)), true) = (max, ends, is_cut) else {
            return (AppendHeaders(headers), Json(items)).into_response();
        };
        let order = if ascending { "asc" } else { "desc" };
        let next = format!("{property} ]{last}..; max={max}, order={order}");
        let next = AppendHeaders([("next-range", next)]);
        (StatusCode::PARTIAL_CONTENT, AppendHeaders(headers), next, Json(items)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_ask_for_is_understood() {
        let check = |range: &str, from, max, ascending| {
            assert_eq!(Part::parse(range, "version"), Part { from, max, ascending }, "{range:?}");
        };
        check("", None, None, false);
        check("version ..; max=15, order=desc", None, Some(15), false);
        check("version ..; order=desc,max=1", None, Some(1), false);
        check("version ..; max=1000;", None, Some(1000), false);
        check("version ..; order=asc", None, None, true);
        check("version 7..; max=2", Some((7, Begin::At)), Some(2), false);
        check("version ]7..9; max=2", Some((7, Begin::Behind)), Some(2), false);
        check("id ]7..; max=2", None, None, false);
        check("version nonsense; max=x", None, None, false);
    }

    /// The numbers that an answer has, and what it says of the next.
    fn answered(range: &str) -> (StatusCode, Vec<String>) {
        let items = (1..=5).rev().map(|number| (number, Value::from(number))).collect();
        let answer = Part::parse(range, "version").answer("version", items);
        let text = |name: &str| {
            let value = answer.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
            value.unwrap_or_else(|| "-".into())
        };
        (answer.status(), ["accept-ranges", "content-range", "next-range"].map(text).to_vec())
    }

    #[test]
    fn parts_follow_each_other_to_the_end() {
        let check = |range: &str, status: u16, content: &str, next: &str| {
            let expected = ["version", content, next].map(str::to_owned).to_vec();
            assert_eq!(answered(range), (StatusCode::from_u16(status).unwrap(), expected));
        };
        check("", 200, "version 5..1", "-");
        let second = "version ]4..; max=2, order=desc";
        check("version ..; max=2, order=desc", 206, "version 5..4", second);
        let third = "version ]2..; max=2, order=desc";
        check(second, 206, "version 3..2", third);
        check(third, 200, "version 1..1", "-");
        check("version ..; max=5", 200, "version 5..1", "-");
        check("version ]1..; max=5", 200, "-", "-");
        let next = "version ]3..; max=2, order=asc";
        check("version 2..; max=2, order=asc", 206, "version 2..3", next);
    }
}

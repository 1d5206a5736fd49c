//! Monitors: whether the number of an app's web dynos follows its requests, in the form in which the heroku CLI asks for it
//! (`ps:autoscale:enable`, `ps:autoscale:disable`).
//!
//! An app has one or none: it is there while the number does follow, whoever said so. What is switched off is not kept.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{AppSource, ManagedApp, limits};
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::dynos::find_app;
use crate::control::given::{Given, Path};
use crate::control::{Caller, Problem, Running};
use crate::model::{Autoscale, Formation, ProcessType, StatedApp, StatedAutoscale, Target};

/// By what, and in which direction: there is one of each.
const ACTION: &str = "scale";
const OP: &str = "GREATER_OR_EQUAL";
/// Milliseconds where the CLI says none, as it has it itself.
const P95: u64 = 1000;

/// What is said of a monitor. Values, so that what is wrong is said with its field. `name`, `period` and
/// `notification_period` change nothing, and are not looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::control) struct Wanted {
    action_type: Value,
    op: Value,
    is_active: Value,
    min_quantity: Value,
    max_quantity: Value,
    /// Milliseconds.
    value: Value,
    notification_channels: Value,
}

impl Wanted {
    /// Whether it is to be on; it is, where nothing else is said.
    fn is_active(&self) -> Result<bool, Problem> {
        match &self.is_active {
            Value::Null => Ok(true),
            Value::Bool(on) => Ok(*on),
            other => Err(wrong("is_active", "true or false", other)),
        }
    }

    /// What is to hold, where this much did before.
    fn bounds(&self, before: Option<StatedAutoscale>) -> Result<StatedAutoscale, Problem> {
        for (field, given, only) in
            [("action_type", &self.action_type, ACTION), ("op", &self.op, OP)]
        {
            if !given.is_null() && given != only {
                return Err(wrong(field, only, given));
            }
        }
        match &self.notification_channels {
            Value::Null => {}
            Value::Array(channels) if channels.is_empty() => {}
            other => {
                let expected = "none, for nobody is mailed: the app's log says when there may be no more dynos";
                return Err(wrong("notification_channels", expected, other));
            }
        }
        let dynos = 1..=limits::FORMATION_MAX.into();
        let count = |field, given, before: Option<u32>| {
            let count = within(field, given, &dynos, "dynos", before.map(u64::from))?;
            Ok::<u32, Problem>(u32::try_from(count).expect("within FORMATION_MAX"))
        };
        let min = count("min_quantity", &self.min_quantity, before.map(|it| it.min))?;
        let max = count("max_quantity", &self.max_quantity, before.map(|it| it.max))?;
        if max < min {
            let expected = format!("{min} (min_quantity) or more dynos");
            return Err(wrong("max_quantity", &expected, &max.into()));
        }
        let times = limits::AUTOSCALE_TIMES;
        let [least, most] = [times.start(), times.end()].map(|it| it.as_millis() as u64);
        let before = before.map_or(P95, |it| it.p95.as_millis() as u64);
        let p95 = within("value", &self.value, &(least..=most), "milliseconds", Some(before))?;
        Ok(StatedAutoscale { min, max, p95: Duration::from_millis(p95) })
    }
}

/// A number of a field, within bounds; what held before, where nothing is said.
fn within(
    field: &str,
    given: &Value,
    bounds: &RangeInclusive<u64>,
    unit: &str,
    before: Option<u64>,
) -> Result<u64, Problem> {
    match (given, before) {
        (Value::Null, Some(before)) => Ok(before),
        _ => given.as_u64().filter(|it| bounds.contains(it)).ok_or_else(|| {
            let expected = format!("{} to {} {unit}", bounds.start(), bounds.end());
            wrong(field, &expected, given)
        }),
    }
}

fn wrong(field: &str, expected: &str, given: &Value) -> Problem {
    Problem::invalid(format!("{field}: expected {expected}, not {given}."))
}

/// `GET /apps/APP/formation/web/monitors`
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let monitor = show_app(&running, &app, |scene| rules(scene).map(|_| object(scene)))?;
    Ok(Json(monitor.into_iter().collect::<Vec<_>>()).into_response())
}

/// `POST /apps/APP/formation/web/monitors`
pub(in crate::control) async fn make(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    Given(wanted): Given<Wanted>,
) -> Result<Response, Problem> {
    if !wanted.is_active()? {
        return Err(wrong("is_active", "true of a new monitor", &wanted.is_active));
    }
    let enable = move |scene: &AppScene<'_>, now: &mut StatedApp| enable(scene, now, &wanted);
    let name = change_app(&running, caller, &app, enable).await?;
    Ok((StatusCode::CREATED, Json(show_app(&running, name.as_str(), object)?)).into_response())
}

/// `PATCH /apps/APP/formation/web/monitors/MONITOR`: on, within other bounds, or off.
pub(in crate::control) async fn update(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path((app, monitor)): Path<(String, String)>,
    Given(wanted): Given<Wanted>,
) -> Result<Response, Problem> {
    let (name, _) = find_app(&running, &app)?;
    let is_active = wanted.is_active()?;
    let counts = running.supervisor.formation(&name).await.unwrap_or_default();
    let change = move |scene: &AppScene<'_>, now: &mut StatedApp| {
        if rules(scene).is_none() || id(scene).as_deref() != Some(&monitor) {
            return Err(Problem::not_found(format!("Couldn't find that monitor ({monitor}).")));
        }
        match is_active {
            true => enable(scene, now, &wanted),
            false => disable(scene, now, &counts),
        }
    };
    let name = change_app(&running, caller, name.as_str(), change).await?;
    Ok(Json(show_app(&running, name.as_str(), object)?).into_response())
}

fn enable(scene: &AppScene<'_>, now: &mut StatedApp, wanted: &Wanted) -> Result<String, Problem> {
    scene.refuse_external()?;
    let has_web = |app: &ManagedApp| app.formation.contains_key(&ProcessType::web());
    if !managed(scene).is_some_and(has_web) {
        return Err(Problem::invalid(format!("{} has no web dynos to scale.", scene.name)));
    }
    refuse_said(scene)?;
    now.autoscale = Some(wanted.bounds(now.autoscale)?);
    Ok("Autoscaling enabled".into())
}

/// There are to be as many as there are now.
fn disable(
    scene: &AppScene<'_>,
    now: &mut StatedApp,
    counts: &Formation,
) -> Result<String, Problem> {
    refuse_said(scene)?;
    now.autoscale = None;
    let web = ProcessType::web();
    now.formation.extend(counts.get_key_value(&web).map(|(web, count)| (web.clone(), *count)));
    Ok("Autoscaling disabled".into())
}

fn refuse_said(scene: &AppScene<'_>) -> Result<(), Problem> {
    scene.refuse_said("formation.web", &format!("The number of web dynos of {}", scene.name))
}

fn managed<'a>(scene: &AppScene<'a>) -> Option<&'a ManagedApp> {
    match &scene.app.source {
        AppSource::Managed(managed) => Some(managed),
        AppSource::External(_) | AppSource::Blank => None,
    }
}

fn rules(scene: &AppScene<'_>) -> Option<Autoscale> {
    managed(scene)?.autoscale.get(&ProcessType::web()).copied()
}

/// An app has one, which has the number of the app.
fn id(scene: &AppScene<'_>) -> Option<String> {
    scene.known().map(|it| it.id.to_string())
}

fn object(scene: &AppScene<'_>) -> Value {
    let rules = rules(scene);
    let p95 = rules.and_then(|it| match it.target {
        Target::P95(time) => Some(time.as_millis() as u64),
        Target::InFlight(_) | Target::Queue(_) => None,
    });
    let by_file = scene.app.said.line("formation.web").is_some();
    json!({
        "id": id(scene),
        "app": scene.named(),
        "process_type": "web",
        "action_type": ACTION,
        "name": "LATENCY_SCALE",
        "is_active": rules.is_some(),
        "min_quantity": rules.map(|it| it.min),
        "max_quantity": rules.map(|it| it.max),
        "value": p95,
        "op": OP,
        "period": 1,
        "notification_channels": [],
        "notification_period": 1440,
        "decided_by": if by_file { "file" } else { "commands" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the CLI sends, with this in place of some of it.
    fn wanted(other: &Value) -> Wanted {
        let mut body = json!({
            "action_type": "scale",
            "is_active": true,
            "notification_channels": [],
            "notification_period": 1440,
            "op": "GREATER_OR_EQUAL",
            "period": 1,
            "max_quantity": 5,
            "min_quantity": 2,
            "name": "LATENCY_SCALE",
            "value": 700,
        });
        let other = other.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(other);
        serde_json::from_value(body).unwrap()
    }

    fn stated(min: u32, max: u32, p95: u64) -> StatedAutoscale {
        StatedAutoscale { min, max, p95: Duration::from_millis(p95) }
    }

    #[test]
    fn what_is_not_said_stays_as_it_was() {
        let check = |other: Value, before: Option<StatedAutoscale>, expected: StatedAutoscale| {
            assert_eq!(wanted(&other).bounds(before), Ok(expected), "{other}");
        };
        let before = Some(stated(1, 9, 50));
        check(json!({}), None, stated(2, 5, 700));
        check(json!({}), before, stated(2, 5, 700));
        check(json!({ "value": null }), None, stated(2, 5, 1000));
        check(json!({ "value": null, "min_quantity": null }), before, stated(1, 5, 50));
        check(json!({ "max_quantity": null }), before, stated(2, 9, 700));
        check(json!({ "min_quantity": 1, "max_quantity": 1000 }), None, stated(1, 1000, 700));
        check(json!({ "value": 3_600_000 }), None, stated(2, 5, 3_600_000));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        let check = |other: Value, expected: &str| {
            let refused = wanted(&other).bounds(None).map_err(|it| (it.id, it.message));
            assert_eq!(refused, Err(("invalid_params", expected.into())), "{other}");
        };
        let min = |given: &str| format!("min_quantity: expected 1 to 1000 dynos, not {given}.");
        check(json!({ "min_quantity": 0 }), &min("0"));
        check(json!({ "min_quantity": -1 }), &min("-1"));
        check(json!({ "min_quantity": 1.5 }), &min("1.5"));
        check(json!({ "min_quantity": "2" }), &min("\"2\""));
        check(json!({ "min_quantity": null }), &min("null"));
        let max = "max_quantity: expected 1 to 1000 dynos, not 1001.";
        check(json!({ "max_quantity": 1001 }), max);
        let below = "max_quantity: expected 2 (min_quantity) or more dynos, not 1.";
        check(json!({ "max_quantity": 1 }), below);
        let value = |given: u64| format!("value: expected 1 to 3600000 milliseconds, not {given}.");
        check(json!({ "value": 0 }), &value(0));
        check(json!({ "value": 3_600_001 }), &value(3_600_001));
        check(json!({ "action_type": "alert" }), "action_type: expected scale, not \"alert\".");
        check(json!({ "op": "LESS" }), "op: expected GREATER_OR_EQUAL, not \"LESS\".");
        let mails = "notification_channels: expected none, for nobody is mailed: the app's log says when there may be no more dynos, not [\"app\"].";
        check(json!({ "notification_channels": ["app"] }), mails);
        let refused = wanted(&json!({ "is_active": "no" })).is_active().unwrap_err();
        assert_eq!(refused.message, "is_active: expected true or false, not \"no\".");
    }
}

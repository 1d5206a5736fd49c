//! What dynos used: booked now and then, and told to people.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::control::Running;
use crate::control::given::Path;
use crate::control::problem::Problem;
use crate::model::{Month, Payer, Sizes, Usage};
use crate::store::Store;
use crate::supervisor::Supervisor;
use crate::wall_clock;

/// What the dynos of one app, process type and size used in a month so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageRow {
    /// `2026-11` (UTC)
    pub month: String,
    /// The app.
    pub app: String,
    /// The process type; `run` and `scheduler` for one-off dynos.
    #[serde(rename = "type")]
    pub process_type: String,
    /// The name of the size.
    pub size: String,
    /// Whole seconds in which dynos ran; two that ran at one time count twice.
    pub dyno_seconds: u64,
    /// What that costs, in hundredths of a dollar, rounded; absent where there is no such size any more.
    pub cents: Option<u64>,
}

/// Books what dynos used since the last time. What cannot be booked is booked with the next.
pub async fn book(supervisor: &Supervisor, store: &Store) {
    let (usage, until) = supervisor.take_usage();
    if usage.is_empty() {
        return;
    }
    if let Err(error) = store.book(usage.clone(), until).await {
        tracing::error!("usage is not booked: {error}");
        supervisor.give_back_usage(usage);
    }
}

/// `GET /usage`: this month, every app.
pub(in crate::control) async fn all(State(running): State<Arc<Running>>) -> Response {
    answer(&running, |_| true).await
}

/// `GET /apps/APP/usage`. Apps that are no more have used what they have used.
pub(in crate::control) async fn of_app(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Response {
    answer(&running, |payer| payer.app.as_str() == app).await
}

async fn answer(running: &Running, asked_for: impl Fn(&Payer) -> bool) -> Response {
    book(&running.supervisor, &running.store).await;
    match running.store.usage(Month::of(wall_clock::unix())).await {
        Ok(mut usage) => {
            usage.retain(|(_, payer), _| asked_for(payer));
            Json(rows(&usage, &running.config.load().sizes)).into_response()
        }
        Err(error) => Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            id: "service_unavailable",
            message: format!("read what was booked: {error}"),
        }
        .into_response(),
    }
}

fn rows(usage: &Usage, sizes: &Sizes) -> Vec<UsageRow> {
    let row = |((month, payer), millis): (&(Month, Payer), &u64)| {
        let price = sizes.find(payer.size.as_str()).map(|size| size.price);
        UsageRow {
            month: month.to_string(),
            app: payer.app.to_string(),
            process_type: payer.process_type.to_string(),
            size: payer.size.to_string(),
            dyno_seconds: millis / 1000,
            cents: price.map(|price| cost(price, *millis, *month)),
        }
    };
    usage.iter().map(row).collect()
}

/// The share of a price by the month, as Heroku counts it: a dyno that runs all month costs the price, and each
/// that runs beside it costs it again. In the price's unit, rounded to the nearest.
fn cost(price: u32, millis: u64, month: Month) -> u64 {
    let whole = u128::from(month.end() - month.begin()) * 1000;
    let share = (u128::from(price) * u128::from(millis) + whole / 2) / whole;
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{AppName, ProcessType, SizeName};

    /// 2026-11, which has 720 hours.
    const NOW: u64 = 1_795_225_490;
    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_price_is_paid_by_the_share_of_the_month() {
        let month = Month::of(NOW);
        let check = |price, millis, expected| assert_eq!(cost(price, millis, month), expected);
        check(2500, 720 * HOUR, 2500);
        check(2500, 2 * 720 * HOUR, 5000);
        check(2500, 360 * HOUR, 1250);
        check(700, HOUR, 1);
        check(700, 0, 0);
    }

    #[test]
    fn a_size_that_is_no_more_has_no_price() {
        let payer = |size: &str| Payer {
            app: AppName::parse("shop").unwrap(),
            process_type: ProcessType::web(),
            size: SizeName::parse(size).unwrap(),
        };
        let month = Month::of(NOW);
        let usage = ["eco", "gone"].map(|size| ((month, payer(size)), 72 * HOUR + 999)).into();
        let rows = rows(&usage, &Sizes::heroku());
        let told: Vec<_> =
            rows.iter().map(|row| (&*row.size, row.dyno_seconds, row.cents)).collect();
        assert_eq!(told, [("eco", 72 * 3600, Some(50)), ("gone", 72 * 3600, None)]);
        assert_eq!(rows[0].month, "2026-11");
    }

    proptest! {
        #[test]
        fn one_dyno_never_costs_more_than_its_price(price in 0..1_000_000_u32, share in 0.0..=1.0_f64, unix in 0_u64..4_000_000_000) {
            let month = Month::of(unix);
            let millis = ((month.end() - month.begin()) as f64 * 1000.0 * share) as u64;
            prop_assert!(cost(price, millis, month) <= u64::from(price));
        }
    }
}

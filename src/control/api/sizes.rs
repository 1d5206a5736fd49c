//! Dyno sizes: which there are.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::control::dynos::titled;
use crate::control::given::Path;
use crate::control::{Problem, Running};
use crate::model::{CpuShare, Size};

/// `GET /dyno-sizes`
pub(in crate::control) async fn list(State(running): State<Arc<Running>>) -> Response {
    let config = running.config.load();
    Json(config.sizes.iter().map(|size| object(size)).collect::<Vec<_>>()).into_response()
}

/// `GET /dyno-sizes/SIZE`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path(size): Path<String>,
) -> Result<Response, Problem> {
    let config = running.config.load();
    let found = config.sizes.find(&size);
    let found = found
        .ok_or_else(|| Problem::not_found(format!("Couldn't find that dyno size ({size}).")))?;
    Ok(Json(object(found)).into_response())
}

fn object(size: &Size) -> Value {
    const GB: f64 = (1_u64 << 30) as f64;
    let dedicated = matches!(size.limits.cpu, CpuShare::Dedicated);
    json!({
        "id": size.name.as_str(),
        "name": titled(size.name.as_str()),
        "memory": size.limits.memory as f64 / GB,
        "compute": size.limits.cpu.shares(),
        "cost": { "cents": size.price, "unit": "month" },
        "dedicated": dedicated,
        "dyno_units": size.limits.cpu.shares(),
        "precise_dyno_units": null,
        "private_space_only": false,
        "generation": { "name": "cedar" },
    })
}

//! The verbs of Heroku's Platform API that change what commands said, and what they show.
//!
//! Each file has one noun: what is shown of it, and how it is changed. What is changed is computed by a function of what
//! holds; `Running::change` has it put in force.

mod range; // parts of lists
mod account; // whose all of it is
mod caller; // who asks
mod rate; // how often
mod hosts; // by which names
mod auth; // whether they may
mod tokens; // by what they show that they may
mod absent; // what there is none of
mod scene; // an app as a verb finds it, and how it is changed
mod apps; // made, shown, ended; maintenance
mod config_vars; // set and unset
mod formation; // scaled
mod monitors; // whether its number of web dynos follows the requests
mod domains; // added and removed
mod certificates; // added, exchanged and removed
mod pipelines; // apps of one code base
mod promotions; // from one of them to the next
mod addons; // what is outside: named, attached, detached
mod releases; // listed, rolled back to
mod drains; // where logs go
mod features; // switched on and off
mod sizes; // which there are
mod slugs; // what is deployed: uploaded, released
mod builds; // the same in one step

use std::sync::Arc;

use axum::routing::{delete, get, patch, post, put};

use crate::control::Running;

pub(in crate::control) use absent::{unknown, wrong_method};
pub(in crate::control) use auth::{Gate, require_token};
pub(in crate::control) use hosts::Part;
pub(in crate::control) use rate::Rates;

/// What makes tokens.
pub(in crate::control) fn token_routes() -> axum::Router<Arc<Running>> {
    axum::Router::new()
        .route("/oauth/authorizations", get(tokens::list).post(tokens::make))
        .route("/oauth/authorizations/{token}", delete(tokens::revoke))
}

/// The routes of what is outside.
fn addon_routes() -> axum::Router<Arc<Running>> {
    axum::Router::new()
        .route("/addons", get(addons::all))
        .route("/addons/{addon}", get(addons::show))
        .route("/addons/{addon}/addon-attachments", get(addons::attachments_of_addon))
        .route("/actions/addons/resolve", post(addons::resolve))
        .route("/apps/{app}/addons", get(addons::list).post(addons::create))
        .route("/apps/{app}/addons/{addon}", delete(addons::destroy))
        .route("/apps/{app}/addon-attachments", get(addons::attachments_of_app))
        .route("/apps/{app}/addon-attachments/{attachment}", get(addons::attachment))
        .route("/addon-attachments", get(addons::all_attachments).post(addons::attach))
        .route("/addon-attachments/{attachment}", delete(addons::detach))
}

/// The routes of pipelines.
fn pipeline_routes() -> axum::Router<Arc<Running>> {
    axum::Router::new()
        .route("/pipelines", get(pipelines::list).post(pipelines::make))
        .route(
            "/pipelines/{pipeline}",
            get(pipelines::show).patch(pipelines::rename).delete(pipelines::remove),
        )
        .route("/pipelines/{pipeline}/pipeline-couplings", get(pipelines::couplings_of))
        .route("/apps/{app}/pipeline-couplings", get(pipelines::coupling_of_app))
        .route("/pipeline-couplings", post(pipelines::couple))
        .route(
            "/pipeline-couplings/{coupling}",
            patch(pipelines::restage).delete(pipelines::uncouple),
        )
        .route("/pipeline-promotions", post(promotions::make))
        .route("/pipeline-promotions/{promotion}", get(promotions::show))
        .route("/pipeline-promotions/{promotion}/promotion-targets", get(promotions::targets))
        .route("/filters/apps", post(apps::filter))
}

/// What Heroku has on the host of its metrics.
pub(in crate::control) fn metrics_routes() -> axum::Router<Arc<Running>> {
    axum::Router::new()
        .route("/apps/{app}/formation/web/monitors", get(monitors::list).post(monitors::make))
        .route("/apps/{app}/formation/web/monitors/{monitor}", patch(monitors::update))
}

/// What is uploaded to, and what is read while it is made.
pub(in crate::control) fn upload_routes() -> axum::Router<Arc<Running>> {
    axum::Router::new()
        .route("/slug-uploads/{secret}", put(slugs::upload))
        .route("/source-uploads/{secret}", put(builds::upload))
        .route("/build-output/{secret}", get(builds::output))
}

/// The routes of all of them.
pub(in crate::control) fn routes() -> axum::Router<Arc<Running>> {
    addon_routes()
        .merge(pipeline_routes())
        .route("/regions", get(absent::regions))
        .route("/stacks", get(absent::stacks))
        .route("/teams", get(absent::none))
        .route("/account/features", get(absent::none))
        .route("/apps/{app}/collaborators", get(absent::none))
        .route("/account", get(account::show))
        .route("/users/~", get(account::show))
        .route("/users/~/apps", get(apps::list))
        .route("/apps", get(apps::list).post(apps::create))
        .route("/apps/{app}", get(apps::show).patch(apps::update).delete(apps::destroy))
        .route("/sources", post(builds::make_source))
        .route("/apps/{app}/sources", post(builds::make_source_of))
        .route("/apps/{app}/builds", get(builds::list).post(builds::create))
        .route("/apps/{app}/builds/{build}", get(builds::show))
        .route("/apps/{app}/slugs", post(slugs::create))
        .route("/apps/{app}/slugs/{slug}", get(slugs::show))
        .route("/apps/{app}/config-vars", get(config_vars::show).patch(config_vars::update))
        .route("/apps/{app}/formation", get(formation::list).patch(formation::update))
        .route("/apps/{app}/domains", get(domains::list).post(domains::add))
        .route(
            "/apps/{app}/domains/{domain}",
            get(domains::show).patch(domains::update).delete(domains::remove),
        )
        .route("/apps/{app}/sni-endpoints", get(certificates::list).post(certificates::add))
        .route(
            "/apps/{app}/sni-endpoints/{endpoint}",
            get(certificates::show).patch(certificates::update).delete(certificates::remove),
        )
        .route("/apps/{app}/log-drains", get(drains::list).post(drains::add))
        .route("/apps/{app}/log-drains/{drain}", delete(drains::remove))
        .route("/apps/{app}/features", get(features::list))
        .route("/apps/{app}/features/{feature}", get(features::show).patch(features::update))
        .route("/dyno-sizes", get(sizes::list))
        .route("/dyno-sizes/{size}", get(sizes::show))
        .route("/apps/{app}/releases", get(releases::list).post(releases::make))
        .route("/apps/{app}/releases/{release}", get(releases::show))
        .route("/apps/{app}/releases/{release}/config-vars", get(releases::config_vars))
}

//! The verbs of Heroku's Platform API that change what commands said, and what they show.
//!
//! Each file has one noun: what is shown of it, and how it is changed. What is changed is computed by a function of what
//! holds; `Running::change` has it put in force.

mod given; // bodies of requests
mod account; // whose all of it is
mod caller; // who asks
mod rate; // how often
mod auth; // whether they may
mod tokens; // by what they show that they may
mod absent; // what there is none of
mod fixed; // what the file decides
mod apps; // made, shown, ended; maintenance
mod config_vars; // set and unset
mod formation; // scaled
mod domains; // added and removed
mod releases; // listed, rolled back to
mod slugs; // what is deployed: uploaded, released

use std::sync::Arc;

use axum::routing::{delete, get, post, put};

use crate::control::{Running, output};

pub(in crate::control) use absent::unknown;
pub(in crate::control) use auth::{Gate, is_known, require_token};
pub(in crate::control) use given::Given;
pub(in crate::control) use rate::Rates;

/// What makes tokens.
pub(in crate::control) fn token_routes() -> axum::Router<Arc<Running>> {
    axum::Router::new()
        .route("/oauth/authorizations", get(tokens::list).post(tokens::make))
        .route("/oauth/authorizations/{token}", delete(tokens::revoke))
}

/// What is uploaded to, and what release commands print. Who knows the address was told it, and needs no token.
pub(in crate::control) fn upload_routes() -> axum::Router<Arc<Running>> {
    axum::Router::new()
        .route("/slug-uploads/{secret}", put(slugs::upload))
        .route("/release-output/{secret}", get(output::stream))
}

/// The routes of all of them.
pub(in crate::control) fn routes() -> axum::Router<Arc<Running>> {
    axum::Router::new()
        .route("/regions", get(absent::regions))
        .route("/stacks", get(absent::stacks))
        .route("/teams", get(absent::none))
        .route("/account/features", get(absent::none))
        .route("/addon-attachments", get(absent::none))
        .route("/apps/{app}/addons", get(absent::none))
        .route("/apps/{app}/collaborators", get(absent::none))
        .route("/apps/{app}/features", get(absent::none))
        .route("/apps/{app}/sni-endpoints", get(absent::none))
        .route("/account", get(account::show))
        .route("/users/~", get(account::show))
        .route("/users/~/apps", get(apps::list))
        .route("/apps", get(apps::list).post(apps::create))
        .route("/apps/{app}", get(apps::show).patch(apps::update).delete(apps::destroy))
        .route("/apps/{app}/slugs", post(slugs::create))
        .route("/apps/{app}/slugs/{slug}", get(slugs::show))
        .route("/apps/{app}/config-vars", get(config_vars::show).patch(config_vars::update))
        .route("/apps/{app}/formation", get(formation::list).patch(formation::update))
        .route("/apps/{app}/domains", get(domains::list).post(domains::add))
        .route("/apps/{app}/domains/{domain}", delete(domains::remove))
        .route("/apps/{app}/releases", get(releases::list).post(releases::make))
        .route("/apps/{app}/releases/{release}", get(releases::show))
        .route("/apps/{app}/releases/{release}/config-vars", get(releases::config_vars))
}

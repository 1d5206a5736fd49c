//! Add-ons: resources outside, whose URL is a config var of the apps that they are attached to. Nothing is provided here,
//! and nothing is ended with them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::check_config_var;
use crate::control::api::scene::{AppScene, change_app};
use crate::control::dynos::{find_app, name_of};
use crate::control::given::{Given, Path};
use crate::control::{Caller, Problem, Running};
use crate::model::{AppName, Civil, Id, Stated, StatedAddon, StatedApp, StatedAttachment};
use crate::store::new_id;
use crate::wall_clock;

/// `POST /apps/APP/addons`
#[derive(Deserialize)]
pub(in crate::control) struct Create {
    plan: Named,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    attachment: Option<Attachment>,
    #[serde(default)]
    config: Option<Outside>,
    #[serde(default)]
    confirm: Option<String>,
}

/// `"redis"` or `{"name": "redis"}`: clients send both.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Text(String),
    Object { name: String },
}

#[derive(Deserialize)]
struct Attachment {
    #[serde(default)]
    name: Option<String>,
}

/// Where it is: `-- --url=redis://…` of the heroku CLI.
#[derive(Deserialize)]
struct Outside {
    #[serde(default)]
    url: Option<String>,
}

/// `POST /addon-attachments`
#[derive(Deserialize)]
pub(in crate::control) struct Attach {
    addon: Named,
    app: Named,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    confirm: Option<String>,
}

/// `POST /actions/addons/resolve`
#[derive(Deserialize)]
pub(in crate::control) struct Resolve {
    addon: String,
    #[serde(default)]
    app: Option<String>,
}

impl Named {
    fn text(self) -> String {
        match self {
            Self::Text(name) | Self::Object { name } => name,
        }
    }
}

/// `GET /addons`
pub(in crate::control) async fn all(State(running): State<Arc<Running>>) -> Response {
    let stated = running.stated.load();
    let addons = stated.addons().map(|(app, addon)| object(&stated, app, addon));
    Json(addons.collect::<Vec<_>>()).into_response()
}

/// `GET /apps/APP/addons`
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let (name, _) = find_app(&running, &app)?;
    let stated = running.stated.load();
    let own = stated.addons().filter(|(app, _)| **app == name);
    let shown = own.map(|(app, addon)| object(&stated, app, addon));
    Ok(Json(shown.collect::<Vec<_>>()).into_response())
}

/// `GET /addons/ADDON`, by its name or its id.
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path(which): Path<String>,
) -> Result<Response, Problem> {
    let stated = running.stated.load();
    let (app, addon) = find(&stated, &which)?;
    Ok(Json(object(&stated, app, addon)).into_response())
}

/// `POST /actions/addons/resolve`: the add-on that is meant by its name, its id, or what an app calls it.
pub(in crate::control) async fn resolve(
    State(running): State<Arc<Running>>,
    Given(Resolve { addon, app }): Given<Resolve>,
) -> Result<Response, Problem> {
    let stated = running.stated.load();
    let of_app = app.and_then(|app| stated.apps.get(&name_of(&stated, &app)?));
    let attached = of_app.and_then(|it| it.attachments.iter().find(|it| it.name == addon));
    let which = attached.map_or(addon, |it| it.addon.to_string());
    let (app, addon) = find(&stated, &which)?;
    Ok(Json([object(&stated, app, addon)]).into_response())
}

/// `POST /apps/APP/addons`
pub(in crate::control) async fn create(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    Given(create): Given<Create>,
) -> Result<Response, Problem> {
    let id = new_id();
    let Create { plan, name, attachment, config, confirm } = create;
    let plan = plan.text();
    let url = config.and_then(|it| it.url).ok_or_else(|| {
        Problem::invalid(format!(
            "Nothing is provided here: say where it is, addons:create {plan} … -- --url=URL."
        ))
    })?;
    let of_plan = plan.split(':').next().unwrap_or_default().to_owned();
    // A repetition of the request has to find the same one.
    let name = name.unwrap_or_else(|| match &caller.request {
        Some(request) => format!("{of_plan}-{}", &request[..8]),
        None => format!("{of_plan}-{}", &id.to_string()[..8]),
    });
    let addon = StatedAddon { id, name, plan, url, created_at: wall_clock::unix() };
    let attachment = attachment.and_then(|it| it.name).unwrap_or(of_plan);
    let given = addon.clone();
    let change = move |scene: &AppScene<'_>, now: &mut StatedApp| {
        check_name(scene.stated, &addon.name)?;
        let described = attach_to(scene, now, &addon, &attachment, confirm.as_deref())?;
        now.addons.push(addon);
        Ok(described)
    };
    let app = change_app(&running, caller, &app, change).await?;
    let stated = running.stated.load();
    let shown = match find(&stated, &given.name) {
        Ok((app, addon)) => object(&stated, app, addon),
        // The app's release command runs first.
        Err(_) => {
            let mut shown = object(&stated, &app, &given);
            shown["state"] = "provisioning".into();
            shown
        }
    };
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

fn check_name(stated: &Stated, name: &str) -> Result<(), Problem> {
    let well_formed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if name.is_empty() || !name.bytes().all(well_formed) {
        let message = "Name: expected lower-case letters, digits and dashes.";
        return Err(Problem::invalid(message));
    }
    match stated.addons().any(|(_, addon)| addon.name == name) {
        true => Err(Problem::invalid(format!("Name {name} is already taken."))),
        false => Ok(()),
    }
}

/// `MY_REDIS` of `my-redis`: what a config var can begin with.
fn attachment_name(written: &str) -> String {
    written.to_ascii_uppercase().replace('-', "_")
}

/// Tells an app of an add-on. What it has under that name already is replaced if that is confirmed.
fn attach_to(
    scene: &AppScene<'_>,
    now: &mut StatedApp,
    addon: &StatedAddon,
    written: &str,
    confirm: Option<&str>,
) -> Result<String, Problem> {
    scene.refuse_external()?;
    // What the config var begins with says more than that it ends in _URL.
    if !written.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        return Err(Problem::invalid(format!(
            "Name {written:?}: expected letters, digits, dashes and underscores, a letter or an underscore first."
        )));
    }
    let (id, name) = (new_id(), attachment_name(written));
    let attachment = StatedAttachment { id, name, addon: addon.id, created_at: wall_clock::unix() };
    let var = attachment.var();
    let checked = check_config_var(&var, &addon.url);
    checked.map_err(|wrong| Problem::invalid(format!("{var}: {wrong}.")))?;
    scene.refuse_said(&format!("config.{var}"), &format!("The config var {var}"))?;
    let is_taken = now.config_vars.contains_key(&var)
        || now.attachments.iter().any(|it| it.name == attachment.name);
    if is_taken && confirm != Some(scene.name.as_str()) {
        return Err(Problem {
            id: "confirmation_required",
            ..Problem::invalid(format!(
                "{var} is set already on {}, and would be overwritten.",
                scene.name
            ))
        });
    }
    now.config_vars.remove(&var);
    now.attachments.retain(|it| it.name != attachment.name);
    let described = format!("Attach {} (@ref:{})", attachment.name, addon.name);
    now.attachments.push(attachment);
    Ok(described)
}

/// `DELETE /apps/APP/addons/ADDON`: it is forgotten, and no app is told of it any more.
pub(in crate::control) async fn destroy(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path((_, which)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (owner, id, mut shown) = {
        let stated = running.stated.load();
        let (owner, addon) = find(&stated, &which)?;
        (owner.clone(), addon.id, object(&stated, owner, addon))
    };
    let change = move |_: &AppScene<'_>, now: &mut StatedApp| {
        let gone = now.addons.iter().find(|it| it.id == id).map(|it| it.name.clone());
        now.addons.retain(|it| it.id != id);
        // Those of other apps go with it, too: the store sees to it.
        now.attachments.retain(|it| it.addon != id);
        Ok(format!("Destroy {}", gone.unwrap_or_default()))
    };
    change_app(&running, caller, owner.as_str(), change).await?;
    shown["state"] = "deprovisioned".into();
    Ok(Json(shown).into_response())
}

/// `GET /addon-attachments`
pub(in crate::control) async fn all_attachments(State(running): State<Arc<Running>>) -> Response {
    Json(attachments(&running.stated.load(), |_, _| true)).into_response()
}

/// `GET /apps/APP/addon-attachments`
pub(in crate::control) async fn attachments_of_app(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let (name, _) = find_app(&running, &app)?;
    Ok(Json(attachments(&running.stated.load(), |app, _| *app == name)).into_response())
}

/// `GET /addons/ADDON/addon-attachments`
pub(in crate::control) async fn attachments_of_addon(
    State(running): State<Arc<Running>>,
    Path(which): Path<String>,
) -> Result<Response, Problem> {
    let stated = running.stated.load();
    let id = find(&stated, &which)?.1.id;
    Ok(Json(attachments(&stated, |_, it| it.addon == id)).into_response())
}

/// `GET /apps/APP/addon-attachments/ATTACHMENT`, by its name or its id.
pub(in crate::control) async fn attachment(
    State(running): State<Arc<Running>>,
    Path((app, which)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (name, _) = find_app(&running, &app)?;
    let is_meant = |app: &AppName, it: &StatedAttachment| {
        *app == name && (it.name == which || it.id.to_string() == which)
    };
    let found = attachments(&running.stated.load(), is_meant).pop();
    found.map(|it| Json(it).into_response()).ok_or_else(|| unknown_attachment(&which))
}

/// `POST /addon-attachments`
pub(in crate::control) async fn attach(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Given(Attach { addon, app, name, confirm }): Given<Attach>,
) -> Result<Response, Problem> {
    let (addon, app) = (addon.text(), app.text());
    let addon = find(&running.stated.load(), &addon)?.1.clone();
    let written = name.unwrap_or_else(|| addon.service().to_owned());
    let (of, called) = (addon.clone(), attachment_name(&written));
    let change = move |scene: &AppScene<'_>, now: &mut StatedApp| {
        attach_to(scene, now, &addon, &written, confirm.as_deref())
    };
    let name = change_app(&running, caller, &app, change).await?;
    let stated = running.stated.load();
    let is_it = |app: &AppName, it: &StatedAttachment| *app == name && it.name == called;
    let made = attachments(&stated, is_it).pop();
    // The app's release command runs first: there is none yet that it could be known by.
    let to_be = || {
        let addon = json!({ "id": of.id.to_string(), "name": of.name });
        json!({ "name": called, "addon": addon, "app": app_named(&stated, &name) })
    };
    Ok((StatusCode::CREATED, Json(made.unwrap_or_else(to_be))).into_response())
}

/// `DELETE /addon-attachments/ID`
pub(in crate::control) async fn detach(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(which): Path<String>,
) -> Result<Response, Problem> {
    let is_meant = |it: &StatedAttachment| it.id.to_string() == which;
    let (owner, shown) = {
        let stated = running.stated.load();
        let owner = stated.apps.iter().find(|(_, app)| app.attachments.iter().any(is_meant));
        let (owner, _) = owner.ok_or_else(|| unknown_attachment(&which))?;
        (owner.clone(), attachments(&stated, |_, it| is_meant(it)).pop())
    };
    let id = Id::parse(&which).ok_or_else(|| unknown_attachment(&which))?;
    let change = move |scene: &AppScene<'_>, now: &mut StatedApp| {
        let gone = now.attachments.iter().find(|it| it.id == id).cloned();
        let gone = gone.ok_or_else(|| unknown_attachment(&id.to_string()))?;
        now.attachments.retain(|it| it.id != id);
        let addon = scene.stated.addons().find(|(_, addon)| addon.id == gone.addon);
        let addon = addon.map_or("", |(_, addon)| &addon.name);
        Ok(format!("Detach {} (@ref:{addon})", gone.name))
    };
    change_app(&running, caller, owner.as_str(), change).await?;
    Ok(Json(shown).into_response())
}

fn find<'a>(stated: &'a Stated, which: &str) -> Result<(&'a AppName, &'a StatedAddon), Problem> {
    stated
        .addons()
        .find(|(_, it)| it.name == which || it.id.to_string() == which)
        .ok_or_else(|| Problem::not_found(format!("Couldn't find that add-on ({which}).")))
}

fn unknown_attachment(which: &str) -> Problem {
    Problem::not_found(format!("Couldn't find that add-on attachment ({which})."))
}

fn app_named(stated: &Stated, app: &AppName) -> Value {
    json!({ "id": stated.apps.get(app).map(|it| it.id.to_string()), "name": app.as_str() })
}

/// An add-on as the API shows it: where it is stands in config vars alone.
fn object(stated: &Stated, app: &AppName, addon: &StatedAddon) -> Value {
    let StatedAddon { id, name, plan, url: _, created_at } = addon;
    let vars = stated.apps.get(app).into_iter().flat_map(|it| &it.attachments);
    let vars: Vec<String> = vars.filter(|it| it.addon == *id).map(|it| it.var()).collect();
    let service = addon.service();
    let plan = if plan.contains(':') { plan.clone() } else { format!("{plan}:outside") };
    let price = json!({ "cents": 0, "unit": "month", "contract": false, "metered": false });
    let since = Civil::of(*created_at).rfc3339();
    json!({
        "id": id.to_string(),
        "name": name,
        "app": app_named(stated, app),
        "addon_service": { "id": service, "name": service },
        "plan": { "id": plan, "name": plan, "price": price },
        "billed_price": price,
        "state": "provisioned",
        "config_vars": vars,
        "provision_message": null,
        "provider_id": null,
        "web_url": null,
        "created_at": since,
        "updated_at": since,
    })
}

fn attachments(
    stated: &Stated,
    wanted: impl Fn(&AppName, &StatedAttachment) -> bool,
) -> Vec<Value> {
    let all = stated
        .apps
        .iter()
        .flat_map(|(name, app)| app.attachments.iter().map(move |attachment| (name, attachment)));
    let shown = all.filter(|(app, it)| wanted(app, it)).filter_map(|(app, it)| {
        let (owner, addon) = stated.addons().find(|(_, addon)| addon.id == it.addon)?;
        let since = Civil::of(it.created_at).rfc3339();
        Some(json!({
            "id": it.id.to_string(),
            "name": it.name,
            "addon": {
                "id": addon.id.to_string(),
                "name": addon.name,
                "app": app_named(stated, owner),
                "plan": { "id": addon.plan, "name": addon.plan },
            },
            "app": app_named(stated, app),
            "namespace": null,
            "config_vars": [it.var()],
            "web_url": null,
            "created_at": since,
            "updated_at": since,
        }))
    });
    shown.collect()
}

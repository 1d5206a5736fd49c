//! One-off dynos: begun, and attached to.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hyper_util::rt::TokioIo;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::control::attach::{Framed, relay};
use crate::control::dynos::{find_app, titled};
use crate::control::given::{Given, Path};
use crate::control::logs::Origin;
use crate::control::problem::Problem;
use crate::control::rendezvous::without_exit_mark;
use crate::control::{AppObject, DynoObject, Phase, Running};
use crate::model::{AppName, Civil, ProcessType, Size, Sizes};
use crate::supervisor::{Begun, RunError, RunOrder, Streams};
use crate::wall_clock;

/// What the connection of an attached client becomes.
pub const PROTOCOL: &str = "dynomesh-attach";

/// `POST /apps/APP/dynos`, as Heroku's Platform API has it: a one-off dyno that somebody wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynoCreate {
    /// What it runs.
    pub command: String,
    /// Whether a client will hold its streams.
    #[serde(default)]
    pub attach: bool,
    /// Variables for it alone. With `LINES` and `COLUMNS` an attached one has a terminal of this size.
    #[serde(default, deserialize_with = "texts")]
    pub env: BTreeMap<String, String>,
    /// The name of its size, if not the app's.
    #[serde(default)]
    pub size: Option<String>,
    /// Pipes, whatever the variables say.
    #[serde(default)]
    pub force_no_tty: bool,
}

/// The heroku CLI sends numbers, too.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let given = BTreeMap::<String, Value>::deserialize(from)?;
    let text = |(name, value): (String, Value)| match value {
        Value::String(text) => Some(Ok((name, text))),
        Value::Null => None,
        Value::Number(_) | Value::Bool(_) => Some(Ok((name, value.to_string()))),
        Value::Array(_) | Value::Object(_) => {
            Some(Err(Error::custom(format!("{name}: a variable is a text"))))
        }
    };
    given.into_iter().filter_map(text).collect()
}

/// `POST /apps/APP/dynos`
pub(in crate::control) async fn create(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    origin: Option<Extension<Origin>>,
    Given(create): Given<DynoCreate>,
) -> Result<Response, Problem> {
    let (app, _) = find_app(&running, &app)?;
    let origin = origin.as_ref().map(|Extension(origin)| origin);
    let created = begin(&running, &app, origin, create).await?;
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

async fn begin(
    running: &Running,
    app: &AppName,
    origin: Option<&Origin>,
    create: DynoCreate,
) -> Result<DynoObject, Problem> {
    if running.phase() == Phase::Stopping {
        return Err(refused(RunError::Stopping));
    }
    let size = size(&running.config.load().sizes, create.size.as_deref())?;
    check(&create)?;
    let process_type = ProcessType::parse("run").expect("run is a well-formed name");
    let streams = streams(&create);
    let (command, marks_exit) = without_exit_mark(&create.command);
    let (command, env) = (command.to_owned(), create.env);
    let order = RunOrder { app: app.clone(), process_type, command, env, size, streams };
    let Begun { dyno, command, size, ended: _ } =
        running.supervisor.run(order).await.map_err(refused)?;
    let attach_url = (streams != Streams::Log).then(|| match origin {
        Some(origin) => {
            let secret = running.rendezvous.invite(app, &dyno.to_string(), marks_exit);
            origin.rendezvous(&secret)
        }
        None => format!("/apps/{app}/dynos/{dyno}/attach"),
    });
    Ok(DynoObject {
        app: AppObject { name: app.to_string() },
        name: dyno.to_string(),
        process_type: dyno.process_type.to_string(),
        command,
        size: titled(size.as_str()),
        state: "starting".into(),
        updated_at: Civil::of(wall_clock::unix()).rfc3339(),
        release: None,
        attach_url,
    })
}

/// Refuses what no process can be given.
fn check(create: &DynoCreate) -> Result<(), Problem> {
    let is_name = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
    let wrong = create.env.iter().find(|(name, value)| !is_name(name) || value.contains('\0'));
    let message = match wrong {
        Some((name, _)) => format!("{name:?} is no variable that a process can have."),
        None if create.command.contains('\0') => "A command has no NUL.".into(),
        None => return Ok(()),
    };
    Err(Problem::invalid(message))
}

fn size(sizes: &Sizes, name: Option<&str>) -> Result<Option<Arc<Size>>, Problem> {
    let Some(name) = name else { return Ok(None) };
    let found = sizes.find(name).cloned();
    found.map(Some).ok_or_else(|| {
        let names: Vec<_> = sizes.iter().map(|size| size.name.as_str()).collect();
        Problem::invalid(format!("There is no size {name} (there is: {}).", names.join(", ")))
    })
}

fn streams(create: &DynoCreate) -> Streams {
    let number = |name: &str| create.env.get(name)?.parse::<u16>().ok();
    match (create.attach, number("LINES"), number("COLUMNS")) {
        (false, ..) => Streams::Log,
        (true, Some(rows), Some(columns)) if !create.force_no_tty => {
            Streams::Terminal { rows, columns }
        }
        (true, ..) => Streams::Pipes,
    }
}

fn refused(error: RunError) -> Problem {
    let status = match error {
        RunError::NotManaged(_) | RunError::NoCommand => StatusCode::UNPROCESSABLE_ENTITY,
        RunError::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        RunError::OutOfHours | RunError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem { status, id: "cannot_run", message: error.to_string() }
}

/// `GET /apps/APP/dynos/DYNO/attach`: the connection becomes the dyno's streams, in frames.
pub(in crate::control) async fn attach(
    State(running): State<Arc<Running>>,
    Path((app, dyno)): Path<(String, String)>,
    mut request: Request,
) -> Result<Response, Problem> {
    let (app, _) = find_app(&running, &app)?;
    if request.headers().get(UPGRADE).is_none_or(|to| to != PROTOCOL) {
        return Err(Problem {
            status: StatusCode::UPGRADE_REQUIRED,
            id: "upgrade_required",
            message: format!("The connection has to become {PROTOCOL}."),
        });
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let session = running.supervisor.attach(&app, &dyno).await.ok_or_else(|| {
        Problem::not_found(format!(
            "No dyno {dyno} of {app} waits for a client, or it could not start."
        ))
    })?;
    let shutdown = running.shutdown.clone();
    running.shutdown.spawn(async move {
        let Ok(stream) = upgrade.await else { return };
        tokio::select! {
            () = relay(Framed::new(TokioIo::new(stream)), session) => {}
            // Its client is told by the end of the stream, and the process by SIGHUP.
            () = shutdown.begun() => {}
        }
    });
    let headers = [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static(PROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_process_can_be_given_is_refused() {
        let create = |command: &str, name: &str, value: &str| DynoCreate {
            command: command.into(),
            env: BTreeMap::from([(name.into(), value.into())]),
            ..DynoCreate::default()
        };
        assert_eq!(check(&create("true", "A", "=")), Ok(()));
        for (command, name, value) in
            [("true", "", "x"), ("true", "A=B", "x"), ("true", "A", "x\0"), ("tr\0ue", "A", "x")]
        {
            assert!(
                check(&create(command, name, value)).is_err(),
                "{command:?} {name:?} {value:?}"
            );
        }
    }

    #[test]
    fn numbers_are_texts_to_a_process() {
        let text = r#"{"command": "bash", "env": {"TERM": "xterm", "LINES": 24, "A": null}}"#;
        let create: DynoCreate = serde_json::from_str(text).unwrap();
        let env = [("LINES", "24"), ("TERM", "xterm")];
        assert_eq!(create.env, env.map(|(name, value)| (name.into(), value.into())).into());
    }

    #[test]
    fn a_size_makes_a_terminal() {
        let of = |attach, force_no_tty, env: &[(&str, &str)]| {
            let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
            let command = "bash".to_owned();
            streams(&DynoCreate { command, attach, env: env.collect(), force_no_tty, size: None })
        };
        let size = [("LINES", "24"), ("COLUMNS", "80")];
        assert_eq!(of(true, false, &size), Streams::Terminal { rows: 24, columns: 80 });
        assert_eq!(of(true, true, &size), Streams::Pipes);
        assert_eq!(of(true, false, &size[..1]), Streams::Pipes);
        assert_eq!(of(false, false, &size), Streams::Log);
    }
}

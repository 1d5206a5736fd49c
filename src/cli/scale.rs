//! `dynomesh ps:scale`

use std::process::ExitCode;

use anyhow::bail;
use http::Method;
use serde_json::{Value, json};

use crate::cli::app::{App, Daemon};

/// Print how many dynos of each process type there are to be, or change it
#[derive(clap::Args)]
pub(in crate::cli) struct Scale {
    /// web=2, web+1, worker-1, web=2:standard-1x
    #[arg(value_name = "TYPE=COUNT[:SIZE]")]
    updates: Vec<String>,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Scale {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let path = format!("/apps/{app}/formation");
        if self.updates.is_empty() {
            let types: Vec<Value> = self.daemon.ask(Method::GET, &path)?;
            if types.is_empty() {
                bail!("No process types on ⬢ {app}.");
            }
            println!("{}", listed(&types, "=", " "));
            return Ok(ExitCode::SUCCESS);
        }
        let updates = self.updates.iter().map(|text| {
            update(text).ok_or_else(|| {
                anyhow::anyhow!(
                    "{text:?} is no change: expected web=2, web+1, web-1 or web=2:standard-1x"
                )
            })
        });
        let updates = updates.collect::<anyhow::Result<Vec<Value>>>()?;
        let types: Vec<Value> =
            self.daemon.tell(Method::PATCH, &path, &json!({ "updates": updates }))?;
        eprintln!("Scaling dynos... done, now running {}", listed(&types, " at ", ", "));
        Ok(ExitCode::SUCCESS)
    }
}

fn listed(types: &[Value], is: &str, between: &str) -> String {
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let one =
        |it: &Value| format!("{}{is}{}:{}", text(it, "type"), it["quantity"], text(it, "size"));
    types.iter().map(one).collect::<Vec<_>>().join(between)
}

/// `web=2:standard-1x` as the API has it.
fn update(text: &str) -> Option<Value> {
    let (what, size) = match text.split_once(':') {
        Some((what, size)) => (what, Some(size)),
        None => (text, None),
    };
    let at = what.rfind(['=', '+', '-'])?;
    let (process_type, quantity) = what.split_at(at);
    let digits = &quantity[1..];
    if process_type.is_empty() || digits.is_empty() || !digits.bytes().all(|it| it.is_ascii_digit())
    {
        return None;
    }
    let quantity = quantity.strip_prefix('=').unwrap_or(quantity);
    let mut update = json!({ "type": process_type, "quantity": quantity });
    if let Some(size) = size {
        update["size"] = size.into();
    }
    Some(update)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_understood() {
        let check =
            |text: &str, expected: Value| assert_eq!(update(text), Some(expected), "{text}");
        check("web=2", json!({ "type": "web", "quantity": "2" }));
        check("web+1", json!({ "type": "web", "quantity": "+1" }));
        check("my-worker-1", json!({ "type": "my-worker", "quantity": "-1" }));
        check(
            "web=2:standard-1x",
            json!({ "type": "web", "quantity": "2", "size": "standard-1x" }),
        );
        for wrong in ["web", "=2", "web=", "web=x", "2", ""] {
            assert_eq!(update(wrong), None, "{wrong}");
        }
    }
}

//! `dynomesh ps:type`: of which size the dynos are

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::bail;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::app::{App, Daemon};

/// Print the dyno size of each process type, or change it
#[derive(clap::Args)]
pub(in crate::cli) struct Type {
    /// web=standard-1x, or standard-1x for all process types
    #[arg(value_name = "TYPE=SIZE|SIZE")]
    updates: Vec<String>,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

/// What is read of a process type.
#[derive(Deserialize)]
struct OfType {
    #[serde(rename = "type")]
    process_type: String,
    quantity: u32,
    size: String,
}

/// What is read of a size.
#[derive(Deserialize)]
struct Size {
    name: String,
    cost: Cost,
}

#[derive(Deserialize)]
struct Cost {
    cents: u32,
}

impl Type {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let path = format!("/apps/{app}/formation");
        let mut types: Vec<OfType> = self.daemon.ask(Method::GET, &path)?;
        if types.is_empty() {
            bail!("No process types on ⬢ {app}.");
        }
        if !self.updates.is_empty() {
            let updates = updates(&self.updates, &types)?;
            self.daemon.tell::<Value>(Method::PATCH, &path, &json!({ "updates": updates }))?;
            eprintln!("Scaling dynos on ⬢ {app}... done");
            types = self.daemon.ask(Method::GET, &path)?;
        }
        let sizes: Vec<Size> = self.daemon.ask(Method::GET, "/dyno-sizes")?;
        println!("=== Process Types\n");
        print!("{}", table(&types, &sizes));
        Ok(ExitCode::SUCCESS)
    }
}

/// `web=standard-1x worker=eco`, or one size for all of them, as the API has it.
fn updates(written: &[String], types: &[OfType]) -> anyhow::Result<Vec<Value>> {
    if let [size] = written
        && !size.contains('=')
    {
        let update = |it: &OfType| json!({ "type": it.process_type, "size": size });
        return Ok(types.iter().map(update).collect());
    }
    let update = |text: &String| match text.split_once('=') {
        Some((process_type, size)) if !process_type.is_empty() && !size.is_empty() => {
            Ok(json!({ "type": process_type, "size": size }))
        }
        _ => bail!("{text:?} is no change: expected web=standard-1x, or a size alone for all"),
    };
    written.iter().map(update).collect()
}

/// What each process type costs in a month in which all of its dynos run throughout.
fn table(types: &[OfType], sizes: &[Size]) -> String {
    let cents: BTreeMap<&str, u32> =
        sizes.iter().map(|it| (it.name.as_str(), it.cost.cents)).collect();
    let mut rows = vec![["Type", "Size", "Qty", "Max cost/month"].map(str::to_owned)];
    for OfType { process_type, quantity, size } in types {
        let cents = cents.get(size.as_str()).copied().unwrap_or_default() * quantity;
        let cost = format!("${}.{:02}", cents / 100, cents % 100);
        rows.push([process_type.clone(), size.clone(), quantity.to_string(), cost]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |[a, b, c, d]: &[String; 4]| {
        format!("{a:0$}  {b:1$}  {c:2$}  {d}\n", widths[0], widths[1], widths[2])
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Vec<OfType> {
        let of_type = |name: &str, quantity, size: &str| OfType {
            process_type: name.into(),
            quantity,
            size: size.into(),
        };
        vec![of_type("web", 2, "Standard-1X"), of_type("worker", 0, "Eco")]
    }

    #[test]
    fn changes_are_understood() {
        let check = |written: &[&str], expected: Value| {
            let written: Vec<String> = written.iter().map(|it| (*it).to_owned()).collect();
            let read = updates(&written, &types());
            assert_eq!(read.ok().map(Value::from), (!expected.is_null()).then_some(expected));
        };
        check(&["worker=eco"], json!([{ "type": "worker", "size": "eco" }]));
        check(
            &["basic"],
            json!([{ "type": "web", "size": "basic" }, { "type": "worker", "size": "basic" }]),
        );
        for wrong in [&["web=", "worker=eco"][..], &["=eco"], &["web=eco", "basic"]] {
            check(wrong, Value::Null);
        }
    }

    #[test]
    fn costs_are_those_of_all_dynos() {
        let size = |name: &str, cents| Size { name: name.into(), cost: Cost { cents } };
        let sizes = [size("Standard-1X", 2500), size("Eco", 500)];
        assert_eq!(
            table(&types(), &sizes),
            "Type    Size         Qty  Max cost/month\n\
             web     Standard-1X  2    $50.00\n\
             worker  Eco          0    $0.00\n"
        );
    }
}

//! `dynomesh ps:usage`

use std::fmt::Write;
use std::process::ExitCode;

use http::Method;

use crate::cli::app::{App, Daemon};
use crate::control::UsageRow;

/// Print how long dynos ran this month, and what that costs
///
/// Of every app, or of one. A month is one of UTC; dynos that ran at one time count twice.
#[derive(clap::Args)]
pub(in crate::cli) struct Usage {
    #[command(flatten)]
    app: App,
    /// As JSON, in seconds
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Usage {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let path = match self.app.named() {
            Some(app) => format!("/apps/{app}/usage"),
            None => "/usage".into(),
        };
        let rows: Vec<UsageRow> = self.daemon.ask(Method::GET, &path)?;
        match (self.json, rows.first()) {
            (true, _) => println!("{}", serde_json::to_string_pretty(&rows)?),
            (false, None) => println!("No dyno has run this month"),
            (false, Some(first)) => {
                println!("=== Usage of {}\n", first.month);
                print!("{}", table(&rows));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(rows: &[UsageRow]) -> String {
    let head = ["app", "type", "size", "hours"].map(str::to_owned);
    let row = |row: &UsageRow| {
        let hours = format!("{:.2}", row.dyno_seconds as f64 / 3600.0);
        [row.app.clone(), row.process_type.clone(), row.size.clone(), hours]
    };
    let mut lines = vec![head];
    lines.extend(rows.iter().map(row));
    let seconds = rows.iter().map(|row| row.dyno_seconds).sum::<u64>();
    let total = format!("{:.2}", seconds as f64 / 3600.0);
    lines.push(["all".into(), String::new(), String::new(), total]);
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let [app, process_type, size, hours] = [0, 1, 2, 3].map(width);
    lines.iter().fold(String::new(), |mut text, line| {
        let [one, two, three, four] = line;
        writeln!(text, "{one:app$}  {two:process_type$}  {three:size$}  {four:>hours$}")
            .expect("writing to a string does not fail");
        text
    })
}

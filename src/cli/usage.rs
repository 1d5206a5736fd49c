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
        let path = match self.app.named()? {
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
    let hours = |seconds: u64| format!("{:.2}", seconds as f64 / 3600.0);
    let price = |cents: u64| format!("${}.{:02}", cents / 100, cents % 100);
    let line = |row: &UsageRow| {
        let UsageRow { app, process_type, size, dyno_seconds, cents, .. } = row;
        let price = cents.map_or("?".to_owned(), price);
        [app.clone(), process_type.clone(), size.clone(), hours(*dyno_seconds), price]
    };
    let mut lines = vec![["app", "type", "size", "hours", "price"].map(str::to_owned)];
    lines.extend(rows.iter().map(line));
    let seconds = rows.iter().map(|row| row.dyno_seconds).sum();
    let cents = rows.iter().filter_map(|row| row.cents).sum();
    lines.push(["all".into(), String::new(), String::new(), hours(seconds), price(cents)]);
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let [app, process_type, size, hours, price] = [0, 1, 2, 3, 4].map(width);
    lines.iter().fold(String::new(), |mut text, [one, two, three, four, five]| {
        writeln!(
            text,
            "{one:app$}  {two:process_type$}  {three:size$}  {four:>hours$}  {five:>price$}"
        )
        .expect("writing to a string does not fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_and_prices_stand_below_each_other() {
        let row = |app: &str, size: &str, dyno_seconds, cents| UsageRow {
            month: "2026-11".into(),
            app: app.into(),
            process_type: "web".into(),
            size: size.into(),
            dyno_seconds,
            cents,
        };
        let rows =
            [row("blog", "gone", 36, None), row("shop", "standard-1x", 1_296_000, Some(1250))];
        assert_eq!(
            table(&rows),
            "\
app   type  size          hours   price
blog  web   gone           0.01       ?
shop  web   standard-1x  360.00  $12.50
all                      360.01  $12.50
"
        );
    }
}

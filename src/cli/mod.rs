//! What a person types: one file per family of commands.
//!
//! Exit codes: 0, 1, and 64 (EX_USAGE of sysexits.h) for a wrong command line or configuration.

mod serve; // run the daemon
mod check; // what `serve` would do, what a reload would change
mod reload; // ask the daemon to read its file again
mod ca; // the local CA's certificate
mod ps; // an app's dynos
mod run; // a command in a dyno of its own
mod attached; // the person's end of one
mod logs; // what an app said
mod usage; // how long they ran
mod apps; // apps that commands make
mod listing; // what each of them has, in a list
mod config_vars; // what they are configured by
mod scale; // how many dynos of which size
mod maintenance; // whether requests are told to come later
mod domains; // names they answer at
mod certificates; // what is shown to clients there
mod addons; // what is outside, and they are told of
mod drains; // where their logs go
mod features; // what is switched on and off
mod sizes; // of which size their dynos are
mod wait; // until they run what was released last
mod releases; // what they ran and run
mod backup; // a copy of what is remembered
mod deploy; // what they are to run
mod token; // who may ask over the network
mod heroku_cli; // what the heroku CLI needs
mod env; // that, for a shell
mod heroku; // the heroku CLI itself
mod app; // which app, which daemon
mod manuals; // what shells and readers are told of all this
mod health; // ask the daemon whether it is well
mod doctor; // what this host can do for dynos
mod dyno; // what runs first inside a dyno
mod place; // which file, which socket

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::daemon::ServeError;
use crate::init;

/// A wrong command line or configuration.
const USAGE: u8 = 64;

/// A routing mesh and a dyno manager in one process: turns a VM into a small Heroku.
#[derive(Parser)]
#[command(name = "dynomesh", version, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Check(check::Check),
    Reload(reload::Reload),
    Ca(ca::PrintCa),
    Health(health::Health),
    Doctor(doctor::Doctor),
    Ps(ps::Ps),
    #[command(name = "ps:stop", visible_aliases = ["ps:kill", "stop", "kill"])]
    Stop(ps::Stop),
    #[command(name = "ps:restart", visible_alias = "restart")]
    Restart(ps::Restart),
    #[command(name = "ps:usage")]
    Usage(usage::Usage),
    #[command(name = "ps:scale", visible_alias = "scale")]
    Scale(scale::Scale),
    #[command(name = "ps:type", visible_alias = "ps:resize")]
    Type(sizes::Type),
    #[command(name = "ps:wait")]
    Wait(wait::Wait),
    Logs(logs::Logs),
    Run(run::Run),
    #[command(name = "run:detached")]
    RunDetached(run::RunDetached),
    Apps(apps::Apps),
    #[command(name = "apps:create", visible_alias = "create")]
    Create(apps::Create),
    #[command(name = "apps:destroy", visible_alias = "destroy")]
    Destroy(apps::Destroy),
    Config(config_vars::Config),
    #[command(name = "config:set", visible_alias = "config:add")]
    ConfigSet(config_vars::Set),
    #[command(name = "config:get")]
    ConfigGet(config_vars::Get),
    #[command(name = "config:unset", visible_alias = "config:remove")]
    ConfigUnset(config_vars::Unset),
    Backup(backup::Backup),
    Token(token::Tokens),
    #[command(name = "token:create")]
    TokenCreate(token::Create),
    #[command(name = "token:revoke")]
    TokenRevoke(token::Revoke),
    Env(env::Env),
    Deploy(deploy::Deploy),
    Heroku(heroku::Heroku),
    Releases(releases::Releases),
    #[command(name = "rollback", visible_alias = "releases:rollback")]
    Rollback(releases::Rollback),
    Maintenance(maintenance::Maintenance),
    #[command(name = "maintenance:on")]
    MaintenanceOn(maintenance::On),
    #[command(name = "maintenance:off")]
    MaintenanceOff(maintenance::Off),
    Domains(domains::Domains),
    #[command(name = "domains:add")]
    DomainsAdd(domains::Add),
    #[command(name = "domains:remove")]
    DomainsRemove(domains::Remove),
    Addons(addons::Addons),
    #[command(name = "addons:create")]
    AddonsCreate(addons::Create),
    #[command(name = "addons:info")]
    AddonsInfo(addons::Info),
    #[command(name = "addons:attach")]
    AddonsAttach(addons::Attach),
    #[command(name = "addons:detach")]
    AddonsDetach(addons::Detach),
    #[command(name = "addons:destroy")]
    AddonsDestroy(addons::Destroy),
    Certs(certificates::Certs),
    #[command(name = "certs:add")]
    CertsAdd(certificates::Add),
    #[command(name = "certs:info")]
    CertsInfo(certificates::Info),
    #[command(name = "certs:update")]
    CertsUpdate(certificates::Update),
    #[command(name = "certs:remove")]
    CertsRemove(certificates::Remove),
    Drains(drains::Drains),
    #[command(name = "drains:add")]
    DrainsAdd(drains::Add),
    #[command(name = "drains:remove")]
    DrainsRemove(drains::Remove),
    Features(features::Features),
    #[command(name = "features:enable")]
    FeaturesEnable(features::Enable),
    #[command(name = "features:disable")]
    FeaturesDisable(features::Disable),
    Completions(manuals::Completions),
    Man(manuals::Man),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let result = match args.get(1).and_then(|command| command.to_str()) {
        // The daemon writes this line, for each start of a dyno: it has a grammar of its own.
        Some("init") => dyno::init(args.into_iter().skip(2)),
        // What `serve` and `doctor` try a sandbox with.
        Some("try-sandbox") => dyno::try_sandbox(args.into_iter().skip(2)),
        // The example app, run by the Procfile of config/hello.
        Some("hello") => dyno::hello(),
        _ => match CommandLine::try_parse_from(args) {
            Ok(command_line) => command_line.command.run(),
            Err(error) => return say(&error),
        },
    };
    result.unwrap_or_else(|error| complain(&error))
}

impl Command {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve(serve) => serve.run(),
            Self::Check(check) => check.run(),
            Self::Reload(reload) => reload.run(),
            Self::Ca(ca) => ca.run(),
            Self::Health(health) => health.run(),
            Self::Doctor(doctor) => doctor.run(),
            Self::Ps(ps) => ps.run(),
            Self::Stop(stop) => stop.run(),
            Self::Restart(restart) => restart.run(),
            Self::Usage(usage) => usage.run(),
            Self::Scale(scale) => scale.run(),
            Self::Type(of_type) => of_type.run(),
            Self::Wait(wait) => wait.run(),
            Self::Logs(logs) => logs.run(),
            Self::Run(run) => run.run(),
            Self::RunDetached(run) => run.run(),
            Self::Apps(apps) => apps.run(),
            Self::Create(create) => create.run(),
            Self::Destroy(destroy) => destroy.run(),
            Self::Config(config) => config.run(),
            Self::ConfigSet(set) => set.run(),
            Self::ConfigGet(get) => get.run(),
            Self::ConfigUnset(unset) => unset.run(),
            Self::Backup(backup) => backup.run(),
            Self::Token(tokens) => tokens.run(),
            Self::TokenCreate(create) => create.run(),
            Self::TokenRevoke(revoke) => revoke.run(),
            Self::Env(env) => env.run(),
            Self::Deploy(deploy) => deploy.run(),
            Self::Heroku(heroku) => heroku.run(),
            Self::Releases(releases) => releases.run(),
            Self::Rollback(rollback) => rollback.run(),
            Self::Maintenance(maintenance) => maintenance.run(),
            Self::MaintenanceOn(on) => on.run(),
            Self::MaintenanceOff(off) => off.run(),
            Self::Domains(domains) => domains.run(),
            Self::DomainsAdd(add) => add.run(),
            Self::DomainsRemove(remove) => remove.run(),
            Self::Addons(addons) => addons.run(),
            Self::AddonsCreate(create) => create.run(),
            Self::AddonsInfo(info) => info.run(),
            Self::AddonsAttach(attach) => attach.run(),
            Self::AddonsDetach(detach) => detach.run(),
            Self::AddonsDestroy(destroy) => destroy.run(),
            Self::Certs(certs) => certs.run(),
            Self::CertsAdd(add) => add.run(),
            Self::CertsInfo(info) => info.run(),
            Self::CertsUpdate(update) => update.run(),
            Self::CertsRemove(remove) => remove.run(),
            Self::Drains(drains) => drains.run(),
            Self::DrainsAdd(add) => add.run(),
            Self::DrainsRemove(remove) => remove.run(),
            Self::Features(features) => features.run(),
            Self::FeaturesEnable(enable) => enable.run(),
            Self::FeaturesDisable(disable) => disable.run(),
            Self::Completions(completions) => completions.run(),
            Self::Man(man) => man.run(),
        }
    }
}

/// Prints clap's help, version or complaint.
fn say(error: &clap::Error) -> ExitCode {
    // Nobody is left to hear of a failed print.
    let _ = error.print();
    ExitCode::from(if error.exit_code() == 0 { 0 } else { USAGE })
}

/// Prints an error. Those of the configuration stand as they are, one per line, `file:line:` in front, where
/// editors look for it.
fn complain(error: &anyhow::Error) -> ExitCode {
    let config = match error.downcast_ref() {
        Some(ServeError::Config(error)) => Some(error),
        _ => error.downcast_ref::<ConfigError>(),
    };
    match config {
        Some(config) => eprintln!("{config}"),
        None => eprintln!("dynomesh: {}", chain(error)),
    }
    let usage = config.is_some() || error.is::<init::UsageError>();
    ExitCode::from(if usage { USAGE } else { 1 })
}

/// An error and its causes, but for those that the text before them names already.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        text if text.contains(&cause) => text.to_owned(),
        text => format!("{text}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::daemon::AccessLogError;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn causes_are_named_once() {
        let full = || std::io::Error::other("disk full");
        let check = |error: anyhow::Error, expected: &str| assert_eq!(chain(&error), expected);
        check(full().into(), "disk full");
        check(anyhow::Error::from(full()).context("write the file"), "write the file: disk full");
        let open = AccessLogError { path: "a.log".into(), source: full() };
        check(ServeError::from(open).into(), "open a.log: disk full ([router] access_log)");
    }

    #[test]
    fn exit_codes() {
        let check = |args: &[&str], expected: u8| {
            let args = std::iter::once("dynomesh").chain(args.iter().copied()).map(OsString::from);
            assert_eq!(run(args), ExitCode::from(expected));
        };
        check(&["--version"], 0);
        check(&["serve", "--help"], 0);
        check(&[], 64);
        check(&["sreve"], 64);
        check(&["serve", "--config"], 64);
        check(&["serve", "--config", "/nonexistent/dynomesh.toml"], 64);
        check(&["check", "--config", "/nonexistent/dynomesh.toml"], 64);
        check(&["init", "command"], 64);
        check(&["ca", "--config", "/nonexistent/dynomesh.toml"], 64);
        check(&["reload", "--socket", "/nonexistent/socket"], 1);
        check(&["health", "--socket", "/nonexistent/socket"], 1);
        check(&["doctor", "--config", "/nonexistent/dynomesh.toml"], 64);
    }
}

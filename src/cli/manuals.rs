//! `dynomesh completions` and `dynomesh man`: what shells and readers are told of the command line, made from it.

use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, ValueEnum};
use clap_complete::generate;
use clap_complete::shells::{Bash, Fish, Zsh};

use crate::cli::CommandLine;

const NAME: &str = "dynomesh";
/// Many commands have a colon in their names, at which bash would take them for several words.
const COLONS: &str =
    "\n# A command like ps:scale is one word.\nCOMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n";

/// Print what a shell completes: source <(dynomesh completions bash)
#[derive(clap::Args)]
pub(in crate::cli) struct Completions {
    /// For which shell
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        stdout().write_all(&script(self.shell)).context("write to standard output")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn script(shell: Shell) -> Vec<u8> {
    let (mut command, mut script) = (CommandLine::command(), Vec::new());
    match shell {
        Shell::Bash => {
            generate(Bash, &mut command, NAME, &mut script);
            script.extend(COLONS.as_bytes());
        }
        Shell::Zsh => generate(Zsh, &mut command, NAME, &mut script),
        Shell::Fish => generate(Fish, &mut command, NAME, &mut script),
    }
    script
}

/// Write a man page of each command into a directory: dynomesh man /usr/local/share/man/man1
#[derive(clap::Args)]
pub(in crate::cli) struct Man {
    /// Made where it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Man {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let written = fs::create_dir_all(&self.dir)
            .and_then(|()| clap_mangen::generate_to(CommandLine::command(), &self.dir));
        written.with_context(|| format!("write man pages into {}", self.dir.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_told_every_command() {
        let names: Vec<String> =
            CommandLine::command().get_subcommands().map(|it| it.get_name().to_owned()).collect();
        assert!(names.iter().any(|it| it == "ps:scale"), "{names:?}");
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for name in &names {
                // zsh has colons between a name and what it does.
                let known = script.contains(name) || script.contains(&name.replace(':', "\\:"));
                assert!(known, "{name} is not in\n{script}");
            }
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let man = Man { dir: dir.path().join("man1") };
        man.run().unwrap();
        let page = |name: &str| fs::read_to_string(man.dir.join(name)).unwrap();
        assert!(page("dynomesh.1").contains("routing mesh"));
        // What is hidden is for programs.
        for command in CommandLine::command().get_subcommands().filter(|it| !it.is_hide_set()) {
            let text = page(&format!("dynomesh-{}.1", command.get_name()));
            assert!(text.contains(".SH SYNOPSIS"), "{}", command.get_name());
        }
    }
}

//! Procfiles: never a panic, each mistake has a place in the text, and what is printed is read as the same.
#![no_main]

use dynomesh::config::procfile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let lines = text.lines().count();
    match procfile::parse(text) {
        Ok(procfile) => {
            assert!(
                procfile.warnings.iter().all(|it| (1..=lines).contains(&it.line) && it.column > 0)
            );
            let printed: String = procfile
                .commands
                .iter()
                .map(|(name, command)| format!("{name}: {command}\n"))
                .collect();
            let again = procfile::parse(&printed).expect("what was read can be read again");
            assert_eq!(again.commands, procfile.commands);
            assert!(again.warnings.is_empty());
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            assert!(mistakes.iter().all(|it| (1..=lines).contains(&it.line) && it.column > 0));
        }
    }
});

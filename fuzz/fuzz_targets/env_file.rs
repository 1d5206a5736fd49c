//! Environment files: never a panic, and every variable can be handed to a process.
#![no_main]

use dynomesh::config::env_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let file = env_file::parse(text);
    for (name, value) in &file.vars {
        assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
        assert!(!matches!(name.as_str(), "PORT" | "DYNO"));
    }
    let escape =
        |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let printed: String =
        file.vars.iter().map(|(name, value)| format!("{name}=\"{}\"\n", escape(value))).collect();
    assert_eq!(env_file::parse(&printed).vars, file.vars);
});

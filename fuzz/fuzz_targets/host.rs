//! Hosts: the form for look-up is lower-case and its own look-up form.
#![no_main]

use dynomesh::model::Host;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Host::parse(text) {
        Some(Host::Name(name)) => {
            assert!(
                !name.is_empty()
                    && name.is_ascii()
                    && !name.bytes().any(|byte| byte.is_ascii_uppercase())
            );
            assert!(!name.contains([':', '/', '@', '%', ' ', '[', ']']));
            assert!(text.len() >= name.len());
        }
        Some(Host::Address(address)) => {
            let printed =
                if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
            assert_eq!(Host::parse(&printed), Some(Host::Address(address)));
        }
        None => {}
    }
});

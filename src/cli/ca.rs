//! `dynomesh ca`

use std::io::{IsTerminal, stderr, stdout};
use std::process::ExitCode;

use crate::certs::Ca;
use crate::cli::place::File;

/// Print the certificate of the local CA, which signs for every name that has no other certificate
///
/// It is made when it is first needed, in the state directory, whose owner it belongs to. With standard
/// output redirected (`dynomesh ca >ca.pem`) nothing but the certificate is printed; at a terminal also how
/// programs are told to trust it.
#[derive(clap::Args)]
pub(in crate::cli) struct PrintCa {
    #[command(flatten)]
    file: File,
}

impl PrintCa {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let config = self.file.load()?;
        let ca = Ca::open(&config.state_dir)?;
        print!("{}", ca.pem());
        if stdout().is_terminal() && stderr().is_terminal() {
            eprint!("{}", how_to_trust(&ca.file().display().to_string()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What to type so that programs trust the certificate in this file.
fn how_to_trust(file: &str) -> String {
    format!(
        "
This is {file}.
Whoever has the key beside it can pass for any site with those who trust it: trust it on your own machines only.

  once        curl --cacert {file} https://…
  Debian      cp {file} /usr/local/share/ca-certificates/dynomesh.crt && update-ca-certificates
  Fedora      cp {file} /etc/pki/ca-trust/source/anchors/dynomesh.pem && update-ca-trust
  macOS       security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {file}
  Chromium    certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n dynomesh -i {file}
  Firefox     Settings, Privacy & Security, View Certificates, Authorities, Import
  OpenSSL     export SSL_CERT_FILE={file} (Python, Ruby and others too; it replaces the system's authorities)
  Node.js     export NODE_EXTRA_CA_CERTS={file}
"
    )
}

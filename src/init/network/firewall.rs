//! What lets dynos out, and nobody in: a table of the host's firewall (nft(8)), and that the host forwards at all.
//!
//! What keeps dynos apart does not hang on it: it may be flushed at any time.

use std::fs;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

use ipnet::Ipv4Net;
use rustix::io::Errno;

/// Whether the host passes on what arrives for somebody else (`ip-sysctl.rst` of the kernel).
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The names of nft, where the search path of a service may not have all directories.
const NFT: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// A table of the host's firewall, for the dynos of one daemon.
#[derive(Clone, Debug)]
pub struct Firewall {
    /// Its name.
    pub table: String,
    /// The addresses of the dynos.
    pub addresses: Ipv4Net,
}

/// Why dynos reach nothing beyond the host.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// It is not installed.
    #[error("there is no nft (nftables)")]
    NoProgram,
    /// It cannot be run.
    #[error("run nft: {0}")]
    Run(io::Error),
    /// It, or the kernel, refuses the table.
    #[error("nft: {0}")]
    Refused(String),
    /// The host does not forward, and cannot be told to.
    #[error("switch {FORWARD} on: {0}")]
    Forward(io::Error),
}

impl Firewall {
    /// Puts it up, in place of what may be there under its name, in one step. Says whether the host forwarded nothing
    /// until now.
    ///
    /// # Errors
    /// Then it is as it was.
    pub fn raise(&self) -> Result<bool, FirewallError> {
        run(&self.ruleset())?;
        let forwards = fs::read(FORWARD).map_err(FirewallError::Forward)?.starts_with(b"1");
        if !forwards {
            fs::write(FORWARD, "1").map_err(FirewallError::Forward)?;
        }
        Ok(!forwards)
    }

    /// Takes it down. That it is not there is fine.
    ///
    /// # Errors
    /// It may be there still.
    pub fn raze(&self) -> Result<(), FirewallError> {
        run(&self.removal())
    }

    fn removal(&self) -> String {
        let Self { table, .. } = self;
        // To delete one that is not there is an error, to make one that is there is none.
        format!("table ip {table} {{}}\ndelete table ip {table}\n")
    }

    /// The table. What other tables drop is dropped all the same.
    fn ruleset(&self) -> String {
        let Self { table, addresses } = self;
        // RFC 3927 §2.7: a router must not forward what is for link-local addresses. Clouds have there what gives out
        // the rights of the host, and name servers.
        let removal = self.removal();
        format!(
            "{removal}\
             table ip {table} {{\n\
             \tchain forward {{\n\
             \t\ttype filter hook forward priority 0; policy accept;\n\
             \t\tip saddr {addresses} ip daddr {addresses} drop\n\
             \t\tip saddr {addresses} ip daddr 169.254.0.0/16 udp dport 53 accept\n\
             \t\tip saddr {addresses} ip daddr 169.254.0.0/16 tcp dport 53 accept\n\
             \t\tip saddr {addresses} ip daddr 169.254.0.0/16 drop\n\
             \t\tip daddr {addresses} ct state established,related accept\n\
             \t\tip daddr {addresses} drop\n\
             \t}}\n\
             \tchain postrouting {{\n\
             \t\ttype nat hook postrouting priority 100; policy accept;\n\
             \t\tip saddr {addresses} ip daddr != {addresses} masquerade\n\
             \t}}\n\
             }}\n"
        )
    }
}

/// Has nft do this, all of it or nothing.
fn run(script: &str) -> Result<(), FirewallError> {
    let mut nft = start()?;
    let mut said = String::new();
    // It reads all before it says anything, and what it says fits into a pipe; one that has ended reads nothing.
    let wrote = nft.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    if let Some(stderr) = &mut nft.stderr {
        stderr.read_to_string(&mut said).map_err(FirewallError::Run)?;
    }
    let done = match nft.wait() {
        Ok(status) => status.success(),
        // The daemon has one place that waits for all children, and it was faster.
        Err(error) if error.raw_os_error() == Some(Errno::CHILD.raw_os_error()) => said.is_empty(),
        Err(error) => return Err(FirewallError::Run(error)),
    };
    match wrote {
        Ok(()) if done => Ok(()),
        Err(error) if said.is_empty() => Err(FirewallError::Run(error)),
        _ => {
            // The first line says what, those below it where.
            let what = said.lines().next().unwrap_or("it failed without a word");
            Err(FirewallError::Refused(what.to_owned()))
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a tool of the host's, by which nothing of a dyno is run"
)]
fn start() -> Result<Child, FirewallError> {
    for name in NFT {
        let mut nft = Command::new(name);
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        match nft.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            started => return started.map_err(FirewallError::Run),
        }
    }
    Err(FirewallError::NoProgram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_replaced_in_one_step() {
        let addresses = "10.213.0.0/16".parse().unwrap();
        let firewall = Firewall { table: "dynomesh-1".into(), addresses };
        let ruleset = firewall.ruleset();
        assert!(ruleset.starts_with(
            "table ip dynomesh-1 {}\ndelete table ip dynomesh-1\ntable ip dynomesh-1 {\n"
        ));
        assert!(ruleset.contains("\t\tip saddr 10.213.0.0/16 ip daddr 10.213.0.0/16 drop\n"));
        assert_eq!(ruleset.matches('{').count(), ruleset.matches('}').count());
    }
}

//! What `serve` would do with a configuration, in words.

use std::fmt::{self, Write};

use crate::config::{AppSummary, SourceSummary, Summary};

impl Summary {
    /// Listeners, apps with their domains and dynos, what differs from the defaults, and warnings.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing to a string does not fail");
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "{}", self.file)?;
        writeln!(out, "router")?;
        line(out, "http", &self.http.join(", "))?;
        line(out, "domain", &format!("apps answer at NAME.{}", self.domain))?;
        line(out, "default app", self.default_app.as_deref().unwrap_or("none"))?;
        line(out, "workers", &self.workers.to_string())?;
        line(out, "access log", &self.access_log)?;
        if !self.trusted_proxies.is_empty() {
            line(out, "trusts", &self.trusted_proxies.join(", "))?;
        }
        for (key, value) in &self.timeouts {
            if let Some(default) = Self::default_timeout(key).filter(|default| default != value) {
                line(out, &format!("timeouts.{key}"), &format!("{value} (default {default})"))?;
            }
        }
        writeln!(out, "admin")?;
        match &self.admin_http {
            Some(addr) => line(out, "http", &format!("{addr} (/metrics /healthz /readyz)"))?,
            None => line(out, "http", "none")?,
        }
        line(out, "socket", &self.admin_socket)?;
        writeln!(out, "state")?;
        line(out, "dir", &self.state_dir)?;
        for (name, app) in &self.apps {
            writeln!(out, "app {name}")?;
            app.write(out)?;
        }
        if self.apps.is_empty() {
            writeln!(out, "no apps")?;
        }
        if !self.warnings.is_empty() {
            writeln!(out, "warnings")?;
        }
        for warning in &self.warnings {
            writeln!(out, "  {warning}")?;
        }
        Ok(())
    }
}

impl AppSummary {
    fn write(&self, out: &mut String) -> fmt::Result {
        line(out, "domains", &self.domains.join(", "))?;
        match &self.source {
            SourceSummary::Managed { dir, commands, formation, config_vars } => {
                line(out, "dir", dir)?;
                for (process_type, command) in commands {
                    let count = formation.get(process_type).copied().unwrap_or_default();
                    line(out, process_type, &format!("{count} × {command}"))?;
                }
                if !config_vars.is_empty() {
                    let names: Vec<&str> = config_vars.keys().map(String::as_str).collect();
                    line(out, "config vars", &names.join(", "))?;
                }
            }
            SourceSummary::External(dynos) => line(out, "dynos", &dynos.join(", "))?,
            SourceSummary::Blank => line(out, "dynos", "none: requests are answered with H81")?,
        }
        let defaults = Self::default_settings();
        for (key, value) in &self.settings {
            match defaults.get(key) {
                Some(default) if default == value => {}
                Some(default) => line(out, key, &format!("{value} (default {default})"))?,
                None => line(out, key, value)?,
            }
        }
        Ok(())
    }
}

fn line(out: &mut String, key: &str, value: &str) -> fmt::Result {
    writeln!(out, "  {key:<12} {value}")
}

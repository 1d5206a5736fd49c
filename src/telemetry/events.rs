//! tracing's events as lines of the same form: `TIMESTAMP - dynomesh[router]: message key=value`.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use crate::telemetry::AppLog;

/// Sends every event of level `info` and above of this crate to the log, for the life of the process.
/// A second call has no effect.
pub fn install(log: AppLog) {
    let _ = tracing::subscriber::set_global_default(registry().with(Lines { log }));
}

struct Lines {
    log: AppLog,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("dynomesh")
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        let target = event.metadata().target();
        let part = target.split("::").nth(1).unwrap_or("daemon");
        let text = match *event.metadata().level() {
            Level::ERROR => format!("error: {}{}", message.text, message.fields),
            Level::WARN => format!("warning: {}{}", message.text, message.fields),
            _ => message.text + &message.fields,
        };
        self.log.daemon(&part, &text);
    }
}

#[derive(Default)]
struct Message {
    text: String,
    fields: String,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.text, "{value}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

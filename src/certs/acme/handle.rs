//! The way in: whoever builds the daemon starts it, tells it of new configurations, and asks how names stand.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::certs::Certs;
use crate::certs::acme::board::{AcmeStatus, Board};
use crate::certs::acme::manager::{Manager, Means};
use crate::certs::acme::order::Server;
use crate::certs::acme::wanted::Wanted;
use crate::config::Config;
use crate::random;
use crate::shutdown::Shutdown;

/// Automatic certificates of the running daemon.
pub struct Acme {
    certs: Arc<Certs>,
    wanted: watch::Sender<Option<Arc<Wanted>>>,
    board: Board,
}

impl Acme {
    /// Serves the certificates that are kept on the disk, then begins to order what is missing. They are
    /// served when this returns; the server is asked later.
    pub async fn start(certs: Arc<Certs>, config: &Config, shutdown: &Shutdown) -> Self {
        let board = Board::default();
        let challenges = certs.clone();
        let means = Means {
            certs: certs.clone(),
            state_dir: config.state_dir.clone(),
            board: board.clone(),
            authority: Box::new(move |wanted, store| {
                Server::new(wanted.config.clone(), store.clone(), challenges.clone())
            }),
            now: SystemTime::now,
            random: random::fraction,
        };
        let first = wanted(&certs, config);
        let (wanted, changes) = watch::channel(first.clone());
        let mut manager = Manager::new(means);
        manager.apply(first).await;
        shutdown.spawn(manager.run(changes, shutdown.clone()));
        Self { certs, wanted, board }
    }

    /// Takes over what this configuration wants. Call it when its own certificates are served.
    pub fn apply(&self, config: &Config) {
        let wanted = wanted(&self.certs, config);
        self.wanted.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }

    /// How each name stands, in their order.
    pub fn states(&self) -> Vec<AcmeStatus> {
        self.board.states()
    }
}

fn wanted(certs: &Certs, config: &Config) -> Option<Arc<Wanted>> {
    Wanted::of(config, |name| certs.has_own(name)).map(Arc::new)
}

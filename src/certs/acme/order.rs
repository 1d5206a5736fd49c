//! One order, step by step, with a server that speaks RFC 8555.
//!
//! instant-acme speaks it; what is decided here is what is asked, when to give up, and what people are told.

use std::sync::Arc;

use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, ChallengeType, Error,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::certs::Certs;
use crate::certs::acme::authority::{Authority, Failure, Issued, Job, OrderError};
use crate::certs::acme::https::{AskError, Https, Told};
use crate::certs::acme::shown::Shown;
use crate::certs::acme::store::{Store, StoredAccount};
use crate::certs::acme::wanted::Proof;
use crate::config::{AcmeConfig, limits};
use crate::outside::Dialer;

/// How long the server is asked after what it does.
const POLLS: RetryPolicy =
    RetryPolicy::new().initial_delay(limits::ACME_POLL_FIRST).timeout(limits::ACME_POLL);

/// A server, and our account there.
pub(crate) struct Server {
    config: AcmeConfig,
    store: Store,
    certs: Arc<Certs>,
    /// Opened by the first order that needs it, while the others wait: an account is made once. Forgotten
    /// when an order fails, so that the next one asks for the directory anew.
    account: Mutex<Option<Account>>,
}

/// Why an order is over.
enum Trouble {
    Stopped,
    Failed(Failure),
    /// The server does not know our account (any more).
    Disowned(Failure),
}

impl Authority for Server {
    async fn order(&self, job: Job) -> Result<Issued, OrderError> {
        let account = self.account().await?;
        let failure = match self.certificate(&account, &job).await {
            Ok(issued) => return Ok(issued),
            Err(Trouble::Stopped) => return Err(OrderError::Stopped),
            Err(Trouble::Failed(failure)) => failure,
            Err(Trouble::Disowned(failure)) => {
                self.set_account_aside(account.id(), &failure).await?;
                failure
            }
        };
        let mut known = self.account.lock().await;
        // Another order may have opened a new one meanwhile.
        known.take_if(|known| known.id() == account.id());
        Err(failure.into())
    }
}

impl Server {
    /// Asks nobody yet.
    pub(crate) fn new(config: AcmeConfig, store: Store, certs: Arc<Certs>) -> Self {
        Self { config, store, certs, account: Mutex::default() }
    }

    async fn certificate(&self, account: &Account, job: &Job) -> Result<Issued, Trouble> {
        job.steps.go_on()?;
        let identifiers = [Identifier::Dns(job.name.to_string())];
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
        job.steps.go_on()?;
        // A server that remembers an earlier proof has the order ready at once.
        if order.state().status == OrderStatus::Pending {
            self.prove(&mut order, job).await?;
        }
        job.steps.verified(&job.name).await?;
        let key = KeyPair::generate().map_err(Failure::new)?;
        let request = signing_request(&job.name, &key).map_err(Failure::new)?;
        order.finalize_csr(&request).await?;
        let chain = job.steps.wait_for(order.poll_certificate(&POLLS)).await??;
        Ok(Issued { chain, key: key.serialize_pem() })
    }

    // ---- the proof (RFC 8555 §7.5) -----------------------------------------------------------------------

    async fn prove(&self, order: &mut Order, job: &Job) -> Result<(), Trouble> {
        let Some((proof, shown)) = self.show(order, job).await? else { return Ok(()) };
        job.steps.go_on()?;
        let status = job.steps.wait_for(order.poll_ready(&POLLS)).await??;
        drop(shown);
        match status {
            OrderStatus::Ready => Ok(()),
            _ => Err(Trouble::Failed(verdict(order, proof).await)),
        }
    }

    /// Shows what the server will look for, and tells it to look. `None`: it needs no proof.
    async fn show(&self, order: &mut Order, job: &Job) -> Result<Option<(Proof, Shown)>, Trouble> {
        let mut authorizations = order.authorizations();
        let Some(authorization) = authorizations.next().await else {
            return Err(Failure::new("the server's order has no authorization").into());
        };
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => return Ok(None),
            AuthorizationStatus::Pending => {}
            status => {
                let reason = format!("the server's authorization is {status:?}");
                return Err(Failure::new(reason).into());
            }
        }
        let offered =
            |proof: &Proof| authorization.challenges.iter().any(|it| it.r#type == kind(*proof));
        let Some(proof) = job.proofs.iter().copied().find(offered) else {
            let proofs = job.proofs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Failure::new(format!("the server does not offer {proofs}")).into());
        };
        let challenge = authorization.challenge(kind(proof));
        let mut challenge = challenge.expect("it is among those that are offered");
        let key = challenge.key_authorization();
        let shown = match proof {
            Proof::TlsAlpn01 => Shown::tls(&self.certs, &job.name, key.digest().as_ref()),
            Proof::Http01 => Ok(Shown::http(&self.certs, &challenge.token, key.as_str())),
        };
        let shown = shown.map_err(Failure::new)?;
        challenge.set_ready().await?;
        Ok(Some((proof, shown)))
    }

    // ---- the account (RFC 8555 §7.3) ---------------------------------------------------------------------

    async fn account(&self) -> Result<Account, OrderError> {
        let mut account = self.account.lock().await;
        if let Some(account) = &*account {
            return Ok(account.clone());
        }
        match self.open_account().await {
            Ok(opened) => Ok(account.insert(opened).clone()),
            Err(Trouble::Stopped) => Err(OrderError::Stopped),
            Err(Trouble::Failed(failure) | Trouble::Disowned(failure)) => Err(failure.into()),
        }
    }

    async fn open_account(&self) -> Result<Account, Trouble> {
        let (ca_file, store) = (self.config.ca_file.clone(), self.store.clone());
        let read = move || {
            let https = Https::new(
                Dialer::new(ca_file.as_deref(), "[acme] ca_file").map_err(Failure::new)?,
            );
            // An account that could not be kept would be made anew at each start.
            store.prepare().map_err(Failure::new)?;
            Ok::<_, Failure>((https, store.account()))
        };
        let (https, stored) = on_disk(read).await??;
        let builder = Account::builder_with_http(Box::new(https));
        match stored {
            Some(stored) => self.restore_account(builder, stored).await,
            None => self.make_account(builder).await,
        }
    }

    async fn make_account(&self, builder: AccountBuilder) -> Result<Account, Trouble> {
        let contact = self.contact();
        let wish = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let made = builder.create(&wish, self.config.directory.clone(), None).await?;
        let (account, credentials) = made;
        tracing::info!("ACME: made the account {}", account.id());
        self.keep_account(serde_json::to_value(credentials).map_err(Failure::new)?).await?;
        Ok(account)
    }

    async fn restore_account(
        &self,
        builder: AccountBuilder,
        stored: StoredAccount,
    ) -> Result<Account, Trouble> {
        let credentials = AccountCredentials::deserialize(&stored.credentials);
        let credentials = credentials.map_err(Failure::new)?;
        let account = builder.from_credentials(credentials).await?;
        if stored.contact != self.config.contact {
            match account.update_contacts(&self.contact()).await.map_err(Trouble::from) {
                Ok(()) => self.keep_account(stored.credentials).await?,
                Err(trouble) => {
                    if let Trouble::Disowned(failure) = &trouble {
                        self.set_account_aside(account.id(), failure).await?;
                    }
                    return Err(trouble);
                }
            }
        }
        Ok(account)
    }

    async fn keep_account(&self, credentials: Value) -> Result<(), Failure> {
        let (store, contact) = (self.store.clone(), self.config.contact.clone());
        let saved =
            on_disk(move || store.save_account(&StoredAccount { contact, credentials })).await?;
        if let Err(error) = saved {
            // It is good for as long as we run; what it is for must not wait for the disk.
            tracing::error!("failed to keep the ACME account: {error}");
        }
        Ok(())
    }

    /// The next order makes another account.
    async fn set_account_aside(&self, id: &str, failure: &Failure) -> Result<(), Failure> {
        let (store, id, reason) = (self.store.clone(), id.to_owned(), failure.reason.clone());
        on_disk(move || store.set_account_aside(&id, &reason)).await
    }

    fn contact(&self) -> Vec<&str> {
        self.config.contact.iter().map(String::as_str).collect()
    }
}

/// Runs what waits for the disk beside the runtime, which has dynos to watch.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(Failure::new)
}

/// RFC 8555 §7.4: a request for this name, signed by its key. DER.
fn signing_request(name: &str, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

fn kind(proof: Proof) -> ChallengeType {
    match proof {
        Proof::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Proof::Http01 => ChallengeType::Http01,
    }
}

/// Why the server did not take the proof: it says so at the challenge (RFC 8555 §8).
async fn verdict(order: &mut Order, proof: Proof) -> Failure {
    let mut authorizations = order.authorizations();
    if let Some(Ok(mut authorization)) = authorizations.next().await
        && let Ok(state) = authorization.refresh().await
        && let Some(problem) = state.challenges.iter().find_map(|it| it.error.as_ref())
    {
        return Failure::new(format!("{proof}: {}", Told(problem)));
    }
    Failure::new(format!("{proof}: the server does not say why"))
}

impl From<OrderError> for Trouble {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Stopped => Self::Stopped,
            OrderError::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(match error {
            Error::Api(problem) => Failure::new(Told(&problem)),
            Error::Json(error) => {
                Failure::new(format!("the server's answer makes no sense: {error}"))
            }
            Error::Timeout(next) => Failure {
                retry_after: next.map(|it| it.duration_since(Instant::now().into_std())),
                ..Failure::new(format!("the server took longer than {:?}", limits::ACME_POLL))
            },
            Error::Other(error) => match error.downcast::<AskError>() {
                Ok(error) => return Self::of_answer(&error),
                Err(error) => Failure::new(error),
            },
            error => Failure::new(error),
        })
    }
}

impl Trouble {
    fn of_answer(error: &AskError) -> Self {
        let failure = Failure::new(error);
        let AskError::Refused(refused) = error else { return Self::Failed(failure) };
        let failure = Failure { retry_after: refused.retry_after, ..failure };
        match refused.is("accountDoesNotExist") {
            true => Self::Disowned(failure),
            false => Self::Failed(failure),
        }
    }
}

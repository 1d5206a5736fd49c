//! The server's book: accounts, orders, nonces, and what may be done with them in which state.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::jose::{Jwk, Signed, decode};
use super::{Body, Fault, Issued, Reply, Resource, Shared};

/// Every so many requests the nonce is refused, though it is good: a server may forget nonces (§6.5).
const BAD_NONCE_EACH: usize = 7;

pub(super) struct Book {
    pub(super) kinds: Vec<&'static str>,
    pub(super) faults: Vec<(Resource, Fault)>,
    pub(super) issued: Issued,
    pub(super) dawdle: u32,
    pub(super) accounts: Vec<Account>,
    pub(super) orders: Vec<Order>,
    pub(super) asked: Vec<Resource>,
    nonces: BTreeSet<String>,
    nonces_made: usize,
    nonces_used: usize,
}

pub(super) struct Account {
    key: Jwk,
    pub(super) contact: Vec<String>,
}

/// An order, and its only authorization.
pub(super) struct Order {
    account: usize,
    pub(super) name: String,
    /// §7.1.6: pending, ready, processing, valid, invalid.
    pub(super) status: &'static str,
    /// The challenge that the client chose.
    pub(super) answered: Option<&'static str>,
    token: String,
    /// pending, valid, invalid.
    authorization: &'static str,
    problem: Option<Problem>,
    dawdle: u32,
    chain: Option<String>,
}

/// A challenge that is to be validated.
pub(super) struct Challenge {
    pub(super) order: usize,
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) token: String,
    pub(super) key_authorization: String,
}

/// §6.7.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: u16,
    kind: &'static str,
    detail: String,
}

impl Problem {
    pub(super) fn new(status: u16, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into() }
    }

    pub(super) fn json(&self) -> Value {
        let Self { status, kind, detail } = self;
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        json!({ "type": kind, "detail": detail, "status": status })
    }
}

impl Default for Book {
    fn default() -> Self {
        Self {
            kinds: vec!["http-01", "dns-01", "tls-alpn-01"],
            faults: Vec::new(),
            issued: Issued::default(),
            dawdle: 0,
            accounts: Vec::new(),
            orders: Vec::new(),
            asked: Vec::new(),
            nonces: BTreeSet::new(),
            nonces_made: 0,
            nonces_used: 0,
        }
    }
}

impl Book {
    /// Notes that a resource was asked for, and says what is to go wrong with it.
    pub(super) fn note(&mut self, resource: Resource) -> Option<Fault> {
        self.asked.push(resource);
        let at = self.faults.iter().position(|(of, _)| *of == resource)?;
        Some(self.faults.remove(at).1)
    }

    // ---- nonces (§6.5) -----------------------------------------------------------------------------------

    pub(super) fn nonce(&mut self) -> String {
        self.nonces_made += 1;
        let nonce = format!("nonce-{}", self.nonces_made);
        self.nonces.insert(nonce.clone());
        nonce
    }

    pub(super) fn use_nonce(&mut self, nonce: &str) -> Result<(), Problem> {
        self.nonces_used += 1;
        let known = self.nonces.remove(nonce);
        match known && !self.nonces_used.is_multiple_of(BAD_NONCE_EACH) {
            true => Ok(()),
            false => Err(Problem::new(400, "badNonce", "this nonce is not known")),
        }
    }

    // ---- accounts (§7.3) ---------------------------------------------------------------------------------

    pub(super) fn new_account(&mut self, signed: &Signed) -> Result<Reply, Problem> {
        if signed.kid.is_some() {
            return Err(Problem::new(400, "malformed", "a new account sends its key"));
        }
        let wish = parse(&signed.payload)?;
        if let Some(known) = self.accounts.iter().position(|account| account.key == signed.key) {
            return Ok(Reply { status: 200, ..self.account_reply(known) });
        }
        if wish["termsOfServiceAgreed"] != true {
            return Err(Problem::new(403, "userActionRequired", "agree to the terms of service"));
        }
        let contact = contacts(&wish);
        self.accounts.push(Account { key: signed.key.clone(), contact });
        Ok(self.account_reply(self.accounts.len() - 1))
    }

    fn account_reply(&self, number: usize) -> Reply {
        let contact = &self.accounts[number].contact;
        let value = json!({ "status": "valid", "contact": contact });
        Reply::created(value, format!("/account/{number}"))
    }

    pub(super) fn change_account(
        &mut self,
        number: usize,
        payload: &[u8],
    ) -> Result<Reply, Problem> {
        if !payload.is_empty() {
            self.accounts[number].contact = contacts(&parse(payload)?);
        }
        Ok(Reply { status: 200, ..self.account_reply(number) })
    }

    /// The account that signed, by the URL that it was given.
    pub(super) fn account(&self, shared: &Shared, signed: &Signed) -> Result<usize, Problem> {
        let Some(kid) = &signed.kid else {
            return Err(Problem::new(400, "malformed", "this is asked by an account"));
        };
        self.numbered(shared, kid)
    }

    pub(super) fn key(&self, shared: &Shared, kid: &str) -> Result<Jwk, Problem> {
        self.numbered(shared, kid).map(|number| self.accounts[number].key.clone())
    }

    fn numbered(&self, shared: &Shared, kid: &str) -> Result<usize, Problem> {
        let number = kid.strip_prefix(&shared.url("/account/"));
        let number = number.and_then(|number| number.parse::<usize>().ok());
        let number = number.filter(|number| *number < self.accounts.len());
        number.ok_or(Problem::new(400, "accountDoesNotExist", "no such account"))
    }

    // ---- orders (§7.4) -----------------------------------------------------------------------------------

    pub(super) fn new_order(
        &mut self,
        shared: &Shared,
        account: usize,
        payload: &[u8],
    ) -> Result<Reply, Problem> {
        let wish = parse(payload)?;
        let [identifier] = wish["identifiers"].as_array().map_or(&[][..], Vec::as_slice) else {
            return Err(Problem::new(400, "malformed", "one name an order"));
        };
        let (Some("dns"), Some(name)) = (identifier["type"].as_str(), identifier["value"].as_str())
        else {
            return Err(Problem::new(400, "unsupportedIdentifier", "DNS names only"));
        };
        let number = self.orders.len();
        self.orders.push(Order {
            account,
            name: name.to_owned(),
            status: "pending",
            answered: None,
            token: format!("token-of-order-{number}"),
            authorization: "pending",
            problem: None,
            dawdle: self.dawdle,
            chain: None,
        });
        Ok(Reply::created(self.order_json(shared, number), format!("/order/{number}")))
    }

    pub(super) fn poll(
        &mut self,
        shared: &Shared,
        account: usize,
        number: usize,
    ) -> Result<Reply, Problem> {
        let order = self.order(account, number)?;
        if order.status == "processing" {
            match order.dawdle.checked_sub(1) {
                Some(left) => order.dawdle = left,
                None => order.status = "valid",
            }
        }
        Ok(Reply::json(self.order_json(shared, number)))
    }

    fn order_json(&self, shared: &Shared, number: usize) -> Value {
        let order = &self.orders[number];
        let mut value = json!({
            "status": order.status,
            "identifiers": [{ "type": "dns", "value": order.name }],
            "authorizations": [shared.url(&format!("/authorization/{number}"))],
            "finalize": shared.url(&format!("/finalize/{number}")),
        });
        if order.status == "valid" {
            value["certificate"] = shared.url(&format!("/certificate/{number}")).into();
        }
        value
    }

    fn order(&mut self, account: usize, number: usize) -> Result<&mut Order, Problem> {
        let order = self.orders.get_mut(number).filter(|order| order.account == account);
        order.ok_or(Problem::new(404, "malformed", "this account has no such order"))
    }

    // ---- authorizations and challenges (§7.5) --------------------------------------------------------------

    pub(super) fn authorization(
        &mut self,
        shared: &Shared,
        account: usize,
        number: usize,
    ) -> Result<Reply, Problem> {
        self.order(account, number)?;
        let order = &self.orders[number];
        let kinds = self.kinds.iter();
        let challenges = kinds.map(|kind| self.challenge(shared, number, kind));
        let challenges = challenges.collect::<Vec<_>>();
        Ok(Reply::json(json!({
            "status": order.authorization,
            "identifier": { "type": "dns", "value": order.name },
            "challenges": challenges,
        })))
    }

    pub(super) fn challenge(&self, shared: &Shared, number: usize, kind: &str) -> Value {
        let order = &self.orders[number];
        let status = match (order.answered == Some(kind), order.authorization) {
            (true, "pending") => "processing",
            (true, status) => status,
            (false, _) => "pending",
        };
        let mut value = json!({
            "type": kind,
            "url": shared.url(&format!("/challenge/{number}/{kind}")),
            "token": order.token,
            "status": status,
        });
        if let (true, Some(problem)) = (order.answered == Some(kind), &order.problem) {
            value["error"] = problem.json();
        }
        value
    }

    /// The client says that it is ready for this one (§7.5.1).
    pub(super) fn answer(
        &mut self,
        account: usize,
        number: usize,
        kind: &str,
        signed: &Signed,
    ) -> Result<Challenge, Problem> {
        let kinds = self.kinds.clone();
        let order = self.order(account, number)?;
        let Some(kind) = kinds.into_iter().find(|offered| *offered == kind) else {
            return Err(Problem::new(404, "malformed", "this challenge is not offered"));
        };
        if parse(&signed.payload)? != json!({}) {
            return Err(Problem::new(400, "malformed", "a challenge is answered with {}"));
        }
        if order.authorization != "pending" || order.answered.is_some() {
            return Err(Problem::new(400, "malformed", "a challenge was answered already"));
        }
        order.answered = Some(kind);
        let key_authorization = format!("{}.{}", order.token, signed.key.thumbprint());
        let (name, token) = (order.name.clone(), order.token.clone());
        Ok(Challenge { order: number, kind, name, token, key_authorization })
    }

    /// What came of looking for it (§7.1.6).
    pub(super) fn validated(&mut self, number: usize, outcome: Result<(), Problem>) {
        let order = &mut self.orders[number];
        (order.authorization, order.status) = match outcome {
            Ok(()) => ("valid", "ready"),
            Err(_) => ("invalid", "invalid"),
        };
        order.problem = outcome.err();
    }

    // ---- certificates (§7.4, §7.4.2) -----------------------------------------------------------------------

    pub(super) fn finalize(
        &mut self,
        shared: &Shared,
        account: usize,
        number: usize,
        payload: &[u8],
    ) -> Result<Reply, Problem> {
        let issued = self.issued;
        let order = self.order(account, number)?;
        if order.status != "ready" {
            let detail = format!("the order is {}", order.status);
            return Err(Problem::new(403, "orderNotReady", detail));
        }
        let wish = parse(payload)?;
        let csr = decode(wish["csr"].as_str().unwrap_or_default())?;
        let chain = shared.issuer.issue(&csr, &order.name, issued);
        order.chain = Some(chain.map_err(|detail| Problem::new(400, "badCSR", detail))?);
        order.status = "processing";
        Ok(Reply { retry_after: Some(1), ..Reply::json(self.order_json(shared, number)) })
    }

    pub(super) fn certificate(&mut self, account: usize, number: usize) -> Result<Reply, Problem> {
        let order = self.order(account, number)?;
        match (order.status, &order.chain) {
            ("valid", Some(chain)) => {
                Ok(Reply { body: Body::Chain(chain.clone()), ..Reply::json(Value::Null) })
            }
            _ => Err(Problem::new(404, "malformed", "there is no certificate yet")),
        }
    }
}

fn parse(payload: &[u8]) -> Result<Value, Problem> {
    let parsed = serde_json::from_slice(payload);
    parsed.map_err(|_| Problem::new(400, "malformed", "the payload is not JSON"))
}

fn contacts(wish: &Value) -> Vec<String> {
    let contacts = wish["contact"].as_array().into_iter().flatten();
    contacts.filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

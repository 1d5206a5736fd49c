//! Whether a request may be sent again after its connection to a dyno failed.

use std::io;

use crate::router::request::Request;

/// What had happened when the connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Some byte of the request was accepted by the socket.
    pub(crate) sent_any: bool,
    /// Some byte of an answer was read, interim ones included.
    pub(crate) answered_any: bool,
    /// The connection had carried a request before this one.
    pub(crate) reused: bool,
    /// The request was sent again already, by rule b or c.
    pub(crate) retried: bool,
}

/// Where the request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Nowhere.
    No,
    /// To any dyno, on a fresh connection.
    AnyDyno,
    /// To another dyno, never to this one.
    AnotherDyno,
}

/// The three rules (ARCHITECTURE.md, "Retry"): never what may not be repeated, never twice.
pub(crate) fn retry(request: &Request, failure: Failure) -> Retry {
    let Failure { sent_any, answered_any, reused, retried } = failure;
    match (sent_any, reused) {
        // a. The dyno has seen nothing of it: any method. A reused connection says nothing against its dyno.
        (false, true) => Retry::AnyDyno,
        (false, false) => Retry::AnotherDyno,
        _ if answered_any || retried || request.has_body() => Retry::No,
        // b. The dyno closed an idle connection just as it was used again.
        (true, true) if request.is_idempotent => Retry::AnyDyno,
        // c. The dyno died. A poisonous GET takes two dynos with it, not all.
        (true, false) if request.is_safe => Retry::AnotherDyno,
        _ => Retry::No,
    }
}

/// Why no connection could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// The dyno's fault: nobody listens there.
    Refused,
    /// The dyno's fault: it does not answer.
    TimedOut,
    /// Nobody's fault: the dyno's listen queue is full, try again soon (Unix sockets say so at once).
    QueueFull,
    /// Our own shortage: descriptors, ports, memory. No dyno is blamed.
    Ours,
}

/// Whose fault a failed connect is.
pub(crate) fn blame(error: &io::Error) -> ConnectError {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    match errno {
        Some(Errno::AGAIN) => ConnectError::QueueFull,
        Some(Errno::TIMEDOUT) => ConnectError::TimedOut,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => {
            ConnectError::Ours
        }
        _ => ConnectError::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RequestBody;

    #[test]
    fn only_what_may_be_repeated_is_repeated() {
        let request = |is_idempotent, is_safe, body| {
            let mut request = Request::unreadable(Vec::new());
            (request.is_idempotent, request.is_safe, request.body) = (is_idempotent, is_safe, body);
            request
        };
        let get = request(true, true, RequestBody::None);
        let put = request(true, false, RequestBody::None);
        let post = request(false, false, RequestBody::None);
        let upload = request(true, false, RequestBody::Length(1));
        let failure =
            |sent_any, reused| Failure { sent_any, answered_any: false, reused, retried: false };
        let (unsent_fresh, unsent_reused) = (failure(false, false), failure(false, true));
        let (sent_fresh, sent_reused) = (failure(true, false), failure(true, true));
        let answered = Failure { answered_any: true, ..sent_reused };
        let twice = Failure { retried: true, ..sent_reused };
        for (name, request, failure, expected) in [
            ("a, any method", &post, unsent_fresh, Retry::AnotherDyno),
            ("a, any body", &upload, unsent_fresh, Retry::AnotherDyno),
            ("a, stale connection", &post, unsent_reused, Retry::AnyDyno),
            (
                "a is not counted",
                &post,
                Failure { retried: true, ..unsent_fresh },
                Retry::AnotherDyno,
            ),
            ("b", &get, sent_reused, Retry::AnyDyno),
            ("b, idempotent", &put, sent_reused, Retry::AnyDyno),
            ("b, not idempotent", &post, sent_reused, Retry::No),
            ("b, with a body", &upload, sent_reused, Retry::No),
            ("c", &get, sent_fresh, Retry::AnotherDyno),
            ("c, not safe", &put, sent_fresh, Retry::No),
            ("c, not safe", &post, sent_fresh, Retry::No),
            ("an answer has begun", &get, answered, Retry::No),
            ("once", &get, twice, Retry::No),
        ] {
            assert_eq!(retry(request, failure), expected, "{name}");
        }
    }

    #[test]
    fn our_own_shortages_blame_no_dyno() {
        use rustix::io::Errno;
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        assert_eq!(blame(&error(Errno::CONNREFUSED)), ConnectError::Refused);
        assert_eq!(blame(&error(Errno::NOENT)), ConnectError::Refused);
        assert_eq!(blame(&error(Errno::TIMEDOUT)), ConnectError::TimedOut);
        assert_eq!(blame(&error(Errno::AGAIN)), ConnectError::QueueFull);
        for ours in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::ADDRNOTAVAIL] {
            assert_eq!(blame(&error(ours)), ConnectError::Ours);
        }
    }
}

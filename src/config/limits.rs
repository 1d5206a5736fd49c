//! Every limit on one page, each with its reason. What a person may set is in the file; these are not.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::model::Hundredths;

// ---- heads ---------------------------------------------------------------------------------------------

/// Bytes of a request line (Heroku: HTTP Routing). Beyond it: 414.
pub const REQUEST_LINE_MAX: usize = 8192;
/// Bytes of one field line of a request (Heroku: HTTP Routing). Beyond it: 431.
pub const REQUEST_FIELD_MAX: usize = 8192;
/// Bytes of a field's name. Beyond it: 431.
pub const FIELD_NAME_MAX: usize = 1000;
/// Fields of one head, either way. Beyond it: 431, or H25.
pub const FIELDS_MAX: usize = 1000;
/// Bytes of a request's head. 8 KiB × 1000 fields would be 8 MB a client; 64 KiB is four times what
/// nginx (4 × 8 KiB) takes at most.
pub const REQUEST_HEAD_MAX: usize = 64 * 1024;
/// Bytes of an answer's status line, and of one Set-Cookie line (Heroku: HTTP Routing). Beyond it: H25.
pub const STATUS_LINE_MAX: usize = 8192;
/// Bytes of one field line of an answer (Heroku: HTTP Routing). Beyond it: H25.
pub const RESPONSE_FIELD_MAX: usize = 512 * 1024;
/// Bytes of an answer's head: two of the largest fields. Beyond it: H25.
pub const RESPONSE_HEAD_MAX: usize = 1024 * 1024;
/// Blank lines before a request line (RFC 9112 §2.2 asks for at least one; Heroku's router takes five).
pub const BLANK_LINES_MAX: usize = 5;
/// Bytes of a chunk-size line, extensions included: no client in use sends any.
pub const CHUNK_LINE_MAX: usize = 256;
/// Bytes of chunk extensions in one body: a byte of data per chunk with 250 of extension is an attack.
pub const CHUNK_EXTENSIONS_MAX: usize = 16 * 1024;
/// Bytes of a PROXY header after its addresses. A proxy that passes on what it knows of TLS needs some
/// hundreds; beyond it the connection is closed.
pub const PROXY_EXTENSIONS_MAX: usize = 4096;
/// Interim (1xx) answers in one exchange; a dyno that sends more is broken (H17).
pub const INTERIM_MAX: u32 = 64;

// ---- time ----------------------------------------------------------------------------------------------

/// The router's clock: deadlines are numbers of ticks, rounded up, so that a timer never fires early and at
/// most 0.2 s late. (With 250 ms, 30 s could become 30.5: outside H12's ± 0.3 s.)
pub const TICK: Duration = Duration::from_millis(100);
/// How long a dyno that refused or did not answer a connect gets no request (Heroku: HTTP Routing, "quarantine").
pub const QUARANTINE: Duration = Duration::from_secs(5);
/// How long the sides of a WebSocket that was told to close may take to say goodbye (RFC 6455 §7.1.1).
pub const WEBSOCKET_CLOSE: Duration = Duration::from_secs(5);
/// How long a connection that is over may still send, so that a reset does not destroy our answer.
pub const WIND_DOWN: Duration = Duration::from_secs(2);
/// How long an idle connection is kept for one more request once the daemon stops. Whoever uses it more often hears
/// of its end with an answer; for the others it ends as it does after `keepalive`, which a client must expect, and
/// waiting longer would keep the next daemon's clients waiting.
pub const STOP_IDLE: Duration = Duration::from_secs(5);
/// A request that may not be repeated takes only a connection used within this time: servers close idle
/// ones after 2 s (gunicorn) to 5 s (node).
pub const FRESH_ENOUGH: Duration = Duration::from_secs(1);
/// How long a client may take for an answer of the router's own where no app's `rolling` applies, and for what
/// its HTTP/2 connection still has for it after the last stream.
pub const REPLY: Duration = Duration::from_secs(55);
/// How long a worker may be silent before /healthz says so.
pub const WORKER_STALL: Duration = Duration::from_secs(2);
/// How long a connection of the admin listener may take for a request's head, and be idle: a scraper comes
/// each 15 s to 60 s.
pub const ADMIN_HEAD: Duration = Duration::from_secs(90);
/// How long a connection to the Platform API's port may take until it has said what it is: TLS, and the first line.
pub const API_OPENING: Duration = Duration::from_secs(10);
/// How long accepting pauses when the process is out of descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// ---- memory and numbers --------------------------------------------------------------------------------

/// Bytes of a worker's scratch: a 1 MB answer relayed by 256 KiB costs half the CPU of 64 KiB reads.
pub const SCRATCH: usize = 256 * 1024;
/// Bytes of the first read of a connection; reads double from here while the reader keeps up, so that at
/// most this much is copied aside when a peer turns out to be slow.
pub const READ_FIRST: usize = 16 * 1024;
/// Bytes that slow peers may leave unsent on one worker, shared by its connections ([`READ_FIRST`] each at
/// least): 10,000 slow readers of large answers must not take 2.5 GB.
pub const UNSENT_MAX: usize = 64 * 1024 * 1024;
/// Streams of one HTTP/2 connection at a time: what RFC 9113 §6.5.2 recommends at least.
pub const STREAMS_MAX: u32 = 100;
/// Bytes of a request's body that an HTTP/2 client may send ahead of its dyno. A connection's own window is
/// that of all its streams, so that one which stalls stops no other.
pub const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes of an answer that wait in its HTTP/2 connection to be written.
pub const STREAM_UNSENT_MAX: usize = 64 * 1024;
/// What the h2 crate may spend on the frames of a dyno's answer that wait to be read. A window full of
/// messages of a few bytes, as gRPC streams them, is no attack of one's own dyno's.
pub const DYNO_FRAMES_BUDGET: usize = 16 * 1024 * 1024;
/// Bytes of a header list that HTTP/2 reads (RFC 9113 §6.5.2): more than a head may have, so that it is our own
/// answer and our own line that refuse it.
pub const HEADER_LIST_MAX: u32 = 2 * REQUEST_HEAD_MAX as u32;
/// Streams that an HTTP/2 client may reset at once, and per second from then on: each has cost a request
/// (CVE-2023-44487).
pub const RESETS_BURST: u64 = 200;
/// See [`RESETS_BURST`].
pub const RESETS_PER_SECOND: u64 = 100;
/// HTTP/2 frames that carry no request and no data (PING, SETTINGS, empty DATA and their like), at once and per
/// second from then on.
pub const IDLE_FRAMES_BURST: u64 = 1000;
/// See [`IDLE_FRAMES_BURST`].
pub const IDLE_FRAMES_PER_SECOND: u64 = 500;
/// How many of them a client may have in hand, however much it was sent.
pub const IDLE_FRAMES_EARNED: u64 = 100_000;
/// As many more for each request, which costs more than they do: there are clients that send a PING with each,
/// and two window updates for each piece of an answer.
pub const IDLE_FRAMES_PER_REQUEST: u64 = 10;
/// TLS handshakes that one worker has under way, each with up to 10 KiB of its own: ten thousand that stall
/// must not keep out the others, a hundred thousand must not take a gigabyte.
pub const HANDSHAKES_MAX: usize = 16 * 1024;
/// Bytes relayed before others on the same worker get their turn: with a thousand downloads that begin at once,
/// what comes after them waits for a thousand of these.
pub const FAIR_SHARE: usize = 64 * 1024;
/// What the kernel takes of an answer beyond what the client's window lets it send: without a bound, each slow
/// reader of a large answer has megabytes copied for it at once, and everybody else waits meanwhile.
pub const NOT_SENT_MAX: u32 = 128 * 1024;
/// Bytes discarded by `wind_down`.
pub const WIND_DOWN_BYTES: u32 = 256 * 1024;
/// Requests that begin on one worker between two looks at its sockets: enough to keep the dynos busy, and few
/// enough that what is under way stays in the processor's cache. Of 9,000 clients that ask at once 4,000 had a
/// request under way without a bound, and each cost a third more.
pub const INTAKE: usize = 32;
/// Idle connections kept per dyno and worker.
pub const POOL_MAX: usize = 128;
/// Those beyond are kept for [`POOL_SURPLUS_AGE`], up to so many: connections of a moment with more in flight,
/// which the next such moment would make again.
pub const POOL_SURPLUS: usize = 1024;
/// See [`POOL_SURPLUS`].
pub const POOL_SURPLUS_AGE: Duration = Duration::from_secs(1);
/// Connects in progress per dyno and worker: python's http.server listens with a backlog of 5, puma with
/// 1024; 10,000 held requests must not meet it at once.
pub const CONNECTS_MAX: u32 = 16;
/// Dynos tried for one request (Heroku: HTTP Routing).
pub const TRIES_MAX: usize = 10;
/// Lingering requests per dyno; the oldest is closed beyond it.
pub const LINGERS_MAX: u32 = 256;
/// Times our own name may stand in Via before the request is taken to run in a circle (508).
pub const VIA_MAX: usize = 3;
/// Requests that may wait for a dyno, per web dyno (H11), unless the file says otherwise.
pub const BACKLOG: u32 = 200;
/// Dynos that `least` compares, from a random start: choosing must not be linear in a thousand.
pub const LEAST_MAX: usize = 64;
/// Places on an app's ring (`affinity = "address"`): the ring numbers them in 16 bits. Clients of a larger app
/// go to any dyno.
pub const RING_PLACES_MAX: usize = 65_536;
/// Points of the ring that are looked at for one request before any dyno will do: each dyno has 160 of them, so
/// that this finds the one that is up among ten that are down.
pub const RING_STEPS_MAX: usize = 1024;
/// Rows of the sketches that count by client address, and counters of a row. A client is taken for busier than
/// it is only if others share its counter in every row: with 1,000 clients a second, one in 400 times.
pub const SKETCH_ROWS: usize = 4;
/// See [`SKETCH_ROWS`]; 128 KiB a sketch.
pub const SKETCH_COUNTERS: usize = 4096;
/// The listen backlog; the kernel lowers it to net.core.somaxconn.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Bytes of an access log block that a worker hands over before its tick.
pub const LOG_BLOCK: usize = 60 * 1024;
/// Blocks that may wait for a writer. Beyond it lines are dropped and counted.
pub const LOG_QUEUE: usize = 64;
/// Log sessions that are read at one time: half of the connections of the control socket, so that the other commands
/// have theirs.
pub const LOG_STREAMS: usize = 32;
/// How long a log session can be read, and come back to.
pub const LOG_SESSION_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Lines that a log session sends at once, and about so many bytes.
pub const LOG_EVENTS: usize = 500;
/// See [`LOG_EVENTS`].
pub const LOG_EVENTS_BYTES: usize = 64 * 1024;
/// How long a log session is silent until it sends a comment: balancers cut what is silent for 30 s to 60 s, Heroku's
/// command gives up after 300.
pub const LOG_COMMENT: Duration = Duration::from_secs(20);
/// How long clients are to wait until they come back when the daemon ends: its successor needs a moment.
pub const LOG_RETRY: Duration = Duration::from_secs(3);
/// Lines of one batch of a drain, and about so many bytes: what Heroku's drains have at most.
pub const DRAIN_LINES: usize = 1000;
/// See [`DRAIN_LINES`].
pub const DRAIN_BYTES: usize = 256 * 1024;
/// How long the other side of a drain may take for a batch, with the connection.
pub const DRAIN_SEND: Duration = Duration::from_secs(30);
/// Bytes of its answer, of which the status alone is read.
pub const DRAIN_ANSWER_MAX: usize = 64 * 1024;
/// How long a drain waits after its first failure; it doubles.
pub const DRAIN_BACK_OFF_FIRST: Duration = Duration::from_millis(500);
/// The longest wait: the lines of half a minute fit into the book.
pub const DRAIN_BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// How long drains may take at the daemon's end for what is left.
pub const DRAIN_LAST: Duration = Duration::from_secs(5);
/// Blocks that may wait for the log book, and their bytes: a second and a half of a dyno that prints all that it
/// may. The book's thread only copies, so it is behind where the machine is.
pub const BOOK_QUEUE: usize = 4096;
/// See [`BOOK_QUEUE`].
pub const BOOK_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// How long a line is held back until its place among the others is final. Workers hand over what is up to 100 ms
/// old.
pub const BOOK_SETTLE: Duration = Duration::from_millis(250);
/// Bytes of lines that are held back at one time; beyond it they get their places as they are.
pub const BOOK_SETTLE_BYTES: usize = 64 * 1024 * 1024;
/// How often lines get their place.
pub const BOOK_TICK: Duration = Duration::from_millis(50);
/// Lines of an app that can be read back (Heroku: Logging).
pub const BOOK_LINES: usize = 1500;
/// Lines of an app that are kept while somebody follows it: a second and a half of 10,000 requests each, for a
/// drain that has to connect again.
pub const BOOK_LINES_FOLLOWED: usize = 16 * 1024;
/// Bytes of an app's lines: 16 Ki of the router's are 5 MiB.
pub const BOOK_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of all apps' lines. Beyond it each app gives up the older half of what it has.
pub const BOOK_BYTES_ALL: usize = 256 * 1024 * 1024;
/// What a line costs beside its text.
pub const BOOK_LINE_COST: usize = 48;
/// Bytes of a line of a dyno's output (Heroku: Logging); longer lines are cut into several.
pub const OUTPUT_LINE_MAX: usize = 10_000;
/// One in so many of the connections that may be: as many that are still opening have a descriptor for a dyno
/// kept, as every later one has. Where more are opening, most are never going to ask, and thousands of
/// stalled handshakes must not keep out clients that get through theirs.
pub const OPENINGS_PROVIDED: usize = 8;
/// Connections of the admin listener, and of the control socket, at one time: people and scrapers, out of the
/// descriptors kept aside.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Connections to the Platform API's port at one time: those of people, their logs and their one-off dynos.
pub const API_CONNECTIONS_MAX: usize = 128;
/// Requests to the Platform API that a token has in hand (Heroku: API rate limits, 4,500 an hour), and how many come back
/// in a second: ten times as fast as theirs, since here nobody else waits.
pub const API_REQUESTS: u32 = 4_500;
/// The second of both.
pub const API_REQUESTS_PER_SECOND: f64 = 12.5;
/// Requests with something that is no token, of all clients together: a wrong variable in a script, not a search.
pub const API_BAD_TOKENS: u32 = 60;
/// How many of these come back in a second.
pub const API_BAD_TOKENS_PER_SECOND: f64 = 1.0;
/// Descriptors kept aside for what is not a connection: files, pipes of dynos, listeners.
pub const DESCRIPTORS_RESERVED: u64 = 256;

// ---- configuration -------------------------------------------------------------------------------------

/// The shortest time that a configured timer may have: one tick of the router's clock.
pub const TIMEOUT_MIN: Duration = TICK;
/// The longest time that a configured timer may have; what is longer is a slip of the unit.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest time before its end at which a certificate may be renewed: some tries have to fit in it.
pub const RENEW_BEFORE_MIN: Duration = Duration::from_secs(60 * 60);
/// The longest: a year, as no public certificate lives for longer.
pub const RENEW_BEFORE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Worker threads: one per core is right, and no machine in sight has more cores.
pub const WORKERS_MAX: usize = 256;
/// The shortest life until a dyno is replaced by a fresh one: shorter than that it is a restart loop.
pub const CYCLE_MIN: Duration = Duration::from_secs(60);
/// The longest: a year.
pub const CYCLE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Bytes of the path at which a dyno is asked whether it is well.
pub const HEALTH_PATH_MAX: usize = 1024;
/// How often autoscaled dynos are looked at: each look is some loads and, for a target of queues, a question to the
/// kernel for each dyno.
pub const AUTOSCALE_LOOK: Duration = Duration::from_millis(500);
/// The shortest time over which their load is judged: four looks.
pub const AUTOSCALE_AFTER_MIN: Duration = Duration::from_secs(2);
/// What may be a target of time: a shorter one is noise of the machine, a longer one no request lives to see.
pub const AUTOSCALE_TIMES: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(60 * 60);
/// How often a release that is being judged is looked at: each look sums up some hundred numbers per worker.
pub const GUARD_LOOK: Duration = Duration::from_secs(1);
/// The shortest time for which a release is judged after it is there: some looks.
pub const GUARD_WITHIN_MIN: Duration = Duration::from_secs(5);
/// The part of the requests that a canary may get: beyond it, the others would be the smaller part.
pub const CANARY_MAX: Hundredths = Hundredths(5000);
/// How many times as long requests may take at most until a release is not judged by it: more is no bound.
pub const GUARD_P95_MAX: u32 = 1000;
/// By how much a request in twenty must take longer, besides, until that is held against a release: below it is noise of
/// the machine.
pub const GUARD_P95_LEAST: Duration = Duration::from_millis(10);
/// What a file of an app's log may be at least before it is put aside: a fraction of a second of a loud app.
pub const LOG_FILE_SIZE_MIN: u64 = 1 << 20;
/// Files of an app's log that may be kept; all are renamed when one is put aside.
pub const LOG_FILES_KEPT_MAX: u32 = 1000;
/// Drains of one app (Heroku has no more than five of a kind): each is a task and a connection.
pub const DRAINS_OF_APP_MAX: usize = 10;
/// Dynos of one process type: each is a process, a port and some descriptors.
pub const FORMATION_MAX: u32 = 1000;
/// What a configured backlog may be: a million waiting requests hold a million connections.
pub const BACKLOG_MAX: u32 = 1_000_000;
/// Bytes of memory that a size may have at least: a shell and an interpreter's first steps need half of it.
pub const MEMORY_MIN: u64 = 16 << 20;
/// And at most; what is more is a slip of the unit.
pub const MEMORY_MAX: u64 = 16 << 40;
/// The CPU quota of a size: the kernel's smallest is a millisecond of each 100, and no machine in sight has more
/// than these.
pub const CPUS: RangeInclusive<f64> = 0.01..=1024.0;
/// Processes and threads of a size that says nothing of them (Heroku: Limits, those of `standard-1x`).
pub const PROCESSES: u32 = 256;
/// What a size may have at least: a shell, what it starts, and a few threads.
pub const PROCESSES_MIN: u32 = 8;
/// And at most; the kernel's own numbers end at four million for all dynos together.
pub const PROCESSES_MAX: u32 = 1_000_000;
/// Dollars a month of a size.
pub const PRICE: RangeInclusive<f64> = 0.0..=1_000_000.0;
/// Bytes of the configuration and of each file it names (Procfile, env file, pages).
pub const CONFIG_FILE_MAX: u64 = 1024 * 1024;
/// Bytes of a unix socket's path, without the NUL (sun_path of sockaddr_un).
pub const SOCKET_PATH_MAX: usize = 107;
/// Unknown keys and values of a wrong type that are reported at once.
pub const WRITTEN_PROBLEMS_MAX: usize = 20;

// ---- certificates --------------------------------------------------------------------------------------

/// How long the local CA's own certificate is valid: who trusts it does so by hand, on each machine.
pub const CA_VALIDITY: Duration = Duration::from_secs(3650 * 86_400);
/// How long a certificate of the local CA is valid. Nothing asks for more than 398 days (Apple's bound, which
/// browsers share); it is made again when a third is left.
pub const LOCAL_VALIDITY: Duration = Duration::from_secs(397 * 86_400);
/// How far in the past new certificates begin, for clients whose clock is slow.
pub const CLOCK_SKEW: Duration = Duration::from_secs(86_400);
/// How long before the end of a certificate of the file it is warned of: two weeks, as whoever forgot about it
/// may be on holiday in one of them.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);
/// How often the files of certificates are looked at: a renewal comes weeks before it is needed, and a look
/// is a `stat` per file.
pub const CERTIFICATES_LOOK: Duration = Duration::from_secs(5);

// ---- automatic certificates ----------------------------------------------------------------------------

/// Orders under way at one time. Each is a dozen requests and a few seconds; a thousand names at once would be
/// taken for an attack by any certificate authority.
pub const ACME_ORDERS: usize = 4;
/// How long an order may take in all. Validation takes seconds, issuing rarely minutes.
pub const ACME_ORDER: Duration = Duration::from_secs(10 * 60);
/// How long a validation, and then the issuing, is asked after.
pub const ACME_POLL: Duration = Duration::from_secs(3 * 60);
/// How soon the server is first asked how a validation went; doubles from there.
pub const ACME_POLL_FIRST: Duration = Duration::from_millis(250);
/// How long one address of a server that others run may take to accept: there may be another one.
pub const OUTSIDE_CONNECT: Duration = Duration::from_secs(5);
/// How long one request to the server may take in all.
pub const ACME_REQUEST: Duration = Duration::from_secs(30);
/// Bytes of an answer of the server; a chain of certificates is some 5 KiB.
pub const ACME_ANSWER_MAX: usize = 256 * 1024;
/// Bytes of a reason that the server gives, as it is shown: a few sentences.
pub const ACME_REASON_MAX: usize = 600;
/// The wait after the first order of a name that failed; doubles from there. Let's Encrypt allows five failed
/// validations of a name an hour.
pub const ACME_BACK_OFF_FIRST: Duration = Duration::from_secs(60);
/// The longest wait after an order that failed, unless the server asks for more.
pub const ACME_BACK_OFF_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest Retry-After that is heeded: the longest window of Let's Encrypt's rate limits is a week.
pub const ACME_RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Over how long renewals that are due when the daemon starts are spread.
pub const ACME_SPREAD: Duration = Duration::from_secs(60 * 60);
/// How often the wall clock is asked whether a renewal is due: a machine that was suspended, or whose clock
/// was set, knows of it by no timer.
pub const ACME_LOOK: Duration = Duration::from_secs(60 * 60);

// ---- dynos ---------------------------------------------------------------------------------------------

/// The ports that are lent to web dynos: below the kernel's own range for outgoing connections (32768 on),
/// so that none of ours is taken by chance.
pub const DYNO_PORTS: RangeInclusive<u16> = 20_000..=29_999;
/// How long after a start the port is first asked again, and then for every time as long again as the boot has
/// taken in parts of [`PROBE_PART`]: a request may wait for this boot, and is to notice nothing of the probe.
pub const PROBE_FIRST: Duration = Duration::from_millis(1);
/// See [`PROBE_FIRST`]: 1 % of the boot. A probe costs some 20 µs, so that two hundred dynos that boot at once
/// for a second take a fifth of a core with theirs.
pub const PROBE_PART: u32 = 100;
/// The longest wait between two probes of a port, and the longest wait for one.
pub const PROBE_MAX: Duration = Duration::from_millis(50);
/// Bytes of an answer to the question whether a dyno is well that are read; nobody looks at them.
pub const HEALTH_BODY_MAX: usize = 64 * 1024;
/// How long after a web dyno that is asked at a path did not answer well it is asked again while it boots.
pub const HEALTH_BOOT_WAIT: Duration = Duration::from_millis(50);
/// How often it is looked whether an app that sleeps when it is idle is: a twentieth of the time after which it
/// does, from here …
pub const IDLE_LOOK_MIN: Duration = Duration::from_millis(50);
/// … to here.
pub const IDLE_LOOK_MAX: Duration = Duration::from_secs(10);
/// How often the share of a fresh dyno grows while it does.
pub const SHARE_STEPS: u32 = 20;
/// The share that a fresh dyno begins with, in thousandths of what the others get.
pub const SHARE_FIRST: u32 = 50;
/// How long a dyno must have been up for its earlier crashes to be forgotten.
pub const STABLE: Duration = Duration::from_secs(60);
/// How long a stop waits for the workers to close their idle connections to the dyno.
pub const PURGE_WAIT: Duration = Duration::from_millis(100);
/// How long a process may take to be gone after SIGKILL, before it is left to the kernel: one that is stuck
/// in a system call must not hold up the end of everything else.
pub const KILL_WAIT: Duration = Duration::from_secs(5);
/// How long an init may take to have its dyno killed before it is killed itself, and with it everyone in its
/// namespaces. Shorter than [`KILL_WAIT`], so that whoever waits for that long sees the end of it.
pub const INIT_KILL_WAIT: Duration = Duration::from_secs(2);
/// How soon a daemon that starts looks again whether those have ended whom it found in control groups and killed,
/// doubling to [`SWEEP_LOOK_MAX`].
pub const SWEEP_LOOK_FIRST: Duration = Duration::from_millis(5);
/// See [`SWEEP_LOOK_FIRST`].
pub const SWEEP_LOOK_MAX: Duration = Duration::from_millis(160);
/// How often a dyno's memory and load are looked at (Heroku: log-runtime-metrics).
pub const METRICS_TICK: Duration = Duration::from_secs(20);
/// Tasks of a dyno that are looked at for its load, each a read of a line in /proc. Whoever has more of them has
/// a load that is beyond reading.
pub const LOAD_TASKS_MAX: usize = 1024;
/// How long a daemon that starts waits for one that was just killed to let go of its dynos.
pub const CLAIM_WAIT: Duration = Duration::from_secs(2);
/// How often it looks, and how often it tries to reach an init that was just started.
pub const CLAIM_LOOK: Duration = Duration::from_millis(10);
/// How long the init of a dyno that was there before may take to say who it is: it answers as soon as it gets a
/// processor, or never.
pub const HELLO_WAIT: Duration = Duration::from_secs(5);
/// How long a dyno may at least still take to come up when a daemon finds it starting: while there was none,
/// nobody could see it.
pub const ADOPTED_BOOT: Duration = Duration::from_secs(5);
/// How long a dyno of another version may take to end on SIGTERM: no configuration says it.
pub const STRANGER_EXIT: Duration = Duration::from_secs(30);
/// How long the line that a process exited waits for the last output to be printed before it.
pub const OUTPUT_SETTLE: Duration = Duration::from_millis(25);
/// How long output is still read once the process is gone. Whoever left the process group and kept standard
/// output open is not listened to for longer.
pub const OUTPUT_AFTER_EXIT: Duration = Duration::from_secs(2);
/// Bytes of output that the client of an attached one-off still gets once its process is gone: what the largest
/// pipe holds that a process may have without privileges (pipe(7)). More can only come from whoever outlives it.
pub const OUTPUT_AFTER_EXIT_BYTES: usize = 1024 * 1024;
/// Bytes of output that a dyno's init keeps while no daemon is there: some thousand lines. What is more is lost,
/// the oldest lines first, and counted (L12).
pub const OUTPUT_RING: usize = 256 * 1024;
/// Bytes of one read of a dyno's output: a quarter of what a pipe holds.
pub const OUTPUT_READ: usize = 16 * 1024;
/// Bytes of output that one dyno may print per [`OUTPUT_WINDOW`] (10 MB/s); what it prints beyond it is
/// dropped and counted (L10), so that its neighbours' lines find room.
pub const OUTPUT_WINDOW_BYTES: usize = 1024 * 1024;
/// Bytes at the end of a burst beyond [`OUTPUT_WINDOW_BYTES`] that are printed all the same, once its window
/// has passed. More than one [`OUTPUT_LINE_MAX`].
pub const OUTPUT_HELD: usize = 16 * 1024;
/// See [`OUTPUT_WINDOW_BYTES`].
pub const OUTPUT_WINDOW: Duration = Duration::from_millis(100);
/// How often the last count of dropped lines is tried to be said, an [`OUTPUT_WINDOW`] apart.
pub const OUTPUT_LAST_TRIES: u32 = 10;
/// Lines of a dyno's output that are kept until it has come up, to be told if it does not: a stack trace's end.
pub const FAILURE_LINES: usize = 20;
/// Bytes of each of them.
pub const FAILURE_LINE_MAX: usize = 1000;
/// How long a dyno that nobody sends requests to must run until it has come up: nothing else tells whether it works,
/// and one that lacks a library or a setting ends sooner.
pub const SETTLE: Duration = Duration::from_secs(1);

// ---- isolation -----------------------------------------------------------------------------------------

/// The users that may be lent to dynos: above those of people and services, and of what takes ids for 16 bits
/// wide; the last two of 32 bits stand for "none".
pub const UIDS: RangeInclusive<u32> = 65_536..=u32::MAX - 2;
/// The networks out of which addresses may be lent to dynos: those that are nobody's on the internet (RFC 1918, and
/// RFC 6598, which some hosts have to themselves).
pub const ADDRESSES: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
];
/// The smallest network to lend from, as the length of its prefix: 128 dynos, their successors included.
pub const ADDRESSES_PREFIX_MAX: u8 = 24;
/// How often a dyno that boots in a network of its own is looked at, whether it listens where nobody reaches it.
pub const OUT_OF_REACH_LOOK: Duration = Duration::from_secs(1);
/// How much fits into a dyno's /tmp. It is memory, and the smallest size of a dyno has 512 MB, so a dyno that
/// fills it is stopped by its size first.
pub const TMP_BYTES: u64 = 512 << 20;
/// How much fits into a dyno's /dev/shm, as in containers elsewhere.
pub const SHM_BYTES: u64 = 64 << 20;
/// How much fits into a dyno's /app beside the app itself, where it must be kept in memory.
pub const UPPER_BYTES: u64 = 512 << 20;
/// How many open files a process of an isolated dyno may raise its limit to; it starts with the daemon's own
/// soft limit, since programs that call select(2) break beyond 1024.
pub const DYNO_OPEN_FILES: u64 = 65_536;
/// How long a throwaway sandbox may take to be tried, before the host is taken not to have any.
pub const TRIAL: Duration = Duration::from_secs(10);

// ---- one-off dynos -------------------------------------------------------------------------------------

/// One-off dynos of one app at a time: more are a job that does not end.
pub const ONE_OFFS_MAX: usize = 100;
/// How long an attached one-off dyno waits for its client (R13). Commands come within milliseconds.
pub const ATTACH_WAIT: Duration = Duration::from_secs(60);
/// How long the heroku CLI is given to say the end of its input once its process has ended. It does so within
/// milliseconds, where there is one.
pub const ATTACH_END: Duration = Duration::from_secs(1);
/// How often a process is told SIGHUP once its client has left, before it is R16 and stopped.
pub const HANGUPS: u32 = 3;
/// The time between two of them.
pub const HANGUP_EVERY: Duration = Duration::from_secs(5);
/// Signals of a client that wait to be passed on: somebody leans on Ctrl-C.
pub const SIGNALS_WAITING: usize = 16;
/// How often the wall clock is asked whether a job is due: their times are whole minutes.
pub const JOBS_LOOK: Duration = Duration::from_secs(1);
/// How far back a wall clock may be set without a job's times beginning anew: as long a job may not run, as the
/// price of not running twice.
pub const CLOCK_SET_BACK: Duration = Duration::from_secs(3600);
/// Missed runs of a job that are counted; whoever reads of more does not need the number.
pub const MISSED_RUNS_COUNTED: usize = 1000;

// ---- slugs ---------------------------------------------------------------------------------------------

/// Bytes of an archive that is deployed (Heroku: Limits, 500 MB of a compressed slug).
pub const SLUG_ARCHIVE_MAX: u64 = 500 << 20;
/// Bytes of all files of a slug: what an archive of the largest size usually is, unpacked; one that was made to fill the
/// disk is a thousand times as large.
pub const SLUG_BYTES_MAX: u64 = 4 << 30;
/// Files, directories and links of a slug. Large trees of Node packages have a tenth of that.
pub const SLUG_ENTRIES_MAX: usize = 1_000_000;
/// Bytes of an archive that are read before an entry begins: of its header, and of those that give it a long name or
/// attributes, which are in memory as a whole. A path has at most 4 KiB, and what programs write besides is of that kind.
pub const SLUG_HEADERS_MAX: u64 = 1 << 20;
/// Bytes of all paths of a slug and of where its links lead: they are in memory until it is on the disk, and a path can be
/// forty times as long as usual.
pub const SLUG_NAMES_MAX: usize = 128 << 20;
/// How long an upload may say nothing.
pub const SLUG_UPLOAD_IDLE: Duration = Duration::from_secs(60);
/// Uploads and unpackings at one time: each is work for the disk.
pub const SLUG_UPLOADS: usize = 4;
/// Slugs that are to be uploaded, or were and are not released yet. Who makes more of them never releases any. As many
/// are remembered by their ids, the newest of those that were released included.
pub const SLUGS_WAITING: usize = 64;
/// How long they are known.
pub const SLUG_WAIT: Duration = Duration::from_secs(60 * 60);
/// Sources that are to be uploaded, or were: each may have an archive of the largest size on the disk as long as it is known.
pub const SOURCES_WAITING: usize = 16;
/// Builds that can be asked for. Whoever began one asks until it has ended.
pub const BUILDS_KNOWN: usize = 256;
/// Of how many releases of each app the slugs are kept: one can go back for as many. A slug is some hundred megabytes,
/// and of those that differ little no part is shared.
pub const RELEASES_KEPT: usize = 10;
/// Release commands whose output can be asked for. It is read off the log, which has no more than its newest lines anyway.
pub const RELEASE_COMMANDS_KNOWN: usize = 256;
/// Promotions that can be asked for: the heroku CLI does so each second, until all of one has ended.
pub const PROMOTIONS_KNOWN: usize = 256;
/// How long a release command may run (Heroku: Release Phase).
pub const RELEASE_COMMAND: Duration = Duration::from_secs(60 * 60);

// ---- what is remembered --------------------------------------------------------------------------------

/// How often what dynos used is booked. A daemon that is killed forgets what its own dynos used since.
pub const BOOK_EVERY: Duration = Duration::from_secs(10);
/// Hours in a month that all eco dynos have together (Heroku: Eco Dyno Hours).
pub const ECO_HOURS: u64 = 1000;
/// The share of them after which the log says so, in hundredths.
pub const ECO_HOURS_LOW: u64 = 80;
/// How long a request of the API is known after its effect: the heroku CLI repeats one for six seconds when its connection
/// breaks.
pub const REQUESTS_REMEMBERED: Duration = Duration::from_secs(600);
/// Answers to requests that were done, at one time. A client asks again within seconds.
pub const ANSWERS_REMEMBERED: usize = 1024;
/// Bytes of such an answer: those that are longer are lists, and nobody's change.
pub const ANSWER_REMEMBERED_MAX: usize = 64 * 1024;
/// How long a reload or a command waits for the database: a disk that is stuck must not stop reloads.
pub const STORE_WAIT: Duration = Duration::from_secs(10);
/// Tasks that may wait for the database: each is a moment's work, so that so many mean a disk that is stuck.
pub const STORE_TASKS_MAX: usize = 256;

const _: () = assert!(REQUEST_LINE_MAX < REQUEST_HEAD_MAX && REQUEST_HEAD_MAX <= SCRATCH);
const _: () = assert!(READ_FIRST <= SCRATCH && RESPONSE_FIELD_MAX < RESPONSE_HEAD_MAX);
const _: () = assert!(FAIR_SHARE >= READ_FIRST && LOG_BLOCK < SCRATCH);

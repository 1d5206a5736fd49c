//! A dyno that misbehaves on request: what the integration tests put behind the router.
//!
//! One thread per connection, no HTTP library, so that every byte it sends is its own. The environment says
//! how it starts and ends, the path of a request how that request is answered. It knows nothing of dynomesh.
//!
//! At start: `PORT` (0: any, printed) or `UNIX_SOCKET`; `BACKLOG`; `CRASH_DURING_BOOT`, `NEVER_BIND`,
//! `BIND_AFTER_MS`, `EXIT_AFTER_MS`, each with `EXIT_CODE`; `GRANDCHILD`, `FILL_STDOUT`, `LONG_LINE`,
//! `NOT_UTF8`; `CLOSE_IDLE_AFTER_MS`, `KEEP_ALIVE_SECONDS`; `CLOSE_ALWAYS` (each request, unanswered);
//! `FAIL_ALWAYS` (each request, with 500);
//! `NARROW` (TCP takes little at a time); `ONE_BY_ONE` (a connection is accepted when the last one has ended).
#![expect(
    clippy::disallowed_methods,
    reason = "an app has its own clock, threads and children; the rules for these are dynomesh's"
)]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::path::Path;
use std::process::{Command, exit};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;
use std::{env, fs, thread};

use socket2::{Domain, SockAddr, Socket, Type};

fn main() -> io::Result<()> {
    if env::var_os("GRANDCHILD").is_some() {
        // It inherits stdout and outlives its parent.
        Command::new("sleep").arg("300").spawn()?;
    }
    if let Some(bytes) = number("LONG_LINE") {
        say(&"x".repeat(bytes as usize));
    }
    if env::var_os("NOT_UTF8").is_some() {
        io::stdout().lock().write_all(b"caf\xe9 \x1b[31mred\n")?;
    }
    if let Some(lines) = number("FILL_STDOUT") {
        thread::spawn(move || {
            (0..lines).for_each(|line| say(&format!("filler {line} {}", "y".repeat(80))))
        });
    }
    if env::var_os("CRASH_DURING_BOOT").is_some() {
        say("crashing during boot");
        exit(exit_code());
    }
    if let Some(ms) = number("EXIT_AFTER_MS") {
        thread::spawn(move || {
            sleep(ms);
            exit(exit_code());
        });
    }
    while env::var_os("NEVER_BIND").is_some() {
        thread::park();
    }
    sleep(number("BIND_AFTER_MS").unwrap_or(0));
    serve(&listen()?)
}

fn listen() -> io::Result<Socket> {
    let backlog = number("BACKLOG").map_or(1024, |backlog| backlog as i32);
    let (socket, place) = match env::var("UNIX_SOCKET") {
        Ok(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&SockAddr::unix(&path)?)?;
            (socket, format!("unix:{path}"))
        }
        Err(_) => {
            let port = number("PORT").unwrap_or(0) as u16;
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            if env::var_os("NARROW").is_some() {
                // Connections inherit both. Small segments keep the sender's buffer small, too.
                socket.set_recv_buffer_size(4096)?;
                socket.set_tcp_mss(536)?;
            }
            let ip = env::var("BIND").ok().and_then(|ip| ip.parse::<IpAddr>().ok());
            let ip = ip.unwrap_or(Ipv4Addr::LOCALHOST.into());
            socket.bind(&SocketAddr::from((ip, port)).into())?;
            let addr =
                socket.local_addr()?.as_socket().expect("an address of the family it was bound in");
            (socket, addr.to_string())
        }
    };
    socket.listen(backlog)?;
    say(&format!("listening on {place}"));
    Ok(socket)
}

fn serve(listener: &Socket) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept()?;
        CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let serve = move || {
            // A connection that ends badly is what half of the tests are about.
            let _ = Connection { socket, input: Vec::new(), requests: 0 }.run();
        };
        if env::var_os("ONE_BY_ONE").is_some() {
            serve();
        } else {
            thread::spawn(serve);
        }
    }
}

// ---- what tests ask about afterwards ----------------------------------------------------------------------

static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
static REQUESTS: AtomicU64 = AtomicU64::new(0);
/// How often each value of the `Id` field has arrived.
static SEEN: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(Mutex::default);

/// What `/take-memory` took.
static MEMORY: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn count(request: &Request) {
    REQUESTS.fetch_add(1, Ordering::Relaxed);
    if let Some(id) = request.field("Id") {
        *SEEN
            .lock()
            .expect("no thread panics with it in hand")
            .entry(id.to_string())
            .or_default() += 1;
    }
}

fn seen(id: &str) -> u64 {
    SEEN.lock().expect("no thread panics with it in hand").get(id).copied().unwrap_or(0)
}

// ---- requests ---------------------------------------------------------------------------------------------

struct Request {
    head: Vec<u8>,
    method: String,
    path: String,
    query: HashMap<String, String>,
    fields: Vec<(String, String)>,
}

impl Request {
    fn parse(head: &[u8]) -> io::Result<Self> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let mut first = lines.next().unwrap_or("").split(' ');
        let (Some(method), Some(target)) = (first.next(), first.next()) else {
            return Err(io::Error::other("no request line"));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_string(), String::from_utf8_lossy(&percent_decoded(value)).into_owned())
        };
        let fields = lines.filter_map(|line| line.split_once(':'));
        Ok(Self {
            head: head.to_vec(),
            method: method.into(),
            path: path.into(),
            query: query.split('&').map(pair).collect(),
            fields: fields.map(|(name, value)| (name.into(), value.trim().into())).collect(),
        })
    }

    fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.query.get(key)?.parse().ok()
    }

    fn text(&self, key: &str) -> &str {
        self.query.get(key).map_or("", String::as_str)
    }

    fn is_chunked(&self) -> bool {
        self.field("Transfer-Encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked"))
    }
}

/// Bytes may be anything in `/raw`, so this does not stop at UTF-8.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || bytes.next().and_then(|it| (it as char).to_digit(16)).unwrap_or(0) as u8;
        out.push(if byte == b'%' { digit() * 16 + digit() } else { byte });
    }
    out
}

const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

// ---- connections ------------------------------------------------------------------------------------------

struct Connection {
    socket: Socket,
    input: Vec<u8>,
    requests: u64,
}

/// What becomes of the connection after an answer.
enum Then {
    Keep,
    Close,
}

impl Connection {
    fn run(mut self) -> io::Result<()> {
        loop {
            if let Some(ms) = number("CLOSE_IDLE_AFTER_MS") {
                self.socket.set_read_timeout(Some(Duration::from_millis(ms)))?;
            }
            let Some(head) = self.read_head()? else { return Ok(()) };
            self.socket.set_read_timeout(None)?;
            let request = Request::parse(&head)?;
            self.requests += 1;
            match self.answer(&request)? {
                Then::Keep => {}
                Then::Close => return Ok(()),
            }
        }
    }

    /// Each path is one behaviour.
    fn answer(&mut self, request: &Request) -> io::Result<Then> {
        if env::var_os("FAIL_ALWAYS").is_some() {
            return self.text(500, "failed");
        }
        match request.path.as_str() {
            "/count" => return self.text(200, &REQUESTS.load(Ordering::Relaxed).to_string()),
            "/connections" => {
                return self.text(200, &CONNECTIONS.load(Ordering::Relaxed).to_string());
            }
            "/seen" => return self.text(200, &seen(request.text("id")).to_string()),
            "/pid" => return self.text(200, &std::process::id().to_string()),
            _ => count(request),
        }
        if env::var_os("CLOSE_ALWAYS").is_some() {
            return Ok(Then::Close);
        }
        match request.path.as_str() {
            "/early" => return self.early(request, Then::Close),
            "/early-keep" => return self.early(request, Then::Keep),
            "/early-part" => {
                self.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
                thread::park();
                return Ok(Then::Close);
            }
            "/never-read" => {
                thread::park();
                return Ok(Then::Close);
            }
            "/close-unread" => return Ok(Then::Close),
            "/take" => return self.take_slowly(request),
            "/hint" => self.hint(request)?,
            "/switch-and-close" => {
                self.send(SWITCHING)?;
                return Ok(Then::Close);
            }
            "/continue" => self.send(b"HTTP/1.1 100 Continue\r\n\r\n")?,
            "/refuse-expectation" => {
                self.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
                return Ok(Then::Close);
            }
            _ => {}
        }
        let (body, trailers) = self.read_body(request)?;
        match request.path.as_str() {
            "/sleep" => {
                sleep(request.number("ms").unwrap_or(0));
                self.text(200, "slept")
            }
            "/until" => {
                wait_for(Path::new(request.text("file")));
                self.text(200, "released")
            }
            "/late" => {
                sleep(request.number("ms").unwrap_or(0));
                fs::write(request.text("touch"), "done")?;
                self.text(200, "late")
            }
            "/echo" => self.echo(request, &body),
            "/trailers" => self.text(200, &String::from_utf8_lossy(&trailers)),
            "/head" => self.respond(200, "", &request.head),
            "/close" => Ok(Then::Close),
            // Works until nobody wants the answer any more.
            "/until-unwanted" => {
                while self.fill()? {}
                fs::write(request.text("touch"), "noticed")?;
                self.text(200, "unwanted")
            }
            // Closes a connection that has carried a request before, as a server does whose idle time is up.
            "/once" if self.requests > 1 => Ok(Then::Close),
            "/reset" => self.reset(),
            "/raw" => self.raw(request),
            "/chunked" => self.chunked(request),
            "/drip" => self.drip(request),
            "/interim" => self.interim(request),
            "/fields" => self.fields(request),
            "/stall" => {
                self.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
                thread::park();
                Ok(Then::Close)
            }
            "/big" => self.big(request),
            "/ws" => self.upgraded(request),
            "/ws-last" => self.last_words(request),
            "/exit" => exit(request.number("code").unwrap_or(1) as i32),
            "/abort" => std::process::abort(),
            "/exit-idle" => {
                let code = request.number("code").unwrap_or(1) as i32;
                self.text(200, "exiting")?;
                exit(code)
            }
            "/print" => {
                say(request.text("line"));
                self.text(200, "printed")
            }
            "/env" => {
                let value = env::var(request.text("name")).unwrap_or_else(|_| "(unset)".into());
                self.text(200, &value)
            }
            // Not well while the file is there, or the one of this dyno.
            "/well" => {
                let file = request.text("unless");
                let own = format!("{file}.{}", env::var("DYNO").unwrap_or_default());
                let unwell = Path::new(file).exists() || Path::new(&own).exists();
                self.text(if unwell { 503 } else { 200 }, "")
            }
            "/take-memory" => {
                let bytes = request.number("mb").unwrap_or(1) as usize * 1024 * 1024;
                // Written, so that there is memory behind it.
                MEMORY.lock().expect("no thread panics with it in hand").push(vec![1; bytes]);
                self.text(200, "taken")
            }
            "/spawn" => {
                let sleeps = (0..request.number("times").unwrap_or(1))
                    .map(|_| Command::new("sleep").arg("300").spawn());
                let spawned = sleeps.take_while(io::Result::is_ok).count();
                self.text(200, &spawned.to_string())
            }
            "/length" => self.text(200, &body.len().to_string()),
            _ if request.method == "HEAD" => {
                self.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")?;
                Ok(Then::Keep)
            }
            _ => {
                let name = env::var("DYNO").unwrap_or_else(|_| "testapp".into());
                self.respond(200, keep_alive_field().as_str(), name.as_bytes())
            }
        }
    }

    // ---- answers -----------------------------------------------------------------------------------------

    fn text(&mut self, status: u16, text: &str) -> io::Result<Then> {
        self.respond(status, "", text.as_bytes())
    }

    fn respond(&mut self, status: u16, fields: &str, body: &[u8]) -> io::Result<Then> {
        // Not a word about the connection: it persists, as HTTP/1.1 has it.
        let head =
            format!("HTTP/1.1 {status} Fine\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        self.send(&[head.as_bytes(), body].concat())?;
        Ok(Then::Keep)
    }

    /// `?status=413`: answers without having read the body.
    fn early(&mut self, request: &Request, then: Then) -> io::Result<Then> {
        let status = request.number("status").unwrap_or(413);
        let connection = if matches!(then, Then::Close) { "close" } else { "keep-alive" };
        self.send(
            format!("HTTP/1.1 {status} Early\r\nConnection: {connection}\r\nContent-Length: 5\r\n\r\nearly")
                .as_bytes(),
        )?;
        if matches!(then, Then::Keep) {
            self.read_body(request)?;
        }
        Ok(then)
    }

    /// `?framing=chunked|close`, else Content-Length: the body back.
    fn echo(&mut self, request: &Request, body: &[u8]) -> io::Result<Then> {
        match request.text("framing") {
            "chunked" => {
                self.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                for piece in body.chunks(1000) {
                    self.send_chunk(piece)?;
                }
                self.send(b"0\r\n\r\n")?;
                Ok(Then::Keep)
            }
            "close" => {
                self.send(b"HTTP/1.1 200 OK\r\n\r\n")?;
                self.send(body)?;
                Ok(Then::Close)
            }
            _ => self.respond(200, "", body),
        }
    }

    /// `?bytes=…`: sends exactly this (percent-encoded). `&pause=MS&more=…` sends more after a while.
    /// `&then=keep|reset|silent|half`, else closes.
    fn raw(&mut self, request: &Request) -> io::Result<Then> {
        let raw = |key: &str| percent_decoded(raw_value(&request.head, key));
        self.send(&raw("bytes"))?;
        if request.number("pause").is_some() {
            sleep(request.number("pause").unwrap_or(0));
            self.send(&raw("more"))?;
        }
        match request.text("then") {
            "keep" => Ok(Then::Keep),
            "reset" => self.reset(),
            "silent" => {
                thread::park();
                Ok(Then::Close)
            }
            "half" => {
                self.socket.shutdown(Shutdown::Write)?;
                thread::park();
                Ok(Then::Close)
            }
            _ => Ok(Then::Close),
        }
    }

    /// `?n=3&trailers=1`: chunks `chunk 0;` and so on.
    fn chunked(&mut self, request: &Request) -> io::Result<Then> {
        self.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Checksum\r\n\r\n")?;
        for chunk in 0..request.number("n").unwrap_or(1) {
            self.send_chunk(format!("chunk {chunk};").as_bytes())?;
        }
        let trailers = if request.number("trailers").is_some() { "Checksum: abc\r\n" } else { "" };
        self.send(format!("0\r\n{trailers}\r\n").as_bytes())?;
        Ok(Then::Keep)
    }

    /// `?n=5&ms=100`: a dot every so often.
    fn drip(&mut self, request: &Request) -> io::Result<Then> {
        self.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..request.number("n").unwrap_or(5) {
            self.send_chunk(b".")?;
            sleep(request.number("ms").unwrap_or(100));
        }
        self.send(b"0\r\n\r\n")?;
        Ok(Then::Keep)
    }

    /// `?name=X&line=100&n=1`: that many such field lines (CRLF not counted), then Content-Length.
    fn fields(&mut self, request: &Request) -> io::Result<Then> {
        let name = request.text("name");
        let length = request.number("line").unwrap_or(100) as usize - name.len() - 2;
        let line = format!("{name}: {}\r\n", "v".repeat(length));
        self.respond(200, &line.repeat(request.number("n").unwrap_or(1) as usize), b"")
    }

    /// `?n=1&ms=0&status=103`: interim answers every so often, then the answer.
    fn interim(&mut self, request: &Request) -> io::Result<Then> {
        let status = request.number("status").unwrap_or(103);
        for number in 0..request.number("n").unwrap_or(1) {
            self.send(format!("HTTP/1.1 {status} Hint\r\nLink: </{number}>\r\n\r\n").as_bytes())?;
            sleep(request.number("ms").unwrap_or(0));
        }
        self.text(200, "final")
    }

    /// `?bytes=…`: that many, then how many it got rid of is in the file `&told=…`.
    fn big(&mut self, request: &Request) -> io::Result<Then> {
        let mut left = request.number("bytes").unwrap_or(1 << 20);
        self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n").as_bytes())?;
        let block = vec![b'b'; 64 * 1024];
        while left > 0 {
            let now = left.min(block.len() as u64);
            self.send(&block[..now as usize])?;
            left -= now;
        }
        if !request.text("told").is_empty() {
            fs::write(request.text("told"), "all")?;
        }
        Ok(Then::Keep)
    }

    /// `?bytes=0`: switches protocols, with a field of that many bytes in the head, and sends everything back
    /// until the other side ends; says goodbye then.
    fn upgraded(&mut self, request: &Request) -> io::Result<Then> {
        match request.number("bytes") {
            None => self.send(SWITCHING)?,
            Some(bytes) => {
                let padding = format!("Padding: {}\r\n\r\n", "p".repeat(bytes as usize));
                self.send(&[&SWITCHING[..SWITCHING.len() - 2], padding.as_bytes()].concat())?;
            }
        }
        let mut pending = std::mem::take(&mut self.input);
        loop {
            self.send(&pending)?;
            pending.clear();
            if !self.fill()? {
                self.send(b"bye")?;
                return Ok(Then::Close);
            }
            pending.append(&mut self.input);
        }
    }

    /// `?file=…&bytes=…`: switches protocols and reads nothing; once the file is there, sends that many bytes
    /// and ends its side.
    fn last_words(&mut self, request: &Request) -> io::Result<Then> {
        self.send(SWITCHING)?;
        wait_for(Path::new(request.text("file")));
        self.send(&vec![b'w'; request.number("bytes").unwrap_or(0) as usize])?;
        self.socket.shutdown(Shutdown::Write)?;
        thread::park();
        Ok(Then::Close)
    }

    /// `?bytes=…`: an interim answer with a field of that many bytes, before the body is read.
    fn hint(&mut self, request: &Request) -> io::Result<()> {
        let hint = "h".repeat(request.number("bytes").unwrap_or(0) as usize);
        self.send(format!("HTTP/1.1 103 Hint\r\nLink: {hint}\r\n\r\n").as_bytes())
    }

    /// `?slowly=…&step=1000&ms=50`: takes that much of the body a step every so often, the rest at once; says
    /// how long it was.
    fn take_slowly(&mut self, request: &Request) -> io::Result<Then> {
        let length: usize =
            request.field("Content-Length").and_then(|it| it.parse().ok()).unwrap_or(0);
        let slowly = request.number("slowly").unwrap_or(0) as usize;
        let step = request.number("step").unwrap_or(1000) as usize;
        let mut taken = 0;
        while taken + step <= slowly.min(length) {
            let mut block = vec![0; step];
            self.read_into(&mut block)?;
            taken += step;
            sleep(request.number("ms").unwrap_or(50));
        }
        self.take(length - taken)?;
        self.text(200, &length.to_string())
    }

    fn reset(&mut self) -> io::Result<Then> {
        self.socket.set_linger(Some(Duration::ZERO))?;
        Ok(Then::Close)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    fn send_chunk(&mut self, data: &[u8]) -> io::Result<()> {
        let mut out = format!("{:x}\r\n", data.len()).into_bytes();
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
        self.send(&out)
    }

    // ---- input -------------------------------------------------------------------------------------------

    /// The next head with its blank line; `None` at the end.
    fn read_head(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.input.windows(4).position(|it| it == b"\r\n\r\n") {
                return Ok(Some(self.input.drain(..end + 4).collect()));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// The body, and the trailer section as it came.
    fn read_body(&mut self, request: &Request) -> io::Result<(Vec<u8>, Vec<u8>)> {
        if !request.is_chunked() {
            let length =
                request.field("Content-Length").and_then(|it| it.parse().ok()).unwrap_or(0);
            return Ok((self.take(length)?, Vec::new()));
        }
        let mut body = Vec::new();
        loop {
            let line = self.take_line()?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            if size == 0 {
                break;
            }
            body.extend(self.take(size)?);
            self.take_line()?;
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.take_line()?;
            if line == "\r\n" {
                return Ok((body, trailers));
            }
            trailers.extend(line.bytes());
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.input.len() < length {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.input.drain(..length).collect())
    }

    /// Takes exactly this much, and no more from the kernel than that.
    fn read_into(&mut self, block: &mut [u8]) -> io::Result<()> {
        let ahead = self.input.len().min(block.len());
        block[..ahead].copy_from_slice(&self.input[..ahead]);
        self.input.drain(..ahead);
        self.socket.read_exact(&mut block[ahead..])
    }

    fn take_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.input.windows(2).position(|it| it == b"\r\n") {
                let line = self.input.drain(..end + 2).collect::<Vec<_>>();
                return String::from_utf8(line).map_err(io::Error::other);
            }
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads some; `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut block = [0; 16 * 1024];
        let read = self.socket.read(&mut block)?;
        self.input.extend_from_slice(&block[..read]);
        Ok(read > 0)
    }
}

/// The undecoded value of a query key, straight from the request line.
fn raw_value<'h>(head: &'h [u8], key: &str) -> &'h str {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or(b"");
    let target = str::from_utf8(line).unwrap_or("").split(' ').nth(1).unwrap_or("");
    let query = target.split_once('?').map_or("", |(_, query)| query);
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')).unwrap_or("")
}

// ---- the environment --------------------------------------------------------------------------------------

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn exit_code() -> i32 {
    number("EXIT_CODE").unwrap_or(1) as i32
}

fn keep_alive_field() -> String {
    number("KEEP_ALIVE_SECONDS").map_or(String::new(), |it| format!("Keep-Alive: timeout={it}\r\n"))
}

fn sleep(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

fn wait_for(file: &Path) {
    while !file.exists() {
        sleep(5);
    }
}

/// Prints a line; a reader that has gone is not this app's business.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

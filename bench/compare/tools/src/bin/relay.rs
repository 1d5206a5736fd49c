//! The floor: bytes from client to dyno and back, and nothing else.
//!
//! `relay LISTEN DYNO…`. Each client connection gets one connection to the next dyno in turn, for its whole
//! life. A request through it is two reads and two writes, the least that any proxy on sockets needs. One
//! scratch buffer serves all connections, so that the floor does not rise with their number.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

const SCRATCH: usize = 256 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

fn main() -> ExitCode {
    compare_tools::run(serve())
}

async fn serve() -> Result<(), String> {
    let addresses: Result<Vec<SocketAddr>, _> =
        std::env::args().skip(1).map(|it| it.parse()).collect();
    let (listen, dynos) = match addresses.as_deref() {
        Ok([listen, dynos @ ..]) if !dynos.is_empty() => (*listen, dynos),
        _ => return Err("usage: relay LISTEN DYNO…".into()),
    };
    let listener = compare_tools::listen(listen)?;
    for dyno in dynos.iter().copied().cycle() {
        let client = loop {
            match listener.accept().await {
                Ok((client, _)) => break client,
                Err(error) => {
                    eprintln!("accept: {error}");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        };
        tokio::spawn(async move {
            // Whoever ends it, both sides see it: the sockets are dropped.
            let _ = carry(client, dyno).await;
        });
    }
    Ok(())
}

async fn carry(mut client: TcpStream, dyno: SocketAddr) -> io::Result<()> {
    let mut dyno = TcpStream::connect(dyno).await?;
    client.set_nodelay(true)?;
    dyno.set_nodelay(true)?;
    let (mut there, mut back) = (Direction::default(), Direction::default());
    std::future::poll_fn(|cx| {
        let there = there.poll(cx, &mut client, &mut dyno)?;
        let back = back.poll(cx, &mut dyno, &mut client)?;
        if there.is_ready() || back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// One way of a connection: what was read and not yet written.
#[derive(Default)]
struct Direction {
    rest: Vec<u8>,
    written: usize,
}

impl Direction {
    /// Ready at the end of `from`.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.rest.len() {
                self.written +=
                    ready!(Pin::new(&mut *to).poll_write(cx, &self.rest[self.written..]))?;
            }
            let end = SCRATCH_BUFFER.with_borrow_mut(|scratch| {
                let mut read = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
                let written = match Pin::new(&mut *to).poll_write(cx, read.filled()) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => 0,
                };
                self.rest.clear();
                self.rest.extend_from_slice(&read.filled()[written..]);
                self.written = 0;
                Poll::Ready(io::Result::Ok(read.filled().is_empty()))
            });
            if ready!(end)? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

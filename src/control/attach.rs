//! The two ways between the client of an attached one-off dyno and its process.
//!
//! One loop has both: a client that leaves is heard of whatever its process does, and of the input no more waits
//! here than one frame.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Signal;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadHalf, WriteHalf,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::config::limits;
use crate::control::frames::{Frame, Frames, PAYLOAD_MAX};
use crate::model::Exit;
use crate::supervisor::{Ends, Session};

/// How a client speaks.
pub(in crate::control) trait Speaks: Send {
    /// The next frame. An error where the client has left. Dropped before it returns, it has lost nothing.
    fn receive(&mut self) -> impl Future<Output = io::Result<Frame>> + Send;
    /// Tells the client.
    fn send(&mut self, frame: Frame) -> impl Future<Output = io::Result<()>> + Send;
    /// Tells it that nothing follows.
    fn end(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// Carries input, signals and sizes to the process, and its output and its end to the client. Returns when the
/// process has ended or the client has left.
pub(in crate::control) async fn relay(client: impl Speaks, session: Session) {
    let Session { ends, exit, signals } = session;
    let Ok((input, output)) = halves(ends) else { return };
    // An error is a client that has left; the process hears of that when its streams and the line for signals
    // are dropped with this.
    let _ = Relay { client, input, output, signals }.run(exit).await;
}

struct Relay<C> {
    client: C,
    input: Input,
    output: Output,
    signals: mpsc::Sender<Signal>,
}

/// A client whose bytes are frames already.
pub(in crate::control) struct Framed<S> {
    from: ReadHalf<S>,
    to: WriteHalf<S>,
    frames: Frames,
    buffer: Vec<u8>,
}

/// To the process.
struct Input {
    /// `None`: it has ended, or nobody reads it any more.
    to: Option<AsyncFd<OwnedFd>>,
    is_terminal: bool,
    /// What of the last frame was not written yet.
    pending: Vec<u8>,
}

/// From the process.
struct Output {
    from: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl<C: Speaks> Relay<C> {
    async fn run(mut self, mut exit: oneshot::Receiver<Exit>) -> io::Result<()> {
        let mut status = None;
        let mut rest = Rest::Endless;
        loop {
            // Whatever is dropped here has read nothing and written nothing. Who leaves is heard before what is
            // printed, and the output ends by its time only where there is nothing to read: a client that reads
            // slowly gets it all.
            tokio::select! {
                biased;
                exited = &mut exit, if status.is_none() => {
                    status = Some(exited.map_or(1, Exit::shell_status));
                    rest.bound();
                }
                frame = self.client.receive() => self.heed(frame?).await?,
                written = self.input.write(), if self.input.owes() => {
                    self.input.note_written(written);
                    if !self.input.owes() {
                        self.client.send(Frame::Taken).await?;
                    }
                }
                read = self.output.read(), if !rest.is_over() => match read {
                    Some(bytes) => {
                        rest.note_read(bytes.len());
                        self.client.send(Frame::Output(bytes)).await?;
                    }
                    None => rest = Rest::Over,
                },
                () = rest.timed_out() => rest = Rest::Over,
            }
            if let (Some(status), Rest::Over) = (status, &rest) {
                self.client.send(Frame::Exit(status)).await?;
                return self.client.end().await;
            }
        }
    }

    async fn heed(&mut self, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::Input(bytes) if !self.input.owes() => {
                self.input.take(bytes);
                if !self.input.owes() {
                    self.client.send(Frame::Taken).await?;
                }
            }
            Frame::Resize { rows, columns } => self.output.resize(rows, columns),
            Frame::Signal(signal) => {
                if let Some(signal) = Signal::from_named_raw(signal.into()) {
                    // One that finds no room is one of many.
                    let _ = self.signals.try_send(signal);
                }
            }
            // No client of ours sends these.
            Frame::Input(_) | Frame::Taken | Frame::Output(_) | Frame::Exit(_) => {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }
}

/// What there is still to come of the output.
enum Rest {
    /// The process may print as much as it likes.
    Endless,
    /// It has exited, and what it printed is there to be read. The bounds are for whoever left its group and
    /// holds the output open.
    Bounded { until: Instant, bytes: usize },
    /// Nobody waits for more.
    Over,
}

impl Rest {
    fn bound(&mut self) {
        if let Self::Endless = self {
            let until = Instant::now() + limits::OUTPUT_AFTER_EXIT;
            *self = Self::Bounded { until, bytes: limits::OUTPUT_AFTER_EXIT_BYTES };
        }
    }

    fn note_read(&mut self, length: usize) {
        if let Self::Bounded { bytes, .. } = self {
            *bytes = bytes.saturating_sub(length);
            if *bytes == 0 {
                *self = Self::Over;
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// Returns when its time is over; never while it has none.
    async fn timed_out(&self) {
        match self {
            Self::Bounded { until, .. } => sleep_until(*until).await,
            Self::Endless | Self::Over => std::future::pending().await,
        }
    }
}

impl<S: AsyncRead + AsyncWrite> Framed<S> {
    pub(in crate::control) fn new(stream: S) -> Self {
        let (from, to) = tokio::io::split(stream);
        Self { from, to, frames: Frames::default(), buffer: vec![0; PAYLOAD_MAX] }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Speaks for Framed<S> {
    async fn receive(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.frames.next_frame().map_err(io::Error::other)? {
                return Ok(frame);
            }
            match self.from.read(&mut self.buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.frames.push(&self.buffer[..length]),
            }
        }
    }

    async fn send(&mut self, frame: Frame) -> io::Result<()> {
        self.to.write_all(&frame.print()).await
    }

    async fn end(&mut self) -> io::Result<()> {
        self.to.shutdown().await
    }
}

fn halves(ends: Ends) -> io::Result<(Input, Output)> {
    let (to, from, is_terminal) = match ends {
        Ends::Terminal(master) => (master.try_clone()?, master, true),
        Ends::Pipes { input, output } => (input, output, false),
    };
    let input = Input { to: Some(watch(to)?), is_terminal, pending: Vec::new() };
    Ok((input, Output { from: watch(from)?, buffer: vec![0; PAYLOAD_MAX] }))
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for descriptors that are not owned; this one is"
)]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    AsyncFd::new(fd)
}

impl Input {
    /// An empty frame is the end of the input: of a pipe its closing, of a terminal the character for it.
    fn take(&mut self, bytes: Vec<u8>) {
        const END_OF_TRANSMISSION: u8 = 4;
        match (bytes.is_empty(), self.is_terminal) {
            (true, false) => self.to = None,
            (true, true) => self.pending = vec![END_OF_TRANSMISSION],
            // What nobody reads any more is taken and forgotten.
            (false, _) if self.to.is_none() => {}
            (false, _) => self.pending = bytes,
        }
    }

    fn owes(&self) -> bool {
        !self.pending.is_empty()
    }

    async fn write(&self) -> io::Result<usize> {
        let Some(to) = &self.to else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let write = |fd: &OwnedFd| Ok(rustix::io::write(fd, &self.pending)?);
        to.async_io(Interest::WRITABLE, write).await
    }

    fn note_written(&mut self, written: io::Result<usize>) {
        match written {
            Ok(length) => drop(self.pending.drain(..length)),
            // Nobody reads it any more.
            Err(_) => {
                self.to = None;
                self.pending.clear();
            }
        }
    }
}

impl Output {
    /// What was printed; `None` once nobody can print any more, which a terminal says by EIO.
    async fn read(&mut self) -> Option<Vec<u8>> {
        let Self { from, buffer } = self;
        let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut **buffer)?);
        match from.async_io(Interest::READABLE, read).await {
            Ok(0) | Err(_) => None,
            Ok(length) => Some(buffer[..length].to_vec()),
        }
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // Pipes have none.
        let _ = tcsetwinsize(self.from.get_ref(), size);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Write};
    use std::time::Duration;

    use rustix::pipe::fcntl_setpipe_size;
    use tokio::io::DuplexStream;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::shutdown::Shutdown;

    /// A client's end of a one-off whose process has exited, and what it leaves in its output.
    fn exited(printed: usize, shutdown: &Shutdown) -> (DuplexStream, PipeWriter, PipeReader) {
        let (output, mut printer) = io::pipe().unwrap();
        let (reader, input) = io::pipe().unwrap();
        fcntl_setpipe_size(&printer, 1024 * 1024).unwrap();
        printer.write_all(&vec![b'x'; printed]).unwrap();
        let (told, exit) = oneshot::channel();
        told.send(Exit::Status(0)).unwrap();
        let (signals, _) = mpsc::channel(1);
        let ends = Ends::Pipes { input: input.into(), output: output.into() };
        let (client, stream) = tokio::io::duplex(4096);
        shutdown.spawn(relay(Framed::new(stream), Session { ends, exit, signals }));
        (client, printer, reader)
    }

    /// How many bytes of output come before the exit.
    async fn received(mut client: DuplexStream) -> usize {
        let (mut bytes, mut frames) = (Vec::new(), Frames::default());
        let all = client.read_to_end(&mut bytes);
        timeout(Duration::from_secs(30), all).await.unwrap().unwrap();
        frames.push(&bytes);
        let mut length = 0;
        loop {
            match frames.next_frame().unwrap().expect("an exit at the end") {
                Frame::Output(bytes) => length += bytes.len(),
                frame => {
                    assert_eq!(frame, Frame::Exit(0));
                    return length;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_slowly_gets_the_end_of_the_output() {
        const PRINTED: usize = 400 * 1024;
        // The writer is kept: somebody who has left the group holds the output open.
        let (client, _printer, _reader) = exited(PRINTED, &Shutdown::default());
        sleep(limits::OUTPUT_AFTER_EXIT + Duration::from_millis(500)).await;
        assert_eq!(received(client).await, PRINTED);
    }

    #[tokio::test]
    async fn who_goes_on_printing_after_the_exit_is_cut_off() {
        let (client, mut printer, _reader) = exited(0, &Shutdown::default());
        // It ends when nobody reads it any more.
        std::thread::spawn(move || while printer.write_all(&[b'x'; 4096]).is_ok() {});
        let received = received(client).await;
        assert!(received < limits::OUTPUT_AFTER_EXIT_BYTES + PAYLOAD_MAX, "{received}");
    }
}

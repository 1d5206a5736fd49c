//! The person's end of an attached one-off dyno: standard input and output, the window, Ctrl-C.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use rustix::process::Signal;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::control::{Frame, Frames, Garbled, PAYLOAD_MAX, Upgraded};

/// The window's size: lines, and characters of a line. `None`: there is no window.
pub(in crate::cli) fn window() -> Option<(u16, u16)> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    tcgetwinsize(io::stdout()).ok().map(|size| (size.ws_row, size.ws_col))
}

/// Relays until the process has ended; its exit status, as a shell has it, becomes ours.
pub(in crate::cli) async fn relay(
    mut stream: Upgraded,
    is_terminal: bool,
) -> anyhow::Result<ExitCode> {
    let _raw = is_terminal.then(Raw::enter).transpose().context("prepare the terminal")?;
    let mut resized = signal(SignalKind::window_change()).context("watch the window")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("watch for Ctrl-C")?;
    let mut terminated = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut input = read_input();
    let mut taken = true;
    let (mut frames, mut buffer) = (Frames::default(), vec![0; PAYLOAD_MAX]);
    loop {
        while let Some(frame) = frames.next_frame()? {
            match frame {
                Frame::Output(bytes) => print(&bytes)?,
                Frame::Taken => taken = true,
                Frame::Exit(status) => return Ok(ExitCode::from(status.clamp(0, 255) as u8)),
                Frame::Input(_) | Frame::Resize { .. } | Frame::Signal(_) => {
                    return Err(Garbled.into());
                }
            }
        }
        // What is dropped here has read nothing.
        let frame = tokio::select! {
            read = stream.read(&mut buffer) => {
                let length = read.context("the daemon has gone")?;
                anyhow::ensure!(length > 0, "the daemon has ended the connection");
                frames.push(&buffer[..length]);
                continue;
            }
            bytes = input.recv(), if taken => {
                taken = false;
                // After its end the channel has nothing more, and `taken` stays as it is.
                let Some(bytes) = bytes else { continue };
                Frame::Input(bytes)
            }
            _ = resized.recv() => match window() {
                Some((rows, columns)) => Frame::Resize { rows, columns },
                None => continue,
            },
            _ = interrupted.recv() => Frame::Signal(Signal::INT.as_raw() as u8),
            _ = terminated.recv() => Frame::Signal(Signal::TERM.as_raw() as u8),
        };
        stream.write_all(&frame.print()).await.context("the daemon has gone")?;
    }
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(bytes).and_then(|()| output.flush()).context("write to standard output")
}

/// Standard input, piece by piece; an empty one at its end. A thread, because not every input can be polled; it
/// ends with the process.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (pieces, received) = mpsc::channel(1);
    thread::spawn(move || {
        let mut buffer = vec![0; PAYLOAD_MAX];
        loop {
            // An input that cannot be read has ended.
            let length = io::stdin().lock().read(&mut buffer).unwrap_or(0);
            let piece = buffer[..length].to_vec();
            if pieces.blocking_send(piece).is_err() || length == 0 {
                return;
            }
        }
    });
    received
}

/// The terminal passes every key on as it is, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

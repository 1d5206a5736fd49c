//! What an init and its daemon say to each other: one datagram each, over a SEQPACKET socket.
//!
//! The first byte says which; numbers are little-endian. [`Report::Hello`]'s first two bytes and
//! [`Request::Signal`] are the same in every version: a daemon can always stop an init that it does not
//! otherwise understand.
//!
//! Pure: descriptors go beside the bytes, and which ones is said at each message.

use rustix::process::Signal;

use crate::model::Exit;

/// What this binary speaks. One more with each change of what is below.
pub const VERSION: u8 = 2;

/// Bytes of the longest datagram.
pub const MESSAGE_MAX: usize = 16 * 1024;

/// Bytes of output that one [`Report::Output`] carries at most.
pub const OUTPUT_MAX: usize = MESSAGE_MAX - 1;

/// What an init says to its daemon.
///
/// To each daemon it says hello first, then what it has kept for it, in this order: output, the pipe, that the command
/// was started, how it ended, that nobody is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// I am here. With a pidfd of the init itself.
    Hello(Hello),
    /// What the dyno printed while no daemon was there.
    Output(Vec<u8>),
    /// All that was kept was said, and this is what was not kept; what comes now, the daemon reads itself. With
    /// the reading end of the pipe.
    Pipe(Lost),
    /// The dyno could not be made, and this is why. Nothing follows.
    Failed(String),
    /// The command was started. With a pidfd of its process; to the daemon that started it also with the
    /// master of its terminal, or with the writing end of its standard input, where it has one.
    Started,
    /// The command's process is gone. What it started may go on.
    Exited(Exit, HeardAt),
    /// No process of the dyno is left. The init stays until the daemon has closed the connection: the kernel takes
    /// namespaces down on the processor on which the daemon may be about to hear what was said before.
    Gone,
}

/// Who says hello, and what became of its dyno so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which messages it understands.
    pub version: u8,
    /// Since when it is up, as a daemon has said, in milliseconds since 1970.
    pub up_since: Option<u64>,
    /// It was told to end (SIGTERM or SIGKILL).
    pub stopping: bool,
}

/// Lines of output that nobody will read: there was no daemon, and too much to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub lines: u64,
    /// When the first of them was lost, in milliseconds since 1970.
    pub since: u64,
}

/// When the init heard of an exit, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeardAt(pub u64);

/// What a daemon asks of an init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Send this signal to every process of the dyno, whatever became of its command.
    Signal(u8),
    /// Remember since when it is up, in milliseconds since 1970, for the next daemon.
    Up(u64),
}

/// A datagram that is no message of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message that is not understood")]
pub struct MessageError;

const HELLO: u8 = 1;
const OUTPUT: u8 = 2;
const PIPE: u8 = 3;
const STARTED: u8 = 4;
const EXITED: u8 = 5;
const GONE: u8 = 6;
const FAILED: u8 = 7;

const SIGNAL: u8 = 1;
const UP: u8 = 2;

const FLAG_UP: u8 = 1;
const FLAG_STOPPING: u8 = 2;

const BY_ITSELF: u8 = 0;
const BY_SIGNAL: u8 = 1;

impl Report {
    /// The bytes of the datagram.
    pub fn print(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => hello.print(),
            Self::Output(bytes) => [&[OUTPUT], bytes.as_slice()].concat(),
            Self::Pipe(Lost { lines, since }) => {
                [&[PIPE], &lines.to_le_bytes()[..], &since.to_le_bytes()].concat()
            }
            Self::Failed(reason) => {
                let end = reason.floor_char_boundary(OUTPUT_MAX);
                [&[FAILED], &reason.as_bytes()[..end]].concat()
            }
            Self::Started => vec![STARTED],
            Self::Exited(Exit::Status(status), at) => exited(BY_ITSELF, *status, *at),
            Self::Exited(Exit::Signal(signal), at) => exited(BY_SIGNAL, *signal, *at),
            Self::Gone => vec![GONE],
        }
    }

    /// Reads a datagram. A hello of another version is read as far as all versions agree.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        match bytes {
            [HELLO, rest @ ..] => Hello::parse(rest).map(Self::Hello),
            [OUTPUT, output @ ..] => Ok(Self::Output(output.to_vec())),
            [PIPE, lost @ ..] => {
                let (lines, since) = lost.split_first_chunk::<8>().ok_or(MessageError)?;
                let since = since.try_into().map_err(|_| MessageError)?;
                let (lines, since) = (u64::from_le_bytes(*lines), u64::from_le_bytes(since));
                Ok(Self::Pipe(Lost { lines, since }))
            }
            [FAILED, reason @ ..] => {
                Ok(Self::Failed(str::from_utf8(reason).map_err(|_| MessageError)?.to_owned()))
            }
            [STARTED] => Ok(Self::Started),
            [EXITED, kind, rest @ ..] => {
                let (number, at) = rest.split_first_chunk::<4>().ok_or(MessageError)?;
                let number = i32::from_le_bytes(*number);
                let at = HeardAt(u64::from_le_bytes(at.try_into().map_err(|_| MessageError)?));
                match *kind {
                    BY_ITSELF => Ok(Self::Exited(Exit::Status(number), at)),
                    BY_SIGNAL => Ok(Self::Exited(Exit::Signal(number), at)),
                    _ => Err(MessageError),
                }
            }
            [GONE] => Ok(Self::Gone),
            _ => Err(MessageError),
        }
    }
}

fn exited(kind: u8, number: i32, HeardAt(at): HeardAt) -> Vec<u8> {
    [&[EXITED, kind], &number.to_le_bytes()[..], &at.to_le_bytes()].concat()
}

impl Hello {
    fn print(&self) -> Vec<u8> {
        let up = if self.up_since.is_some() { FLAG_UP } else { 0 };
        let stopping = if self.stopping { FLAG_STOPPING } else { 0 };
        let since = self.up_since.unwrap_or(0).to_le_bytes();
        [&[HELLO, self.version, up | stopping], since.as_slice()].concat()
    }

    fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        match *bytes {
            [VERSION, flags, ref since @ ..] if flags & !(FLAG_UP | FLAG_STOPPING) == 0 => {
                let since = u64::from_le_bytes(since.try_into().map_err(|_| MessageError)?);
                let is_up = flags & FLAG_UP != 0;
                if !is_up && since != 0 {
                    return Err(MessageError);
                }
                let stopping = flags & FLAG_STOPPING != 0;
                Ok(Self { version: VERSION, up_since: is_up.then_some(since), stopping })
            }
            [VERSION, ..] | [] => Err(MessageError),
            [version, ..] => Ok(Self { version, up_since: None, stopping: false }),
        }
    }
}

impl Request {
    /// To send this signal.
    pub fn signal(signal: Signal) -> Self {
        // None of those that have a name is beyond 31.
        Self::Signal(signal.as_raw() as u8)
    }

    /// The bytes of the datagram.
    pub fn print(&self) -> Vec<u8> {
        match self {
            Self::Signal(signal) => vec![SIGNAL, *signal],
            Self::Up(since) => [&[UP], since.to_le_bytes().as_slice()].concat(),
        }
    }

    /// Reads a datagram.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        match bytes {
            // Those of every kernel; the real-time ones have no meaning that a daemon could mean.
            [SIGNAL, signal @ 1..=31] => Ok(Self::Signal(*signal)),
            [UP, since @ ..] => {
                Ok(Self::Up(u64::from_le_bytes(since.try_into().map_err(|_| MessageError)?)))
            }
            _ => Err(MessageError),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> impl Strategy<Value = Hello> {
        any::<(Option<u64>, bool)>().prop_map(|(up_since, stopping)| Hello {
            version: VERSION,
            up_since,
            stopping,
        })
    }

    fn lost() -> impl Strategy<Value = Lost> {
        any::<(u64, u64)>().prop_map(|(lines, since)| Lost { lines, since })
    }

    fn report() -> impl Strategy<Value = Report> {
        prop_oneof![
            hello().prop_map(Report::Hello),
            prop::collection::vec(any::<u8>(), 0..99).prop_map(Report::Output),
            lost().prop_map(Report::Pipe),
            ".{0,99}".prop_map(Report::Failed),
            Just(Report::Started),
            any::<(i32, u64)>().prop_map(|(it, at)| Report::Exited(Exit::Status(it), HeardAt(at))),
            any::<(i32, u64)>().prop_map(|(it, at)| Report::Exited(Exit::Signal(it), HeardAt(at))),
            Just(Report::Gone),
        ]
    }

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![(1u8..=31).prop_map(Request::Signal), any::<u64>().prop_map(Request::Up)]
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(report in report(), request in request()) {
            prop_assert_eq!(Report::parse(&report.print()), Ok(report));
            prop_assert_eq!(Request::parse(&request.print()), Ok(request));
        }

        #[test]
        fn what_is_heard_was_said_so_and_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            if let Ok(request) = Request::parse(&bytes) {
                prop_assert_eq!(request.print(), bytes.clone());
            }
            match Report::parse(&bytes) {
                Ok(Report::Hello(hello)) if hello.version != VERSION => {}
                Ok(report) => prop_assert_eq!(report.print(), bytes),
                Err(MessageError) => {}
            }
        }
    }

    #[test]
    fn a_hello_of_another_version_is_known_for_what_it_is() {
        let hello = Report::parse(&[HELLO, VERSION + 1, 0xff]).unwrap();
        assert!(matches!(hello, Report::Hello(Hello { version, .. }) if version == VERSION + 1));
    }

    #[test]
    fn signals_that_no_daemon_means_are_refused() {
        for signal in [0, 32, 255] {
            assert_eq!(Request::parse(&[SIGNAL, signal]), Err(MessageError));
        }
    }
}

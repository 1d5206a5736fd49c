//! The frames that an HTTP/2 client sends, as they pass (RFC 9113 §4.1): where each begins, and what its header
//! says. Streams, header lists and windows are left to the h2 crate, which reads what goes on.
//!
//! One thing is changed on the way. A pseudo-field in trailers makes a request malformed (RFC 9113 §8.1), but the
//! crate drops it without a word. What it does refuse is a pseudo-field behind an ordinary field. So the field
//! block of trailers goes on with an ordinary field in front of it, [`MARK`], in a frame of its own: nobody has
//! to decode anything, and what the block does to the table of fields stays what its sender meant.

/// Bytes of what a client says first (RFC 9113 §3.4).
const PREFACE: usize = 24;
const HEADER: usize = 9;
/// Of a HEADERS frame, the length of the padding and the priority: what may come before the field block.
const PREFIX_MAX: usize = 6;
const PRIORITY_LENGTH: usize = 5;
/// Streams that are known by name as not ended by the client: more than there may be, for those that were refused
/// may never be ended.
const UNENDED_MAX: usize = 256;

/// `accept-charset` with no value, as one byte (RFC 7541, appendix A): a field that goes no further, for no
/// trailer may say what is acceptable ([`passable_trailers`](crate::wire::passable_trailers)).
const MARK: u8 = 0x80 | 15;

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes that follow.
    pub length: usize,
    /// Its type, of those that are named here or of any other.
    pub kind: u8,
    /// Its flags; which they are depends on the type.
    pub flags: u8,
    /// The stream it is about; 0 is the connection.
    pub stream: u32,
}

#[expect(missing_docs, reason = "the names are those of RFC 9113 §6")]
impl FrameHeader {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;

    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const HAS_PRIORITY: u8 = 32;
}

impl FrameHeader {
    fn parse(bytes: &[u8; HEADER]) -> Self {
        let [high, middle, low, kind, flags, stream @ ..] = *bytes;
        Self {
            length: u32::from_be_bytes([0, high, middle, low]) as usize,
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
        }
    }

    fn print(self) -> [u8; HEADER] {
        let [_, high, middle, low] = (self.length as u32).to_be_bytes();
        let [a, b, c, d] = self.stream.to_be_bytes();
        [high, middle, low, self.kind, self.flags, a, b, c, d]
    }

    /// Whether it has all of these flags.
    pub fn has(self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Bytes of a HEADERS frame before its field block.
    fn prefix_length(self) -> usize {
        let padding = usize::from(self.has(Self::PADDED));
        let priority = if self.has(Self::HAS_PRIORITY) { PRIORITY_LENGTH } else { 0 };
        padding + priority
    }

    /// Whether it is as long as frames of its type must be. How long they may be at most is for the h2 crate.
    fn has_its_length(self) -> bool {
        match self.kind {
            Self::DATA => self.length >= usize::from(self.has(Self::PADDED)),
            Self::HEADERS => self.length >= self.prefix_length(),
            Self::PRIORITY => self.length == PRIORITY_LENGTH,
            Self::RST_STREAM | Self::WINDOW_UPDATE => self.length == 4,
            Self::SETTINGS if self.has(Self::ACK) => self.length == 0,
            Self::SETTINGS => self.length.is_multiple_of(6),
            Self::PING => self.length == 8,
            Self::GOAWAY => self.length >= 8,
            _ => true,
        }
    }
}

/// What a client's frames are refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// The first is no SETTINGS (RFC 9113 §3.4); the h2 crate takes any.
    First,
    /// One has not the length of its type (RFC 9113 §4.2): FRAME_SIZE_ERROR, which the h2 crate says of none.
    Length,
}

/// How far a client's frames have passed.
pub struct FramePassage {
    /// The header that is being read, and of trailers what comes before the field block.
    head: [u8; HEADER + PREFIX_MAX],
    have: usize,
    wanted: usize,
    /// Bytes until the next header: those that go on, and the padding behind them that does not.
    payload: usize,
    padding: usize,
    /// The frame that is being read is of trailers.
    trailers: bool,
    streams: Streams,
    /// The first frame has come.
    greeted: bool,
    bad: Option<BadFrame>,
}

impl Default for FramePassage {
    fn default() -> Self {
        Self {
            head: [0; HEADER + PREFIX_MAX],
            have: 0,
            wanted: HEADER,
            payload: PREFACE,
            padding: 0,
            trailers: false,
            streams: Streams::default(),
            greeted: false,
            bad: None,
        }
    }
}

impl FramePassage {
    /// Lets bytes pass, and shows the header of every frame. Returns how many of them go on as they are; what goes
    /// on behind them is put into `rest`, which is empty. A header goes on when it is whole, and behind a bad frame
    /// nothing does.
    pub fn pass(
        &mut self,
        bytes: &[u8],
        rest: &mut Vec<u8>,
        mut show: impl FnMut(FrameHeader),
    ) -> usize {
        debug_assert!(rest.is_empty());
        let mut onward = Onward { bytes, same: 0, rest };
        let mut at = 0;
        while at < bytes.len() && self.bad.is_none() {
            let left = bytes.len() - at;
            let count;
            if self.payload > 0 {
                count = self.payload.min(left);
                self.payload -= count;
                onward.keep(at, count);
            } else if self.padding > 0 {
                count = self.padding.min(left);
                self.padding -= count;
            } else {
                count = (self.wanted - self.have).min(left);
                self.head[self.have..self.have + count].copy_from_slice(&bytes[at..at + count]);
                self.have += count;
                if self.have == self.wanted {
                    self.head_is_read(at + count, &mut onward, &mut show);
                }
            }
            at += count;
        }
        onward.same
    }

    /// Why nothing passes any more.
    pub fn bad(&self) -> Option<BadFrame> {
        self.bad
    }

    /// Nobody wants to know any more what comes on a stream.
    pub fn forget(&mut self, stream: u32) {
        self.streams.end(stream);
    }

    /// `end`: where in the bytes what is wanted of the head ends.
    fn head_is_read(
        &mut self,
        end: usize,
        onward: &mut Onward,
        show: &mut impl FnMut(FrameHeader),
    ) {
        let [head @ .., _, _, _, _, _, _] = &self.head;
        let header = FrameHeader::parse(head);
        if self.have == HEADER {
            show(header);
            self.judge(header);
            if self.bad.is_some() {
                return;
            }
            self.trailers = self.streams.is_trailers(header);
            if self.trailers && header.prefix_length() > 0 {
                self.wanted = HEADER + header.prefix_length();
                return;
            }
        }
        if self.trailers {
            self.mark(header, onward);
        } else {
            self.payload = header.length;
            onward.head(end, &self.head[..self.have]);
        }
        self.have = 0;
        self.wanted = HEADER;
    }

    fn judge(&mut self, header: FrameHeader) {
        if !self.greeted && header.kind != FrameHeader::SETTINGS {
            self.bad = Some(BadFrame::First);
        } else if !header.has_its_length() {
            self.bad = Some(BadFrame::Length);
        }
        self.greeted = true;
    }

    /// Trailers: a frame with what came before the field block and the mark goes ahead, and the block follows as a
    /// continuation, where an update of the table's size is in its right place too.
    fn mark(&mut self, header: FrameHeader, onward: &mut Onward) {
        let prefix = &self.head[HEADER..self.have];
        let (padding, priority) = match prefix.split_first() {
            Some((padding, priority)) if header.has(FrameHeader::PADDED) => {
                (usize::from(*padding), priority)
            }
            _ => (0, prefix),
        };
        let block = header.length - prefix.len();
        let Some(length) = block.checked_sub(padding) else {
            // More padding than there is room for: the h2 crate refuses it.
            self.payload = block;
            return onward.put(&self.head[..self.have]);
        };
        let ahead = FrameHeader {
            length: priority.len() + 1,
            flags: header.flags & !(FrameHeader::END_HEADERS | FrameHeader::PADDED),
            ..header
        };
        let behind = FrameHeader {
            length,
            kind: FrameHeader::CONTINUATION,
            flags: header.flags & FrameHeader::END_HEADERS,
            ..header
        };
        onward.put(&ahead.print());
        onward.put(priority);
        onward.put(&[MARK]);
        onward.put(&behind.print());
        self.payload = length;
        self.padding = padding;
    }
}

/// On which streams trailers may come. A HEADERS frame on any other is a new request, or an error of another kind
/// that the h2 crate knows best.
#[derive(Default)]
struct Streams {
    /// The last stream that was opened; 0 before there is one.
    newest: u32,
    /// Those that the client has not ended, in ascending order.
    unended: Vec<u32>,
    /// There were too many of them: any that a client may have opened is taken for one.
    overflowed: bool,
}

impl Streams {
    /// Takes note of a frame, and says whether it is of trailers.
    fn is_trailers(&mut self, header: FrameHeader) -> bool {
        let FrameHeader { kind, stream, .. } = header;
        let is_last = header.has(FrameHeader::END_STREAM);
        match kind {
            FrameHeader::HEADERS if stream > self.newest => {
                self.newest = stream;
                if !is_last {
                    self.begin(stream);
                }
                false
            }
            FrameHeader::HEADERS => {
                let is_open = self.unended.binary_search(&stream).is_ok();
                if is_last {
                    self.end(stream);
                }
                is_open || self.overflowed && stream % 2 == 1
            }
            FrameHeader::DATA if is_last => {
                self.end(stream);
                false
            }
            FrameHeader::RST_STREAM => {
                self.end(stream);
                false
            }
            _ => false,
        }
    }

    fn begin(&mut self, stream: u32) {
        if self.unended.len() < UNENDED_MAX {
            self.unended.push(stream);
        } else {
            self.overflowed = true;
        }
    }

    fn end(&mut self, stream: u32) {
        if let Ok(index) = self.unended.binary_search(&stream) {
            self.unended.remove(index);
        }
    }
}

/// What of some bytes goes on.
struct Onward<'a> {
    bytes: &'a [u8],
    /// So many of them as they are.
    same: usize,
    /// And these behind them.
    rest: &'a mut Vec<u8>,
}

impl Onward<'_> {
    /// So many bytes from here on.
    fn keep(&mut self, at: usize, count: usize) {
        if at == self.same && self.rest.is_empty() {
            self.same += count;
        } else {
            self.rest.extend_from_slice(&self.bytes[at..at + count]);
        }
    }

    /// A head that ends here; it may have begun in earlier bytes.
    fn head(&mut self, end: usize, head: &[u8]) {
        match end.checked_sub(head.len()) {
            Some(start) => self.keep(start, head.len()),
            None => self.put(head),
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const END_STREAM: u8 = FrameHeader::END_STREAM;

    /// A frame, as one that knows no other sees it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Frame {
        header: FrameHeader,
        payload: Vec<u8>,
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Frame {
        let header = FrameHeader { length: payload.len(), kind, flags, stream };
        Frame { header, payload: payload.to_vec() }
    }

    fn settings() -> Frame {
        frame(FrameHeader::SETTINGS, 0, 0, b"")
    }

    fn print(frames: &[Frame]) -> Vec<u8> {
        let bytes = frames.iter().flat_map(|it| [&it.header.print()[..], &it.payload].concat());
        [0; PREFACE].into_iter().chain(bytes).collect()
    }

    fn parse(bytes: &[u8]) -> Vec<Frame> {
        let (mut frames, mut rest) = (Vec::new(), &bytes[PREFACE..]);
        while let Some((header, behind)) = rest.split_first_chunk() {
            let header = FrameHeader::parse(header);
            let (payload, behind) = behind.split_at(header.length);
            frames.push(Frame { header, payload: payload.to_vec() });
            rest = behind;
        }
        assert!(rest.is_empty());
        frames
    }

    /// What comes through, whatever pieces it came in, and the headers that were shown.
    fn through(bytes: &[u8], pieces: &[usize]) -> (Vec<u8>, Vec<FrameHeader>, Option<BadFrame>) {
        let mut passage = FramePassage::default();
        let (mut out, mut shown, mut left) = (Vec::new(), Vec::new(), bytes);
        let mut lengths = pieces.iter().cycle();
        while !left.is_empty() {
            let length = lengths.next().map_or(left.len(), |it| (*it).clamp(1, left.len()));
            let (piece, behind) = left.split_at(length);
            let mut rest = Vec::new();
            let same = passage.pass(piece, &mut rest, |header| shown.push(header));
            out.extend_from_slice(&piece[..same]);
            out.append(&mut rest);
            left = behind;
        }
        (out, shown, passage.bad())
    }

    #[track_caller]
    fn check(trailers: &[Frame], expected: &[Frame]) {
        let request =
            [settings(), frame(FrameHeader::HEADERS, FrameHeader::END_HEADERS, 1, b"head")];
        let after = [frame(FrameHeader::PING, 0, 0, b"12345678")];
        let bytes = print(&[&request, trailers, &after].concat());
        let expected = [&request, expected, &after].concat();
        for piece in 1..bytes.len() {
            let (out, ..) = through(&bytes, &[piece]);
            assert_eq!(parse(&out), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_field_is_put_before_trailers() {
        check(
            &[frame(FrameHeader::HEADERS, FrameHeader::END_HEADERS | END_STREAM, 1, b"fields")],
            &[
                frame(FrameHeader::HEADERS, END_STREAM, 1, &[MARK]),
                frame(FrameHeader::CONTINUATION, FrameHeader::END_HEADERS, 1, b"fields"),
            ],
        );
    }

    #[test]
    fn trailers_may_be_continued() {
        let rest = frame(FrameHeader::CONTINUATION, FrameHeader::END_HEADERS, 1, b"more");
        check(
            &[frame(FrameHeader::HEADERS, END_STREAM, 1, b"fields"), rest.clone()],
            &[
                frame(FrameHeader::HEADERS, END_STREAM, 1, &[MARK]),
                frame(FrameHeader::CONTINUATION, 0, 1, b"fields"),
                rest,
            ],
        );
    }

    #[test]
    fn padding_and_priority_of_trailers_are_no_fields() {
        let flags = FrameHeader::END_HEADERS | END_STREAM;
        for (more, payload, ahead) in [
            (FrameHeader::PADDED, &b"\x03fields\0\0\0"[..], &b"\x8f"[..]),
            (FrameHeader::HAS_PRIORITY, b"\0\0\0\x03\x10fields", b"\0\0\0\x03\x10\x8f"),
            (
                FrameHeader::PADDED | FrameHeader::HAS_PRIORITY,
                b"\x01\0\0\0\x03\x10fields\0",
                b"\0\0\0\x03\x10\x8f",
            ),
        ] {
            let priority = more & FrameHeader::HAS_PRIORITY;
            check(
                &[frame(FrameHeader::HEADERS, flags | more, 1, payload)],
                &[
                    frame(FrameHeader::HEADERS, END_STREAM | priority, 1, ahead),
                    frame(FrameHeader::CONTINUATION, FrameHeader::END_HEADERS, 1, b"fields"),
                ],
            );
        }
    }

    #[test]
    fn too_much_padding_is_left_to_be_refused() {
        let flags = FrameHeader::END_HEADERS | END_STREAM | FrameHeader::PADDED;
        let trailers = [frame(FrameHeader::HEADERS, flags, 1, b"\x09fields")];
        check(&trailers, &trailers);
    }

    #[test]
    fn heads_of_requests_stay_as_they_are() {
        let flags = FrameHeader::END_HEADERS | FrameHeader::PADDED | FrameHeader::HAS_PRIORITY;
        let head = [frame(FrameHeader::HEADERS, flags, 3, b"\x01\0\0\0\x03\x10fields\0")];
        check(&head, &head);
    }

    #[test]
    fn only_what_is_open_has_trailers() {
        const ENDS: u8 = FrameHeader::END_HEADERS | END_STREAM;
        let open = frame(FrameHeader::HEADERS, FrameHeader::END_HEADERS, 7, b"head");
        let again = |stream| frame(FrameHeader::HEADERS, ENDS, stream, b"head");
        for frames in [
            vec![open.clone(), frame(FrameHeader::DATA, END_STREAM, 7, b"body"), again(7)],
            vec![open.clone(), frame(FrameHeader::RST_STREAM, 0, 7, b"1234"), again(7)],
            // A request that was all head, and streams that were never opened.
            vec![again(7), again(7)],
            vec![open.clone(), again(5), again(6), again(0)],
        ] {
            check(&frames, &frames);
        }
        let mut passage = FramePassage::default();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let bytes = print(&[settings(), open]);
        assert_eq!(passage.pass(&bytes, &mut first, |_| ()), bytes.len());
        passage.forget(7);
        let bytes = &print(&[again(7)])[PREFACE..];
        assert_eq!(passage.pass(bytes, &mut second, |_| ()), bytes.len());
        assert!(first.is_empty() && second.is_empty());
    }

    #[test]
    fn however_many_streams_are_open_none_is_missed() {
        let count = 2 * UNENDED_MAX as u32;
        let head = |stream| frame(FrameHeader::HEADERS, FrameHeader::END_HEADERS, stream, b"head");
        let heads = (0..count).map(|number| head(2 * number + 1));
        for stream in [1, 2 * count - 1] {
            let frames: Vec<_> = [settings()].into_iter().chain(heads.clone()).collect();
            let passed = print(&frames).len();
            let (out, ..) = through(&print(&[frames, vec![head(stream)]].concat()), &[]);
            assert_eq!(out[passed + HEADER], MARK, "stream {stream}");
        }
    }

    #[test]
    fn settings_come_first() {
        for (first, bad) in [(4, None), (1, Some(BadFrame::First)), (6, Some(BadFrame::First))] {
            let bytes = print(&[frame(first, 0, 0, b"")]);
            assert_eq!(through(&bytes, &[]).2, bad, "frame type {first}");
        }
    }

    #[test]
    fn frames_have_the_length_of_their_type() {
        let flags = [
            FrameHeader::ACK,
            FrameHeader::PADDED,
            FrameHeader::PADDED | FrameHeader::HAS_PRIORITY,
        ];
        for (kind, flags, good, bad) in [
            (FrameHeader::DATA, 0, &[0, 1][..], &[][..]),
            (FrameHeader::DATA, flags[1], &[1], &[0]),
            (FrameHeader::HEADERS, 0, &[0], &[]),
            (FrameHeader::HEADERS, flags[2], &[6], &[5]),
            (FrameHeader::PRIORITY, 0, &[5], &[4, 6]),
            (FrameHeader::RST_STREAM, 0, &[4], &[0, 3, 5]),
            (FrameHeader::SETTINGS, 0, &[0, 6, 12], &[1, 5, 7]),
            (FrameHeader::SETTINGS, flags[0], &[0], &[6]),
            (FrameHeader::PING, 0, &[8], &[0, 7, 9]),
            (FrameHeader::GOAWAY, 0, &[8, 9], &[7]),
            (FrameHeader::WINDOW_UPDATE, 0, &[4], &[3, 5]),
            (0x42, 0xff, &[0, 77], &[]),
        ] {
            for (lengths, verdict) in [(good, None), (bad, Some(BadFrame::Length))] {
                for length in lengths {
                    let frames = [settings(), frame(kind, flags, 1, &vec![0; *length]), settings()];
                    let (out, _, found) = through(&print(&frames), &[]);
                    assert_eq!(found, verdict, "type {kind}, {length} bytes");
                    let passed = if verdict.is_some() { &frames[..1] } else { &frames };
                    assert_eq!(parse(&out), passed, "type {kind}, {length} bytes");
                }
            }
        }
    }

    #[test]
    fn headers_of_frames_are_shown_once() {
        let frames = [
            settings(),
            frame(FrameHeader::HEADERS, FrameHeader::PADDED, 1, b"\x01fields\0"),
            frame(FrameHeader::HEADERS, FrameHeader::PADDED, 1, b"\x01fields\0"),
            frame(FrameHeader::DATA, 0, 1, &[9; 100]),
        ];
        for piece in [1, 7, 13, 1000] {
            let (_, shown, _) = through(&print(&frames), &[piece]);
            assert_eq!(shown, frames.each_ref().map(|it| it.header), "in pieces of {piece}");
        }
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let kind = prop_oneof![Just(FrameHeader::HEADERS), 0..10_u8];
        (kind, any::<u8>(), 0..4_u32, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
            .prop_filter("of its length", |it| it.header.has_its_length())
    }

    /// What goes on of such frames, by the letter.
    fn expected(sent: &[Frame]) -> Vec<Frame> {
        let (mut passed, mut newest, mut unended) = (Vec::new(), 0, BTreeSet::new());
        for it in sent {
            let Frame { header, payload } = it;
            let (kind, flags, stream) = (header.kind, header.flags, header.stream);
            let padded = usize::from(header.has(FrameHeader::PADDED));
            let padding = padded * usize::from(payload.first().copied().unwrap_or(0));
            let block = padded + if header.has(FrameHeader::HAS_PRIORITY) { 5 } else { 0 };
            let is_head = kind == FrameHeader::HEADERS;
            if is_head && unended.contains(&stream) && block + padding <= payload.len() {
                let ahead = [&payload[padded..block], b"\x8f"].concat();
                let block = &payload[block..payload.len() - padding];
                passed.push(frame(FrameHeader::HEADERS, flags & !0b1100, stream, &ahead));
                passed.push(frame(FrameHeader::CONTINUATION, flags & 0b0100, stream, block));
            } else {
                passed.push(it.clone());
            }
            if is_head && stream > newest {
                newest = stream;
                unended.insert(stream);
            }
            if kind <= FrameHeader::HEADERS && flags & 1 == 1 || kind == FrameHeader::RST_STREAM {
                unended.remove(&stream);
            }
        }
        passed
    }

    proptest! {
        /// However the bytes are cut, each frame goes on as it was but for trailers.
        #[test]
        fn nothing_else_is_changed(
            frames in prop::collection::vec(any_frame(), 0..12),
            pieces in prop::collection::vec(1..30_usize, 1..8),
        ) {
            let sent = [vec![settings()], frames].concat();
            let (out, shown, bad) = through(&print(&sent), &pieces);
            prop_assert_eq!(bad, None);
            prop_assert_eq!(shown, sent.iter().map(|it| it.header).collect::<Vec<_>>());
            prop_assert_eq!(parse(&out), expected(&sent));
        }
    }
}

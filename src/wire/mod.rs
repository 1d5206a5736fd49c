//! HTTP/1.1 as bytes (RFC 9112), strict: whatever two parsers could read two ways is refused. And the PROXY
//! header that may stand before it, the frames of WebSockets that may come after it, and those of HTTP/2 as they pass.
//!
//! Invariant: no sockets, no clock, no async. Bytes in, values and bytes out.

mod head;
mod field;
mod request_head;
mod response_head;
mod response_heads;
mod chunked;
mod frames;
mod print;
mod proxy_header;
mod websocket;
#[cfg(test)]
mod smuggling;

pub use chunked::{
    BadChunk, ChunkedDecoder, Piece, passable_trailers, write_chunk, write_last_chunk,
};
pub use frames::{BadFrame, FrameHeader, FramePassage};
pub use head::{BadHead, Field, FieldSlots, HeadScan, Version, blank_lines};
pub use print::{write_field, write_name, write_number, write_status_line};
pub use proxy_header::{BadProxyHeader, ProxyHeader};
pub use request_head::{BadRequest, RequestBody, RequestHead, Target};
pub use response_head::{BadResponse, ResponseBody, ResponseHead};
pub use response_heads::ResponseHeads;
pub use websocket::{Frames, close_frame};

//! Frames that cost the router something and carry no request: bounded, counted, and answered with GOAWAY.

use crate::support::{App, Frame, Frames, Http2, Mesh, get, get_fields, post};

const FLOODS: &str = "dynomesh_http2_floods_total";
const ENHANCE_YOUR_CALM: u32 = 11;

/// Sends rounds of frames until the router has had enough, and says with which error it ended. Asserts that
/// everybody else is served meanwhile.
async fn flooded(mesh: &Mesh, frames_of: impl Fn(u32) -> Vec<Frame>) -> u32 {
    let mut other = Http2::connect(mesh).await;
    let mut frames = Frames::connect(mesh).await;
    let mut round = 0;
    let flood = frames.flood(|| {
        round += 1;
        frames_of(round - 1)
    });
    let others = async {
        for _ in 0..20 {
            assert_eq!(other.get("/").await.status, 200, "on another connection");
            assert_eq!(mesh.get("/").await.status, 200, "on a new one");
        }
    };
    tokio::join!(flood, others);
    assert_eq!(other.get("/").await.status, 200);
    frames.goaway().await
}

async fn counts_one(mesh: &Mesh) {
    mesh.metric_becomes(FLOODS, &[], 1.0).await;
}

/// CVE-2023-44487.
#[tokio::test]
async fn requests_that_are_given_up_at_once() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let reset = |stream: u32| [Frame::get(stream, "/rapid"), Frame::cancel(stream)];
    let code = flooded(&mesh, |round| reset(2 * round + 1).into()).await;
    assert_eq!(code, ENHANCE_YOUR_CALM);
    counts_one(&mesh).await;
    let metrics = mesh.metrics().await;
    assert_eq!(metrics.get("dynomesh_panics_total", &[]), 0.0);
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], 0.0).await;
    assert!(app.count().await < 1000, "{}", app.count().await);
}

/// Each in its own packet, or all in one: it is their number that counts. A page that is left takes its
/// hundred requests with it, which is no attack.
#[tokio::test]
async fn a_client_may_give_up_all_of_its_streams_at_once() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut frames = Frames::connect(&mesh).await;
    let streams = || (0..100).map(|number| 2 * number + 1);
    let requests = streams().map(|stream| Frame::get(stream, "/sleep?ms=100"));
    frames.send(requests.chain(streams().map(Frame::cancel))).await;
    frames.send([Frame::get(201, "/")]).await;
    loop {
        let frame = frames.next().await;
        assert_ne!(frame.kind, Frame::GOAWAY, "{frame:?}");
        if frame.stream == 201 && frame.ends_stream() {
            break;
        }
    }
    assert_eq!(mesh.metrics().await.get(FLOODS, &[]), 0.0);
}

#[tokio::test]
async fn pings() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let ping = |round: u32| Frame::new(Frame::PING, 0, 0, &u64::from(round).to_be_bytes());
    let code = flooded(&mesh, |round| vec![ping(round); 10]).await;
    assert_eq!(code, ENHANCE_YOUR_CALM);
    counts_one(&mesh).await;
}

#[tokio::test]
async fn settings() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let code = flooded(&mesh, |round| vec![Frame::initial_window(60_000 + round % 2); 10]).await;
    assert_eq!(code, ENHANCE_YOUR_CALM);
    counts_one(&mesh).await;
}

#[tokio::test]
async fn data_without_data() {
    let app = App::start().await;
    for padded in [false, true] {
        let mesh = Mesh::of(&[&app]).await;
        let open = Frame::new(Frame::HEADERS, Frame::END_HEADERS, 1, &get_fields("/upload"));
        // Flag 8: a byte says how much padding follows. None does.
        let empty = match padded {
            true => Frame::new(Frame::DATA, 8, 1, &[0]),
            false => Frame::new(Frame::DATA, 0, 1, &[]),
        };
        let code = flooded(&mesh, |round| match round {
            0 => vec![open.clone()],
            _ => vec![empty.clone(); 10],
        })
        .await;
        assert_eq!(code, ENHANCE_YOUR_CALM, "padded: {padded}");
        counts_one(&mesh).await;
        mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], 0.0).await;
    }
}

/// One header list in any number of frames.
#[tokio::test]
async fn continuations() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for content in [&[][..], &[0x00, 1, b'a', 1, b'b']] {
        let before = mesh.metrics().await.get(FLOODS, &[]);
        let code = flooded(&mesh, |round| match round {
            0 => vec![Frame::new(Frame::HEADERS, 0, 1, &get_fields("/never"))],
            _ => vec![Frame::new(Frame::CONTINUATION, 0, 1, content); 10],
        })
        .await;
        assert_eq!(code, ENHANCE_YOUR_CALM);
        mesh.metric_becomes(FLOODS, &[], before + 1.0).await;
    }
    assert!(mesh.requests("/never").is_empty());
}

#[tokio::test]
async fn window_updates() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let code = flooded(&mesh, |_| vec![Frame::window(0, 1); 10]).await;
    assert_eq!(code, ENHANCE_YOUR_CALM);
    counts_one(&mesh).await;
}

/// What a busy client sends is none of it.
#[tokio::test]
async fn a_client_that_works_hard_is_no_flood() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    for _ in 0..30 {
        let mut exchanges = Vec::new();
        for _ in 0..50 {
            exchanges.push(client.begin(get("/"), true).await);
        }
        for exchange in exchanges {
            assert_eq!(exchange.answer().await.status, 200);
        }
    }
    let mut upload = client.begin(post("/length"), false).await;
    for _ in 0..3000 {
        upload.send(b"line of a log\n", false).await;
    }
    upload.send(b"end", true).await;
    assert_eq!(upload.answer().await.text(), "42003");
    assert_eq!(mesh.metrics().await.get(FLOODS, &[]), 0.0);
}

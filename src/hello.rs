//! The example app, `dynomesh hello`: a web dyno that says who it is.
//!
//! It shows what an app behind the router needs to do: listen on `$PORT`, keep connections alive, and finish
//! on SIGTERM what it has begun. It knows nothing of the rest of this crate.

use std::convert::Infallible;
use std::env;
use std::io;
use std::net::Ipv4Addr;
use std::pin::pin;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::shutdown::Shutdown;

/// Serves until SIGTERM, then until the last answer is sent.
pub fn run() -> io::Result<()> {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "PORT is not set to a port number: this runs as a dyno",
        )
    })?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(port))
}

async fn serve(port: u16) -> io::Result<()> {
    let mut sigterm = signal(SignalKind::terminate())?;
    // Where nobody but the router comes from: the host's loopback, or all of a network of its own.
    let is_private = env::var("DYNOMESH_NETWORK").is_ok_and(|network| network == "private");
    let ip = if is_private { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let listener = TcpListener::bind((ip, port)).await?;
    println!("Listening on {port}");
    let shutdown = Shutdown::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A client that left before it was accepted is none of the others' business.
                if let Ok((stream, _)) = accepted {
                    shutdown.spawn(answer_all(stream, shutdown.clone()));
                }
            }
            _ = sigterm.recv() => break,
        }
    }
    drop(listener);
    shutdown.begin();
    shutdown.finished().await;
    println!("Finished");
    Ok(())
}

async fn answer_all(stream: TcpStream, shutdown: Shutdown) {
    let answer = service_fn(|request| async move { Ok::<_, Infallible>(answer(&request)) });
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    // What a connection fails with is the client's affair.
    let _ = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let request_id =
        request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("-");
    let variable = |name| env::var(name).unwrap_or_else(|_| "-".into());
    let page = page(&[
        ("app", &variable("HEROKU_APP_NAME")),
        ("dyno", &variable("DYNO")),
        ("release", &variable("HEROKU_RELEASE_VERSION")),
        ("request", request_id),
    ]);
    let mut response = Response::new(Full::new(page.into()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn page(facts: &[(&str, &str)]) -> String {
    let row = |(name, value): &(&str, &str)| {
        format!("<tr><th>{name}</th><td>{}</td></tr>\n", escape(value))
    };
    let rows = facts.iter().map(row).collect::<String>();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<title>Hello from dynomesh</title>\n\
         <style>body {{ font: 1.1em/1.6 sans-serif; margin: 4em }} th {{ text-align: left; padding-right: 2em }}</style>\n\
         <h1>Hello from dynomesh</h1>\n<table>\n{rows}</table>\n"
    )
}

/// The request id may come from the client.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_facts_as_text() {
        let page = page(&[("dyno", "web.1"), ("request", "<b>&")]);
        assert!(page.contains("<th>dyno</th><td>web.1</td>"), "{page}");
        assert!(page.contains("<td>&lt;b&gt;&amp;</td>"), "{page}");
    }
}

//! Which app and which dyno a request goes to, and what is retried.

use crate::support::{App, Mesh};

#[tokio::test]
async fn a_request_reaches_the_dyno_and_its_answer_the_client() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let answer = mesh.get("/").await;
    assert_eq!((answer.status, answer.text()), (200, "testapp"));
    assert_eq!(app.count().await, 1);
}

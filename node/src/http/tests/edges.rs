//! Keys, names of requests, unknown routes, probes.

use super::fake::{FakeGateway, KEY, ask, hello, send};
use axum::body::Body;
use axum::http::Request;
use futures_util::stream;
use serde_json::json;
use std::convert::Infallible;
use std::task::Poll;

#[tokio::test]
async fn without_a_valid_key_only_the_probes_answer() {
    let gateway = FakeGateway::new(hello);
    for key in ["", "Bearer wrong", "Basic secret", "secret"] {
        let request = Request::get("/v1/models")
            .header("authorization", key)
            .body(Body::empty())
            .unwrap();
        let answer = send(&gateway, request).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.headers["www-authenticate"]),
            (401, &"Bearer".parse().unwrap())
        );
        assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
    }
    for path in ["/health", "/ready", "/metrics"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(send(&gateway, request).await.status, 200, "{path}");
    }
    let request = Request::get("/v1/models")
        .header("authorization", format!("bearer {KEY}"))
        .body(Body::empty())
        .unwrap();
    assert_eq!(send(&gateway, request).await.status, 200);
}

#[tokio::test]
async fn a_name_that_is_no_text_is_refused_in_the_form_of_errors() {
    let answer = ask(&FakeGateway::new(hello), "GET", "/v1/models/%ff", String::new()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.error_param().as_str()),
        (400, "model")
    );
}

#[tokio::test]
async fn of_a_request_without_a_key_no_byte_of_the_body_is_read() {
    const OPEN: [&str; 3] = ["/health", "/metrics", "/ready"];
    let gateway = FakeGateway::new(hello);
    let document = ask(&gateway, "GET", "/openapi.json", String::new()).await.json();
    let mut routes = vec![("/nowhere".to_owned(), "POST".to_owned())];
    for (path, methods) in document["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap().keys();
        routes.extend(methods.map(|method| (path.replace("{name}", "m"), method.to_uppercase())));
    }
    let closed = routes.iter().filter(|(path, _)| !OPEN.contains(&path.as_str()));
    let mut count = 0;
    for (path, method) in closed {
        let unread = Body::from_stream(stream::poll_fn(
            |_| -> Poll<Option<Result<Vec<u8>, Infallible>>> { panic!("the body was read") },
        ));
        let request = Request::builder().method(method.as_str()).uri(path);
        let answer = send(&gateway, request.body(unread).unwrap()).await;
        assert_eq!(answer.status, 401, "{method} {path}");
        count += 1;
    }
    assert!(count >= 9, "{routes:?}");
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_a_fit_one_of_the_client_is_kept() {
    let gateway = FakeGateway::new(hello);
    let drawn = ask(&gateway, "GET", "/nowhere", String::new()).await.headers["x-request-id"].clone();
    assert_eq!(drawn.len(), 32);
    for (sent, kept) in [("trace-1:a/b", true), ("two words", false), ("", false)] {
        let request = Request::get("/health")
            .header("x-request-id", sent)
            .body(Body::empty())
            .unwrap();
        assert_eq!(
            send(&gateway, request).await.headers["x-request-id"] == sent,
            kept,
            "{sent:?}"
        );
    }
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_json_errors() {
    let gateway = FakeGateway::new(hello);
    let unknown = ask(&gateway, "GET", "/v1/nothing", String::new()).await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.json()["error"]["code"].clone()),
        (404, json!("not_found"))
    );
    let wrong = ask(&gateway, "GET", "/v1/completions", String::new()).await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.json()["error"]["code"].clone()),
        (405, json!("method_not_allowed"))
    );
    assert_eq!(wrong.headers["allow"], "POST");
}

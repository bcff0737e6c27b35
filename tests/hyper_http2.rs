//! hyper-util's client over HTTP/2 in plaintext, as on loopback.

#[path = "support/behaviours.rs"]
mod behaviours;
#[path = "support/server.rs"]
mod server;
mod support;

use server::Stack;

#[tokio::test]
async fn a_fresh_token_is_sent_at_once() {
    behaviours::fresh(Stack::Http2).await;
}

#[tokio::test]
async fn an_expired_token_is_replaced_before_it_is_sent() {
    behaviours::expired(Stack::Http2).await;
}

#[tokio::test]
async fn a_refused_token_is_replaced_and_the_request_sent_again() {
    behaviours::rejected(Stack::Http2).await;
}

#[tokio::test]
async fn a_second_refusal_is_the_callers() {
    behaviours::rejected_twice(Stack::Http2).await;
}

#[tokio::test]
async fn with_the_endpoint_down_the_callers_get_the_401_or_the_reason() {
    behaviours::refresh_down(Stack::Http2).await;
}

#[tokio::test]
async fn a_half_read_stream_is_sent_again_whole_and_its_first_sending_ends_in_an_error() {
    behaviours::streaming_replay(Stack::Http2).await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_sent_once_and_the_next_request_heals() {
    behaviours::over_the_limit(Stack::Http2).await;
}

#[tokio::test]
async fn a_cancelled_caller_loses_neither_flight_nor_permit() {
    behaviours::caller_cancelled(Stack::Http2).await;
}

#[tokio::test]
async fn two_hundred_refused_at_once_cost_one_fetch() {
    behaviours::rejected_together(Stack::Http2).await;
}

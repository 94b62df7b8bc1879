//! A streaming HTTP service: POST a prompt, receive its continuation as server-sent events.
//!
//!     cargo run -- ARTIFACT
//!     curl -N localhost:8080/v1/completions -H 'content-type: application/json' -d '{"prompt": "In the beginning"}'
//!
//! ARTIFACT is a folder written by `jetmoe-export CHECKPOINT --output ARTIFACT`.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::{Json, State};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Router, http::StatusCode, routing::post};
use jetmoe_rt::{
    CancellationToken, Error, ErrorKind, GenerationOptions, Generator, LoadOptions, Model, Request,
};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};

#[derive(serde::Deserialize)]
struct Body {
    prompt: String,
    max_tokens: Option<usize>,
}

struct Service {
    generator: Generator,
    /// One generation at a time: a step uses all cores. The others wait in the order in which they came.
    turns: Arc<Semaphore>,
}

/// An error as a response.
struct Failure(Error);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let kind = self.0.kind();
        let message = match kind {
            ErrorKind::InvalidInput | ErrorKind::TooLong => self.0.to_string(),
            _ => kind.to_string(), // the rest is for a log, not for the client
        };
        let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({ "error": { "type": kind.to_string(), "message": message } }))).into_response()
    }
}

async fn complete(
    State(service): State<Arc<Service>>,
    Json(body): Json<Body>,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, Failure> {
    let token = CancellationToken::new();
    let guard = token.drop_guard(); // cancels when the response is dropped: it is complete, or the client left
    let mut options = GenerationOptions::for_model(service.generator.model());
    options.max_new_tokens = body.max_tokens.unwrap_or(options.max_new_tokens);
    let request = Request::new(body.prompt).with_options(options).with_cancellation(&token);
    service.generator.check(&request).map_err(Failure)?; // refused at once, not after its turn has come

    let turn = Arc::clone(&service.turns).acquire_owned().await;
    let (sender, receiver) = mpsc::channel(16);
    spawn_blocking(move || {
        let _until_the_generation_ends = turn;
        let result = service.generator.for_each(request, |event| {
            let reason = event.finish_reason.map(|reason| reason.to_string());
            // a full channel waits for the client, a closed one ends the generation
            match sender.blocking_send(json!({ "text": event.text, "finish_reason": reason })) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        match result {
            Ok(answers) => println!("{} tokens, {}", answers[0].token_ids.len(), answers[0].finish_reason),
            Err(error) => drop(sender.blocking_send(json!({ "error": error.kind().to_string() }))),
        }
    });
    Ok(Sse::new(ReceiverStream::new(receiver).map(move |data| {
        let _owned = &guard;
        Event::default().json_data(data)
    })))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let artifact = arguments.next().ok_or("usage: axum-service ARTIFACT [ADDRESS]")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    // reads all weights once: others than those of the export are refused
    let options = LoadOptions::default().with_verify_digests(true);
    let generator = Generator::new(&Model::load(artifact, &options)?)?;
    let service = Arc::new(Service { generator, turns: Arc::new(Semaphore::new(1)) });
    let router = Router::new().route("/v1/completions", post(complete)).with_state(service);
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

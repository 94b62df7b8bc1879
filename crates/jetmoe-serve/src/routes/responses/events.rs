//! The events of a response as it grows.

use jetmoe_rt::{FinishReason, TokenEvent};
use serde::Serialize;
use utoipa::ToSchema;

use super::input::MessageStatus;
use super::response::{
    Head, IncompleteDetails, OutputMessage, OutputText, ResponseLogprob, ResponseObject, ResponseStatus,
};
use crate::error::{ApiError, ApiResult};
use crate::generation::{Delta, TokenTexts, Usage};

/// An event of a response. `sequence_number` counts them from 0.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type")]
pub(super) enum ResponseEvent {
    /// The first event.
    #[serde(rename = "response.created")]
    Created { sequence_number: u64, response: Box<ResponseObject> },
    /// It is computed.
    #[serde(rename = "response.in_progress")]
    InProgress { sequence_number: u64, response: Box<ResponseObject> },
    /// Its message begins.
    #[serde(rename = "response.output_item.added")]
    OutputItemAdded { sequence_number: u64, output_index: usize, item: OutputMessage },
    /// The text of the message begins.
    #[serde(rename = "response.content_part.added")]
    ContentPartAdded {
        sequence_number: u64,
        item_id: String,
        output_index: usize,
        content_index: usize,
        part: OutputText,
    },
    /// The text grows.
    #[serde(rename = "response.output_text.delta")]
    OutputTextDelta {
        sequence_number: u64,
        item_id: String,
        output_index: usize,
        content_index: usize,
        delta: String,
        /// Of the tokens since the last delta; empty unless they were asked for.
        logprobs: Vec<ResponseLogprob>,
    },
    /// The text is complete.
    #[serde(rename = "response.output_text.done")]
    OutputTextDone {
        sequence_number: u64,
        item_id: String,
        output_index: usize,
        content_index: usize,
        text: String,
        /// Of all tokens.
        logprobs: Vec<ResponseLogprob>,
    },
    /// The part of the message is complete.
    #[serde(rename = "response.content_part.done")]
    ContentPartDone {
        sequence_number: u64,
        item_id: String,
        output_index: usize,
        content_index: usize,
        part: OutputText,
    },
    /// The message is complete.
    #[serde(rename = "response.output_item.done")]
    OutputItemDone { sequence_number: u64, output_index: usize, item: OutputMessage },
    /// The model ended its answer.
    #[serde(rename = "response.completed")]
    Completed { sequence_number: u64, response: Box<ResponseObject> },
    /// A limit ended the answer.
    #[serde(rename = "response.incomplete")]
    Incomplete { sequence_number: u64, response: Box<ResponseObject> },
    /// An error ended the answer.
    #[serde(rename = "response.failed")]
    Failed { sequence_number: u64, response: Box<ResponseObject> },
}

impl ResponseEvent {
    /// Its type.
    pub(super) fn name(&self) -> &'static str {
        match self {
            ResponseEvent::Created { .. } => "response.created",
            ResponseEvent::InProgress { .. } => "response.in_progress",
            ResponseEvent::OutputItemAdded { .. } => "response.output_item.added",
            ResponseEvent::ContentPartAdded { .. } => "response.content_part.added",
            ResponseEvent::OutputTextDelta { .. } => "response.output_text.delta",
            ResponseEvent::OutputTextDone { .. } => "response.output_text.done",
            ResponseEvent::ContentPartDone { .. } => "response.content_part.done",
            ResponseEvent::OutputItemDone { .. } => "response.output_item.done",
            ResponseEvent::Completed { .. } => "response.completed",
            ResponseEvent::Incomplete { .. } => "response.incomplete",
            ResponseEvent::Failed { .. } => "response.failed",
        }
    }
}

/// The only item of a response, and its only part.
const INDEX: usize = 0;

/// A response as it grows.
#[derive(Debug)]
pub(super) struct Answer {
    head: Head,
    text: String,
    logprobs: Vec<ResponseLogprob>,
    /// How many of them deltas had.
    sent_logprobs: usize,
    finish: Option<FinishReason>,
    next_event: u64,
}

impl Answer {
    pub(super) fn new(head: Head) -> Self {
        Answer {
            head,
            text: String::new(),
            logprobs: Vec::new(),
            sent_logprobs: 0,
            finish: None,
            next_event: 0,
        }
    }

    /// Takes a delta; returns its text.
    pub(super) fn take(&mut self, texts: &TokenTexts, delta: Delta) -> String {
        let Delta { text, token, finish, .. } = delta;
        if let Some(TokenEvent { token_id, log_probabilities: Some(found), .. }) = token {
            self.logprobs.push(ResponseLogprob::new(texts, token_id, &found));
        }
        self.text.push_str(&text);
        self.finish = finish.or(self.finish);
        text
    }

    /// The events before the first delta.
    pub(super) fn begin(&mut self) -> Vec<ResponseEvent> {
        let response = Box::new(self.head.in_progress());
        let item = self.head.message(MessageStatus::InProgress, None);
        vec![
            ResponseEvent::Created { sequence_number: self.number(), response: response.clone() },
            ResponseEvent::InProgress { sequence_number: self.number(), response },
            ResponseEvent::OutputItemAdded { sequence_number: self.number(), output_index: INDEX, item },
            ResponseEvent::ContentPartAdded {
                sequence_number: self.number(),
                item_id: self.item_id(),
                output_index: INDEX,
                content_index: INDEX,
                part: OutputText::new(String::new(), Vec::new()),
            },
        ]
    }

    /// The event of a delta; `None` if its text may still change.
    pub(super) fn add(&mut self, texts: &TokenTexts, delta: Delta) -> Option<ResponseEvent> {
        let delta = self.take(texts, delta);
        if delta.is_empty() {
            return None;
        }
        let logprobs = self.logprobs[self.sent_logprobs..].to_vec();
        self.sent_logprobs = self.logprobs.len();
        Some(ResponseEvent::OutputTextDelta {
            sequence_number: self.number(),
            item_id: self.item_id(),
            output_index: INDEX,
            content_index: INDEX,
            delta,
            logprobs,
        })
    }

    /// The events after the last delta.
    ///
    /// # Errors
    /// Status 500 for an answer that ended without a result.
    pub(super) fn end(&mut self, usage: Usage) -> ApiResult<Vec<ResponseEvent>> {
        let response = Box::new(self.response(usage)?);
        let part = OutputText::new(self.text.clone(), self.logprobs.clone());
        let item = self.head.message(self.message_status(), Some(part.clone()));
        let mut events = vec![
            ResponseEvent::OutputTextDone {
                sequence_number: self.number(),
                item_id: self.item_id(),
                output_index: INDEX,
                content_index: INDEX,
                text: self.text.clone(),
                logprobs: self.logprobs.clone(),
            },
            ResponseEvent::ContentPartDone {
                sequence_number: self.number(),
                item_id: self.item_id(),
                output_index: INDEX,
                content_index: INDEX,
                part,
            },
            ResponseEvent::OutputItemDone { sequence_number: self.number(), output_index: INDEX, item },
        ];
        let sequence_number = self.number();
        events.push(match response.status {
            ResponseStatus::Incomplete => ResponseEvent::Incomplete { sequence_number, response },
            _ => ResponseEvent::Completed { sequence_number, response },
        });
        Ok(events)
    }

    /// The event after an error.
    pub(super) fn fail(&mut self, error: &ApiError, usage: Usage) -> ResponseEvent {
        let text = OutputText::new(self.text.clone(), self.logprobs.clone());
        let message = self.head.message(MessageStatus::Incomplete, Some(text));
        let response = Box::new(self.head.failed(Some(message), error, usage));
        ResponseEvent::Failed { sequence_number: self.number(), response }
    }

    /// The whole response, after the last delta.
    ///
    /// # Errors
    /// Status 500 for an answer that ended without a result.
    pub(super) fn response(&self, usage: Usage) -> ApiResult<ResponseObject> {
        let incomplete = self.incomplete()?;
        let text = OutputText::new(self.text.clone(), self.logprobs.clone());
        let message = self.head.message(self.message_status(), Some(text));
        Ok(self.head.complete(message, incomplete, usage))
    }

    fn incomplete(&self) -> ApiResult<Option<IncompleteDetails>> {
        match self.finish {
            Some(FinishReason::Eos | FinishReason::StopString) => Ok(None),
            Some(FinishReason::Length | FinishReason::ContextFull) => {
                Ok(Some(IncompleteDetails { reason: "max_output_tokens" }))
            }
            Some(FinishReason::Deadline) => Ok(Some(IncompleteDetails { reason: "deadline" })),
            reason => {
                tracing::error!(?reason, "a response ended without a result");
                Err(ApiError::internal())
            }
        }
    }

    fn message_status(&self) -> MessageStatus {
        match self.finish {
            Some(FinishReason::Eos | FinishReason::StopString) => MessageStatus::Completed,
            _ => MessageStatus::Incomplete,
        }
    }

    fn item_id(&self) -> String {
        self.head.message_id().to_owned()
    }

    fn number(&mut self) -> u64 {
        let number = self.next_event;
        self.next_event += 1;
        number
    }
}

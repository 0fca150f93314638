//! Requests' bodies of lines, read as they come.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use crate::GatewayConfig;
use crate::problem::Problem;

/// The lines of a body. It holds what came last, and a line.
pub(crate) struct BodyLines<B> {
    body: Pin<Box<B>>,
    /// What has come and was not looked at.
    rest: Bytes,
    /// The beginning of a line, if its end is not here.
    begun: Vec<u8>,
    /// How many there have been, with empty ones.
    number: u64,
    has_ended: bool,
    line_bytes_max: usize,
    idle: Duration,
}

impl<B> BodyLines<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    pub(crate) fn new(body: B, config: &GatewayConfig) -> BodyLines<B> {
        BodyLines {
            body: Box::pin(body),
            rest: Bytes::new(),
            begun: Vec::new(),
            number: 0,
            has_ended: false,
            line_bytes_max: config.body_bytes_max,
            idle: config.stream_idle,
        }
    }

    /// The number of the last line, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next line that is not empty; none at the end of the body.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            // Somebody may send lines for ever: others have their turns.
            consume_budget().await;
            match self.cut()? {
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(line) => return Ok(Some(line)),
                None if self.has_ended => return Ok(None),
                None => self.read().await?,
            }
        }
    }

    /// Takes a line off what has come.
    fn cut(&mut self) -> Result<Option<Bytes>, Problem> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let part = self.rest.split_to(end.unwrap_or(self.rest.len()));
        if self.begun.len() + part.len() > self.line_bytes_max {
            return Err(self.too_long());
        }
        if end.is_some() {
            self.rest.advance(1);
        }
        let has_line = end.is_some() || (self.has_ended && !self.begun.is_empty());
        self.number += u64::from(has_line);
        if has_line && self.begun.is_empty() {
            return Ok(Some(part));
        }
        self.begun.extend_from_slice(&part);
        Ok(has_line.then(|| std::mem::take(&mut self.begun).into()))
    }

    /// Waits for more.
    async fn read(&mut self) -> Result<(), Problem> {
        match timeout(self.idle, self.body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(mut data) = frame.into_data() {
                    self.rest = data.copy_to_bytes(data.remaining());
                }
                Ok(())
            }
            Ok(None) => {
                self.has_ended = true;
                Ok(())
            }
            Ok(Some(Err(error))) => {
                let message = format!("the body did not come whole: {}", error.into());
                Err(Problem::bad_request("bad_body", message))
            }
            Err(_) => {
                let message = "nothing of the body came for `GatewayConfig::stream_idle`: an empty line says that there will be more";
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
            }
        }
    }

    fn too_long(&self) -> Problem {
        let (number, most) = (self.number + 1, self.line_bytes_max);
        let message = format!(
            "line {number} of the body is longer than the {most} bytes that are taken (`GatewayConfig::body_bytes_max`)"
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message).line(number)
    }
}

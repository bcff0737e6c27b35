//! A body on its way in: compared with what it has to be, byte by byte, and so is its end.

use crate::{content, report::SERVER, world::World};
use bytes::{Buf, BytesMut};
use http::Version;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use std::sync::Arc;

/// As `tests/echo/echo.proto` has it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Word {
    #[prost(string, tag = "1")]
    pub text: String,
}

impl Word {
    /// With gRPC's five bytes before it.
    pub fn framed(text: String) -> Vec<u8> {
        let word = Self { text };
        let mut framed = vec![0];
        framed.extend(u32::try_from(word.encoded_len()).expect("a short word").to_be_bytes());
        word.encode(&mut framed).expect("a vector grows");
        framed
    }
}

pub struct Reading {
    world: Arc<World>,
    id: u64,
    /// Which send of it, over what.
    send: usize,
    version: Version,
    length: u64,
    at: u64,
    body: Incoming,
    /// What is left of an unfinished word, if it is gRPC.
    grpc: Option<BytesMut>,
    /// What it ended with: asked again, a broken body says that it is over.
    end: Option<Read>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The words that are whole now, if it is gRPC.
    Some(Vec<String>),
    End,
    /// With an error: nobody takes it for the whole.
    Broken,
}

impl Reading {
    pub fn new(
        world: Arc<World>,
        call: (u64, usize),
        version: Version,
        length: u64,
        body: Incoming,
        grpc: bool,
    ) -> Self {
        let (id, send) = call;
        Self { world, id, send, version, length, at: 0, body, grpc: grpc.then(BytesMut::new), end: None }
    }

    pub async fn next(&mut self) -> Read {
        if self.end.is_none() {
            let read = self.frame().await;
            if matches!(read, Read::Some(_)) {
                return read;
            }
            self.end = Some(read);
        }
        self.end.clone().expect("it is over")
    }

    async fn frame(&mut self) -> Read {
        let data = match self.body.frame().await {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(_)) => {
                self.world.report.count(SERVER, "bodies that ended with an error");
                return Read::Broken;
            }
            None => {
                self.ends();
                return Read::End;
            }
        };
        if self.grpc.is_none() {
            self.compare(&data);
            return Read::Some(Vec::new());
        }
        let mut words = Vec::new();
        self.grpc.get_or_insert_default().extend_from_slice(&data);
        while let Some(word) = self.word() {
            self.compare(word.as_bytes());
            words.push(word);
        }
        Read::Some(words)
    }

    /// To the end. True: it was whole.
    pub async fn rest(&mut self) -> bool {
        loop {
            match self.next().await {
                Read::Some(_) => {}
                Read::End => return true,
                Read::Broken => return false,
            }
        }
    }

    fn word(&mut self) -> Option<String> {
        let left = self.grpc.as_mut()?;
        let length = u32::from_be_bytes(left.get(1..5)?.try_into().ok()?) as usize;
        if left.len() < 5 + length {
            return None;
        }
        left.advance(5);
        match Word::decode(left.split_to(length)) {
            Ok(word) => Some(word.text),
            Err(error) => {
                self.world.breaks("bodies are equal byte for byte", error);
                None
            }
        }
    }

    fn compare(&mut self, data: &[u8]) {
        if !content::matches(self.id, self.at, data) {
            self.world.breaks("bodies are equal byte for byte", format!("{} differs after {}", self.id, self.at));
        }
        self.at += data.len() as u64;
    }

    fn ends(&mut self) {
        self.world.report.count(SERVER, "bodies that ended whole");
        if self.at != self.length || self.grpc.as_ref().is_some_and(|left| !left.is_empty()) {
            let entry = self.world.ledger.entry(self.id, |entry| entry.clone());
            let fate = entry.connections.map(|connection| self.world.fate(connection));
            let what = format!(
                "{} ended at {} of {}, send {} over {:?}, {entry:?} {fate:?}",
                self.id,
                self.at,
                self.length,
                self.send + 1,
                self.version
            );
            self.world.breaks("a truncated body never ends cleanly", what);
        }
    }
}

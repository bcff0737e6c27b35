//! The generated client's calls: one word for one, a stream for one, a stream for a stream.

use crate::{
    content::{self, Slow},
    echo::{Word, echo_client::EchoClient},
    handler::{ID, LENGTH, SEND},
    stacks::{Answer, Call, Path},
    wire::Wire,
    world::World,
};
use fastrand::Rng;
use futures_util::StreamExt;
use tonic::{Code, Request, Status, metadata::MetadataMap, transport::Channel};
use tower_jwt_refresh::JwtRefresh;

pub async fn speak(
    mut client: EchoClient<JwtRefresh<Wire<Channel>>>,
    world: &World,
    call: &Call,
    rng: &mut Rng,
) -> Result<Answer, Status> {
    let (id, length) = (call.id, call.length);
    if call.path == Path::Say {
        let word = Word { text: content::text(id, 0, length) };
        let answer = client.say(with_head(word, call)).await?;
        return Ok(one(world, call, &answer));
    }
    let words = Slow::new(id, length, rng).into_words().map(|text| Word { text });
    if call.path == Path::Gather {
        let answer = client.gather(with_head(words, call)).await?;
        return Ok(one(world, call, &answer));
    }
    let answer = client.talk(with_head(words, call)).await?;
    let send = send(answer.metadata());
    let (mut words, mut at) = (answer.into_inner(), 0);
    loop {
        match words.message().await {
            Ok(Some(word)) => {
                if !content::matches(id, at, word.text.as_bytes()) {
                    world.breaks("each answer is that of its request", format!("{id} was told otherwise after {at}"));
                }
                at += word.text.len() as u64;
            }
            Ok(None) if at == length => return Ok(Answer::Done(send)),
            Ok(None) => {
                world.breaks("each answer is that of its request", format!("{id} was told {at} of {length} bytes"));
                return Ok(Answer::Done(send));
            }
            Err(status) if status.code() == Code::Unauthenticated => return Ok(Answer::RefusedLate),
            Err(status) => return Err(status),
        }
    }
}

fn with_head<T>(message: T, call: &Call) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(ID, call.id.into());
    request.metadata_mut().insert(LENGTH, call.length.into());
    request
}

fn one(world: &World, call: &Call, answer: &tonic::Response<Word>) -> Answer {
    if answer.get_ref().text != call.id.to_string() {
        world.breaks("each answer is that of its request", format!("{} got that of another", call.id));
    }
    Answer::Done(send(answer.metadata()))
}

fn send(head: &MetadataMap) -> usize {
    head.get(SEND).and_then(|send| send.to_str().ok()?.parse().ok()).unwrap_or_default()
}

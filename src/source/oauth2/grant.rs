//! What is shown to the token endpoint for a token.

use super::{
    error::{Deadline, OAuth2Error},
    rotation::{Rotation, Turn},
};
use crate::{BoxError, SourceError, Token, TokenRequest, source::answer};
use std::sync::Arc;
use tokio::sync::Mutex;
use tower::{Service, ServiceExt, util::BoxService};

/// What JWTs are called (RFC 8693 section 3).
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// What a fetch waits for that has no turn.
const ANOTHER: &str = "another fetch with the same refresh token";

pub(super) enum Grant {
    /// RFC 6749 section 4.4.
    ClientCredentials,
    /// RFC 6749 section 6.
    RefreshToken(Rotation),
    /// RFC 7523 section 2.1.
    JwtBearer(Presented),
    /// RFC 8693 section 2.1.
    TokenExchange { subject: Typed, actor: Option<Typed>, requested: Option<String> },
}

/// A token and what it is called.
pub(super) struct Typed {
    pub(super) token: Presented,
    pub(super) kind: String,
}

/// A source of what is shown, asked anew for each fetch.
pub(super) struct Presented {
    what: &'static str,
    /// Held while the source gets ready and is called, not while it answers.
    source: Mutex<BoxService<TokenRequest, Token, BoxError>>,
}

/// What one fetch shows.
pub(super) enum Shown<'a> {
    Nothing,
    RefreshToken(Arc<Turn>),
    Assertion(Token),
    Tokens { subject: (Token, &'a str), actor: Option<(Token, &'a str)>, requested: Option<&'a str> },
}

impl Grant {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::RefreshToken(_) => "refresh_token",
            Self::JwtBearer(_) => "jwt_bearer",
            Self::TokenExchange { .. } => "token_exchange",
        }
    }

    pub(super) async fn show(&self, request: &TokenRequest, deadline: Deadline) -> Result<Shown<'_>, BoxError> {
        Ok(match self {
            Self::ClientCredentials => Shown::Nothing,
            Self::RefreshToken(rotation) => {
                let early = deadline.before_it_is_shown();
                let turn = early.bound(ANOTHER, rotation.turn(deadline.limit)).await?;
                early.bound("the callback of `on_rotation`", turn.save_first(deadline.limit)).await?;
                Shown::RefreshToken(match &request.shared {
                    Some(kept) => turn.sharing(kept)?,
                    None => turn,
                })
            }
            Self::JwtBearer(assertion) => Shown::Assertion(assertion.get(request, deadline).await?),
            Self::TokenExchange { subject, actor, requested } => Shown::Tokens {
                subject: (subject.token.get(request, deadline).await?, &subject.kind),
                actor: match actor {
                    Some(actor) => Some((actor.token.get(request, deadline).await?, &actor.kind)),
                    None => None,
                },
                requested: requested.as_deref(),
            },
        })
    }
}

impl Presented {
    pub(super) fn new<S>(what: &'static str, source: S) -> Self
    where
        S: Service<TokenRequest, Response = Token> + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        Self { what, source: Mutex::new(BoxService::new(source.map_err(Into::into))) }
    }

    /// It is not told of the access token, nor of the API's challenge: both are nothing to it.
    async fn get(&self, request: &TokenRequest, deadline: Deadline) -> Result<Token, BoxError> {
        let request = TokenRequest::new(request.reason, None, None);
        let got = async {
            let answer = self.source.lock().await.ready().await?.call(request);
            answer.await
        };
        // Not made transient or permanent here: the error's own chain says it.
        let got = deadline.bound(self.what, got).await?;
        got.map_err(|error| OAuth2Error::Presented { what: self.what, error }.into())
    }
}

impl Shown<'_> {
    /// Asked right before it is shown.
    pub(super) fn may_be_shown(&self, deadline: Deadline, request: &TokenRequest) -> Result<(), SourceError> {
        match self {
            Self::RefreshToken(_) if !request.may_spend_refresh_token() => {
                Err(SourceError::transient(OAuth2Error::NotShown))
            }
            Self::RefreshToken(turn) if !turn.is_mine() => Err(deadline.late(ANOTHER)),
            Self::RefreshToken(_) if deadline.before_it_is_shown().is_over() => {
                Err(deadline.before_it_is_shown().late("what comes before the refresh token is shown"))
            }
            _ => Ok(()),
        }
    }

    /// As parameters, `grant_type` first.
    pub(super) fn pairs(&self) -> Vec<(&str, &str)> {
        match self {
            Self::Nothing => vec![("grant_type", "client_credentials")],
            Self::RefreshToken(turn) => vec![("grant_type", "refresh_token"), ("refresh_token", turn.token())],
            Self::Assertion(assertion) => vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                ("assertion", assertion.expose_secret()),
            ],
            Self::Tokens { subject: (subject, kind), actor, requested } => {
                let mut pairs = vec![
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                    ("subject_token", subject.expose_secret()),
                    ("subject_token_type", *kind),
                ];
                if let Some((actor, kind)) = actor {
                    pairs.extend([("actor_token", actor.expose_secret()), ("actor_token_type", *kind)]);
                }
                pairs.extend(requested.map(|requested| ("requested_token_type", requested)));
                pairs
            }
        }
    }

    /// Whatever else is wrong with the answer: the server may have withdrawn the refresh token that was shown. A store around the source hears of it before
    /// anybody waits.
    pub(super) async fn keep(self, answer: &[u8], request: &TokenRequest) {
        if let Self::RefreshToken(turn) = self {
            let successor = answer::refresh_token(answer);
            request.keep_refresh_token(successor.as_ref().map_or(turn.token(), |successor| successor.as_str()));
            turn.keep(successor).await;
        }
    }

    /// What to show once this is refused as a grant.
    pub(super) fn second(&self) -> Option<Self> {
        match self {
            Self::RefreshToken(turn) => turn.refused().map(Self::RefreshToken),
            _ => None,
        }
    }
}

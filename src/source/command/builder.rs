//! Settings of a command, checked when it is built.

use super::{Inner, TokenCommand, output::Form};
use crate::{
    ConfigError,
    source::{answer, turns::Turns},
};
use std::{ffi::OsString, fmt, sync::Arc, time::Duration};
use zeroize::Zeroizing;

/// As Kubernetes' clients tell it to their plugins, none of whom has anybody to talk to.
const EXEC_INFO: (&str, &str) = (
    "KUBERNETES_EXEC_INFO",
    r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false}}"#,
);

/// Settings of a [`TokenCommand`].
///
/// What was set wrong is told by [`build`](Self::build), the first mistake first.
#[must_use = "a builder does nothing until it builds"]
pub struct TokenCommandBuilder {
    inner: Inner,
    mistake: Option<ConfigError>,
}

impl TokenCommandBuilder {
    pub(super) fn new(program: OsString) -> Self {
        let name = program.to_string_lossy().escape_debug().to_string().into();
        let inner = Inner {
            name,
            program,
            args: Vec::new(),
            env: Vec::new(),
            timeout: Duration::from_secs(20),
            form: Form::default(),
            refresh_after: None,
            permanent: Vec::new(),
            turns: Turns::default(),
        };
        let builder = Self { inner, mistake: None };
        if builder.inner.program.is_empty() {
            return builder.illegal("has no program: name one, such as `gcloud`");
        }
        let program = builder.inner.program.clone();
        builder.checked(&program)
    }

    /// One more argument. No shell reads it, so nothing in it needs quoting. Every user of the machine can see it: a secret goes into
    /// [`env`](Self::env), or into a file that the program reads.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        let arg = arg.into();
        self = self.checked(&arg);
        self.inner.args.push(arg);
        self
    }

    /// More arguments, after those that were set.
    pub fn args<A: Into<OsString>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// One more environment variable, beside those of this process. The value is kept in memory that is wiped, is never printed, and is cut out of what
    /// the program writes to its stderr, if it is long or its name is that of a secret.
    ///
    /// Two copies are not wiped: the one that [`std::process::Command`] makes in this process, anew for each run and until the program has started, and the
    /// one that the system makes for the program. Where that is too much, have the program read the secret from a file.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), Zeroizing::new(value.into()));
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            self = self.illegal("has an environment variable without a name, or with `=` in its name, or with a NUL");
        }
        self.inner.env.push((name, value));
        self
    }

    /// A program that has not ended by then has failed and is killed. Default 20 s: below the provider's
    /// [`fetch_timeout`](crate::TokenProviderBuilder::fetch_timeout) of 30 s, so that the error names the program.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.inner.timeout = timeout;
        self.limited("timeout", timeout, "every run would fail at once")
    }

    /// Where the token is in the JSON that the program prints, as a JSON pointer (RFC 6901): `/data/token`. The lifetime is then looked for beside
    /// the token first, then at the top.
    pub fn token_at(mut self, pointer: impl Into<String>) -> Self {
        let pointer = pointer.into();
        self = self.pointer(&pointer);
        self.inner.form.token_at = Some(pointer);
        self
    }

    /// Where the JSON says how many seconds the token lives, as a JSON pointer. With this or [`expiry_at`](Self::expiry_at) nothing else is looked
    /// at, but the `exp` of a JWT.
    pub fn lifetime_at(mut self, pointer: impl Into<String>) -> Self {
        let pointer = pointer.into();
        self = self.pointer(&pointer);
        self.inner.form.ends.lifetime = Some(pointer);
        self
    }

    /// Where the JSON says when the token ends, as a JSON pointer: seconds or milliseconds since 1970, or RFC 3339.
    pub fn expiry_at(mut self, pointer: impl Into<String>) -> Self {
        let pointer = pointer.into();
        self = self.pointer(&pointer);
        self.inner.form.ends.expiry = Some(pointer);
        self
    }

    /// Runs the program as Kubernetes' clients run their plugins: it is told `client.authentication.k8s.io/v1` in `KUBERNETES_EXEC_INFO`, and must print an
    /// `ExecCredential`. One that prints it anyway is understood without this.
    pub fn exec_credential(mut self) -> Self {
        self.inner.form.exec_credential = true;
        self.env(EXEC_INFO.0, EXEC_INFO.1)
    }

    /// Runs the program again this long after it brought a token, though the token does not say that it ends: for one whose lifetime is known, but not
    /// from what is printed. Default: when a server rejects the token. Zero is refused by [`build`](Self::build), while
    /// [`TokenFile`](crate::source::TokenFile::refresh_after) makes a second of it: that one has no `build`, and to run a program costs more than to look at a file.
    pub fn refresh_after(mut self, span: Duration) -> Self {
        self.inner.refresh_after = Some(span);
        self.limited("refresh_after", span, "the program would be run without pause")
    }

    /// Exit codes by which the program says that somebody must act, log in perhaps, so that it is run again seldom:
    /// [`SourceError::permanent`](crate::SourceError::permanent). Default: none, since most programs end with 1 whatever went wrong.
    pub fn permanent_exit_codes(mut self, codes: impl IntoIterator<Item = i32>) -> Self {
        self.inner.permanent.extend(codes);
        if self.inner.permanent.contains(&0) {
            self = self.illegal("has 0 among its `permanent_exit_codes`, with which it ends when it brought a token");
        }
        self
    }

    /// Builds it. Needs no runtime, and does not look for the program.
    ///
    /// # Errors
    /// [`ConfigError`] for what no program can be run with, and other settings that cannot work.
    pub fn build(self) -> Result<TokenCommand, ConfigError> {
        match self.mistake {
            Some(mistake) => Err(mistake),
            None => Ok(TokenCommand(Arc::new(self.inner))),
        }
    }

    fn checked(self, text: &OsString) -> Self {
        if text.as_encoded_bytes().contains(&0) {
            return self.illegal("has a NUL in its name or in an argument, which no system can pass on");
        }
        self
    }

    fn pointer(self, pointer: &str) -> Self {
        if answer::is_pointer(pointer) { self } else { self.wrong(ConfigError::NotAPointer(pointer.to_owned())) }
    }

    fn limited(self, setting: &'static str, value: Duration, consequence: &'static str) -> Self {
        let checked = ConfigError::if_zero(setting, value, consequence);
        match checked.and_then(|()| ConfigError::if_too_long(setting, value)) {
            Ok(()) => self,
            Err(mistake) => self.wrong(mistake),
        }
    }

    fn illegal(self, problem: &'static str) -> Self {
        self.wrong(ConfigError::IllegalCommand { problem })
    }

    fn wrong(mut self, mistake: ConfigError) -> Self {
        self.mistake.get_or_insert(mistake);
        self
    }
}

impl fmt::Debug for TokenCommandBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCommandBuilder")
            .field("program", &self.inner.name)
            .field("timeout", &self.inner.timeout)
            .field("mistake", &self.mistake)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> TokenCommandBuilder {
        TokenCommand::program("cloud")
    }

    fn mistake(builder: TokenCommandBuilder) -> ConfigError {
        let debug = format!("{builder:?}");
        let mistake = builder.build().unwrap_err();
        assert!(!format!("{debug} {mistake} {mistake:?}").contains("s3cr3t"), "{mistake:?}");
        mistake
    }

    #[test]
    fn what_no_program_can_be_run_with_is_refused_and_not_quoted() {
        for bad in [
            TokenCommand::program(""),
            TokenCommand::program("cloud\0"),
            command().arg("s3cr3t\0"),
            command().args(["x", "\0s3cr3t"]),
            command().env("", "s3cr3t"),
            command().env("A=s3cr3t", "x"),
            command().env("A", "s3cr3t\0"),
            command().permanent_exit_codes([77, 0]),
        ] {
            assert!(matches!(mistake(bad), ConfigError::IllegalCommand { .. }));
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_the_first_first() {
        let zero = mistake(command().timeout(Duration::ZERO).token_at("x"));
        assert!(zero.to_string().starts_with("timeout must be above zero"), "{zero}");
        let pause = mistake(command().refresh_after(Duration::ZERO));
        assert!(pause.to_string().starts_with("refresh_after must be above zero"), "{pause}");
        assert!(matches!(mistake(command().timeout(Duration::MAX)), ConfigError::TooLong { setting: "timeout", .. }));
        for builder in [command().token_at("a/b"), command().expiry_at("a/b"), command().lifetime_at("a/b")] {
            assert_eq!(mistake(builder), ConfigError::NotAPointer("a/b".into()));
        }
    }

    #[test]
    fn nothing_printed_holds_an_argument_or_a_variable() {
        let builder = command().arg("s3cr3t").env("KEY", "s3cr3t");
        let first = format!("{builder:?}");
        let text = format!("{first} {:?}", builder.build().unwrap());
        assert!(text.contains("cloud") && !text.contains("s3cr3t"), "{text}");
    }
}

//! Being written.
/// Being written.
#[derive(Debug)]
pub struct Exchange;
/// Being written.
#[derive(Debug)]
pub struct ExchangeError;

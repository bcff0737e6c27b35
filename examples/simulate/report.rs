//! What was explored, and what was found.

use crate::{
    oracle::{Kind, RequestEnd, held::Landed},
    plan::Fault,
};
use std::{collections::BTreeMap, fmt, time::Duration};
use tower_jwt_refresh::source::Reason;

/// Of one run, or the sum of many.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub time: Duration,
    pub calls: u64,
    pub sends: u64,
    pub cancelled: u64,
    pub no_token: u64,
    pub broken: u64,
    pub failed: u64,
    pub lost: u64,
    pub rejected_in_an_hour: usize,
    pub failed_in_an_hour: usize,
    fetches: BTreeMap<&'static str, u64>,
    landed: BTreeMap<&'static str, u64>,
    refusals: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
    kinds: BTreeMap<&'static str, u64>,
}

impl Report {
    pub fn fetched(&mut self, reason: Reason) {
        let reason = match reason {
            Reason::Initial => "initial",
            Reason::Scheduled => "scheduled",
            Reason::Expiring => "expiring",
            Reason::Rejected => "rejected",
            Reason::Forced => "forced",
            _ => "other",
        };
        *self.fetches.entry(reason).or_default() += 1;
    }

    pub fn landed(&mut self, landed: Landed) {
        let landed = match landed {
            Landed::Stored => "stored",
            Landed::Extended => "extended",
            Landed::NoProgress => "no progress",
            Landed::Failed => "the refused token again",
        };
        *self.landed.entry(landed).or_default() += 1;
    }

    pub fn refusal(&mut self, reason: crate::oracle::Refused) {
        *self.refusals.entry(reason.as_str()).or_default() += 1;
    }

    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault.as_str()).or_default() += 1;
    }

    pub fn ended(&mut self, kind: Kind, end: &RequestEnd) {
        self.calls += 1;
        let kind = match kind {
            Kind::Send { resends: true, .. } => "request",
            Kind::Send { resends: false, .. } => "request without copy",
            Kind::Apart => "out of scope",
            Kind::Token => "token()",
            Kind::ValidFor => "token_valid_for()",
            Kind::Refresh => "refresh()",
        };
        *self.kinds.entry(kind).or_default() += 1;
        match end {
            RequestEnd::NoToken(_) => self.no_token += 1,
            RequestEnd::Cancelled => self.cancelled += 1,
            RequestEnd::Broken => self.broken += 1,
            RequestEnd::Answer { .. } | RequestEnd::Token(_) => {}
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.time += other.time;
        self.rejected_in_an_hour = self.rejected_in_an_hour.max(other.rejected_in_an_hour);
        self.failed_in_an_hour = self.failed_in_an_hour.max(other.failed_in_an_hour);
        for (sum, more) in [
            (&mut self.calls, other.calls),
            (&mut self.sends, other.sends),
            (&mut self.cancelled, other.cancelled),
            (&mut self.no_token, other.no_token),
            (&mut self.broken, other.broken),
            (&mut self.failed, other.failed),
            (&mut self.lost, other.lost),
        ] {
            *sum += more;
        }
        for (sum, more) in [
            (&mut self.fetches, &other.fetches),
            (&mut self.landed, &other.landed),
            (&mut self.refusals, &other.refusals),
            (&mut self.faults, &other.faults),
            (&mut self.kinds, &other.kinds),
        ] {
            for (name, count) in more {
                *sum.entry(name).or_default() += count;
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fetches: u64 = self.fetches.values().sum();
        let refusals: u64 = self.refusals.values().sum();
        let line = |f: &mut fmt::Formatter<'_>, name: &str, count: u64| writeln!(f, "{name:<40}{count:>14}");
        let list = |f: &mut fmt::Formatter<'_>, list: &BTreeMap<&'static str, u64>| {
            list.iter().try_for_each(|(name, count)| writeln!(f, "  {name:<38}{count:>14}"))
        };
        line(f, "days of virtual time", self.time.as_secs() / 86_400)?;
        line(f, "calls", self.calls)?;
        list(f, &self.kinds)?;
        line(f, "given up by their callers", self.cancelled)?;
        line(f, "sent with a token", self.sends)?;
        line(f, "ended without a token", self.no_token)?;
        line(f, "failed by the network", self.broken)?;
        line(f, "fetches", fetches)?;
        list(f, &self.fetches)?;
        line(f, "  that failed", self.failed)?;
        line(f, "  that were lost", self.lost)?;
        line(f, "  most in an hour, after a rejection", self.rejected_in_an_hour as u64)?;
        line(f, "  most in an hour, of failures alone", self.failed_in_an_hour as u64)?;
        line(f, "what they brought", self.landed.values().sum())?;
        list(f, &self.landed)?;
        line(f, "401s that reached a caller", refusals)?;
        list(f, &self.refusals)?;
        line(f, "faults", self.faults.values().sum())?;
        list(f, &self.faults)
    }
}

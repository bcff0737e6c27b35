//! Instructions per request, counted by valgrind. `cargo bench --bench instructions`, and `./scripts/instructions` as a gate.
//!
//! This program runs itself under callgrind, twice for each variant: the difference of two numbers of requests leaves out all that is done once.
//! The counts are exact: the same build gives the same again, on a busy machine too. Another compiler or libc gives others, so what is compared
//! with the past is the ratio to a fixed header in the same run, and what the past was built with is told.
//!
//! Not counted is what the clocks do: valgrind has no vDSO, so both reads are system calls here, whose instructions are the kernel's.

mod support;

use std::{
    env,
    error::Error,
    fmt::Write,
    fs,
    future::Future,
    pin::pin,
    process::{Command, ExitCode},
    task::{Context, Poll, Waker},
};
use support::{
    Report,
    request::{Inner, Req, fixed, fixed_and_kept, ours, ours_and_kept, provider, request},
};
use tower::Service;

const VARIANTS: [&str; 5] = ["no layer", "fixed header", "retry + fixed header", "this layer", "this layer, copy kept"];
/// What each of this layer's variants is compared with: numbers in [`VARIANTS`].
const PAIRS: [(usize, usize); 2] = [(3, 1), (4, 2)];
/// glibc copies memory by what the processor has, so the counts would be the machine's. Without these all take the same way.
const SAME_ON_ALL: &str = "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-AVX512VL,-AVX512BW,-ERMS,-FSRM";
const SOME: u32 = 1_000;
const MORE: u32 = 5_000;

/// How much higher a ratio may be than it was.
const TOLERANCE: f64 = 1.03;
/// The same where another compiler made the one that it is compared with.
const OTHER_COMPILER: f64 = 1.10;

type Counts = [f64; VARIANTS.len()];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let after = |flag: &str| arguments.iter().position(|argument| argument == flag).map(|at| &arguments[at + 1..]);
    if let Some([variant, requests, ..]) = after("--send") {
        send(variant.parse()?, requests.parse()?);
        return Ok(ExitCode::SUCCESS);
    }

    let mut counts = Counts::default();
    for (variant, count) in counts.iter_mut().enumerate() {
        *count = (collected(variant, MORE)? - collected(variant, SOME)?) / f64::from(MORE - SOME);
    }
    if let Some([file, ..]) = after("--renew") {
        fs::write(file, record(&counts)?)?;
    }
    if let Some([file, ..]) = after("--gate") {
        return gate(&counts, &fs::read_to_string(file)?);
    }

    let mut report = Report::from_args();
    for (name, count) in VARIANTS.iter().zip(counts) {
        report.say(format_args!("{name:<24} {count:>6.0}"));
    }
    let own = |variant: usize| counts[variant] - counts[0];
    let note = format!(
        "{:.0} against {:.0}; without the making of the request {:.0} against {:.0}; copy kept, to retry + fixed header: {:.2}",
        counts[3],
        counts[1],
        own(3),
        own(1),
        ratio(&counts, PAIRS[1])
    );
    report.row("instructions per request, no copy kept", "<= 1.15", ratio(&counts, PAIRS[0]), "ratio", &note);
    Ok(report.end())
}

fn ratio(counts: &Counts, (of, to): (usize, usize)) -> f64 {
    counts[of] / counts[to]
}

/// The work that is counted.
fn send(variant: usize, requests: u32) {
    let provider = provider();
    match variant {
        0 => send_through(Inner, requests),
        1 => send_through(fixed(), requests),
        2 => send_through(fixed_and_kept(), requests),
        3 => send_through(ours(&provider), requests),
        _ => send_through(ours_and_kept(&provider), requests),
    }
}

fn send_through<S: Service<Req>>(mut service: S, requests: u32) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..requests {
        assert!(service.poll_ready(&mut cx).is_ready());
        let answer = pin!(service.call(request())).poll(&mut cx);
        assert!(matches!(answer, Poll::Ready(Ok(_))));
    }
}

/// Instructions of a whole run.
fn collected(variant: usize, requests: u32) -> Result<f64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .env("GLIBC_TUNABLES", SAME_ON_ALL)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["--send", &variant.to_string(), &requests.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not start, is it installed? {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    match collected {
        Some((_, count)) if output.status.success() => Ok(count.trim().parse()?),
        _ => Err(format!("valgrind: {}\n{said}", output.status).into()),
    }
}

/// `rustc 1.88.0 (6b00bc388 2025-06-23)`, of the compiler that cargo took.
fn compiler() -> Result<String, Box<dyn Error>> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// What a later run is compared with.
fn record(counts: &Counts) -> Result<String, Box<dyn Error>> {
    let mut record = "# Instructions per request. Written by ./scripts/instructions --renew\n".to_owned();
    writeln!(record, "{}", compiler()?)?;
    for (name, count) in VARIANTS.iter().zip(counts) {
        writeln!(record, "{count:.1} {name}")?;
    }
    Ok(record)
}

fn gate(now: &Counts, record: &str) -> Result<ExitCode, Box<dyn Error>> {
    let mut lines = record.lines().skip(1);
    let then_compiler = lines.next().ok_or("an empty record")?;
    let mut then = Counts::default();
    for (count, line) in then.iter_mut().zip(lines) {
        *count = line.split(' ').next().unwrap_or_default().parse()?;
    }
    let now_compiler = compiler()?;
    let same = now_compiler == then_compiler;
    let tolerance = if same { TOLERANCE } else { OTHER_COMPILER };
    if !same {
        println!("built by {now_compiler}, recorded with {then_compiler}: up to {OTHER_COMPILER} times as many pass");
    }
    let mut passed = true;
    for pair in PAIRS {
        let [before, after] = [then, *now].map(|counts| ratio(&counts, pair));
        let verdict = if after <= before * tolerance { "passes" } else { "FAILS" };
        passed &= after <= before * tolerance;
        println!(
            "{}: {after:.3} of {}, recorded {before:.3} ({:.0} instructions, recorded {:.0}): {verdict}",
            VARIANTS[pair.0], VARIANTS[pair.1], now[pair.0], then[pair.0]
        );
    }
    if !passed {
        println!("If it must cost that much: ./scripts/instructions --renew, and say why in the commit.");
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

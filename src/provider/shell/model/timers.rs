//! Time that passes at every moment.

use super::*;

// Invariant 4: what lives is never withheld.
#[test]
fn a_caller_whose_patience_ends_beside_the_landing_gets_a_token_that_lives() {
    Model::of("patience that ends against a landing").with_time().preemptions(2).check(|| {
        let (provider, seen) = provider(Some(Duration::from_secs(30)), b);
        let passing = thread::spawn(|| time::pass(Duration::from_secs(2)));
        let got = tasks::block_on(provider.token()).unwrap();
        assert!(["a", "b"].contains(&got.expose_secret()));
        passing.join().unwrap();
        drop(provider);
        seen.end(1, &TokenStatus::Fresh);
    });
}

// The plan changes while the loop is about to sleep.
#[test]
fn a_failure_beside_the_loop_is_tried_again_when_its_wait_is_over() {
    Model::of("the loop against a failure that changes its plan").with_time().with_status().preemptions(2).check(
        || {
            let (provider, seen) = provider(Some(HOUR), |number| {
                if number == 1 {
                    return Err("down".into());
                }
                time::stop();
                b(number)
            });
            provider.handle.background.start(&provider.handle);
            let old = provider.current().unwrap();
            // The loop sleeps for most of an hour, or is about to; the failure wants it back in a second.
            assert!(tasks::block_on(provider.replace(&old)).is_err());
            time::go_on(Duration::from_secs(2));
            drop(provider);
            seen.end(2, &TokenStatus::Fresh);
        },
    );
}

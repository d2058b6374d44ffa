//! How many instructions a request takes in the gateway: all layers, before an engine that answers at once.
//!
//! ```console
//! $ make bench-instructions
//! ```
//!
//! Counted by valgrind, so it is the same on a busy machine; `benches/instructions.json` has what it was, and more
//! than 3 % over that fails with the name of the path. Sockets, hyper and the kernel are not in it.
#![allow(
    unused_qualifications,
    missing_docs,
    clippy::exit,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a set-up ends the bench"
)]

#[path = "parts/requests.rs"]
mod requests;

use std::hint::black_box;

use bpmgate::access::{AccessRules, Builtin, When};
use gungraun::{library_benchmark, library_benchmark_group, main};
use http::{StatusCode, header};
use requests::{Ask, Issued, TASKS, browser, gateway_with, get, large, small, start, take};
use tokio::runtime::Builder;

/// One more request of a kind that came before.
type Work = Box<dyn FnMut() -> StatusCode>;

/// What is made once for all requests is made by the first ones, which do not count.
fn after_others(request: impl Fn(&Issued) -> Ask, want: u16) -> Work {
    by_rules(AccessRules::new(Builtin::User), request, want)
}

fn by_rules(access: AccessRules, request: impl Fn(&Issued) -> Ask, want: u16) -> Work {
    let issued = Issued::new();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut gateway = gateway_with(&issued, access);
    let mut work = move |request: Ask| {
        let _inside = runtime.enter();
        take(&mut gateway, request).unwrap()
    };
    for _ in 0..3 {
        assert_eq!(work(request(&issued)), want);
    }
    let mut next = Some(request(&issued));
    Box::new(move || work(next.take().expect("one request")))
}

fn workflow(request: &Ask) -> Ask {
    let mut request = request.clone();
    *request.uri_mut() = "/api/processes/order/start".parse().unwrap();
    request
}

#[library_benchmark]
#[bench::get(after_others(|issued| issued.by_alice(get(TASKS)), 200))]
#[bench::get_by_one_of_200_rules(by_rules(many_rules(), |issued| issued.by_alice(get(TASKS)), 200))]
#[bench::get_from_browser(after_others(|issued| issued.by_alice(browser(get(TASKS))), 200))]
#[bench::get_through_the_workflow_api(after_others(|issued| issued.by_alice(get("/api/tasks?assignee=alice")), 200))]
#[bench::start_1kb(after_others(|issued| issued.by_alice(start(small())), 200))]
#[bench::start_256kb(after_others(|issued| issued.by_alice(start(large())), 200))]
#[bench::start_1kb_through_the_workflow_api(after_others(|issued| issued.by_alice(workflow(&start(small()))), 201))]
#[bench::no_token(after_others(|_| get(TASKS), 401))]
#[bench::denied(after_others(|issued| issued.by_alice(get("/engine-rest/user")), 403))]
#[bench::new_token(new_token())]
fn request(mut work: Work) -> Work {
    black_box(work());
    work
}

/// The last of them alone holds for Alice.
fn many_rules() -> AccessRules {
    let others = (0..199).map(|number| format!("user-{number}"));
    others
        .chain(["3f6c2c52-8a4e-4a63-9b7e-0d5f6a1c2b3d".to_owned()])
        .fold(AccessRules::new(Builtin::None), |rules, subject| {
            let when = When {
                subject: Some(subject),
                ..When::default()
            };
            rules.rule(when, Builtin::User)
        })
}

/// A token that nobody has seen: its signature is checked.
fn new_token() -> Work {
    after_others(
        |issued| {
            let mut request = get(TASKS);
            let bearer = issued.another();
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
            request
        },
        200,
    )
}

library_benchmark_group!(name = gateway_requests, benchmarks = request);
main!(library_benchmark_groups = gateway_requests);

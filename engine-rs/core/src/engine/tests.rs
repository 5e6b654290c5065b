//! The engine over a scripted model: first the machine alone, step by step, then the threads.

use super::scripted::{Fault, Letters, Scripted};
use super::*;
use crate::event::{Reason, TokenLogprob};
use crate::executor::Chunk;
use crate::request::Prompt;
use std::cell::Cell;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub(super) const OPTIONS: RunOptions =
    RunOptions { max_sequences: 4, step_tokens: 16, kv_bytes: None, kept_tokens: 512, speculate: true, seed: 0 };

pub(super) fn request(text: &str, change: impl FnOnce(&mut GenerateRequest)) -> GenerateRequest {
    let mut request = GenerateRequest::new(Prompt::Text(text.to_owned()));
    request.temperature = 0.0;
    request.max_tokens = Some(8);
    change(&mut request);
    request
}

/// A machine whose clock moves a millisecond whenever it is read.
fn machine(executor: Scripted) -> Machine {
    machine_with(executor, OPTIONS)
}

pub(super) fn machine_with(executor: Scripted, options: RunOptions) -> Machine {
    let start = Instant::now();
    let ticks = Cell::new(0);
    let clock = Box::new(move || {
        ticks.set(ticks.get() + 1);
        start + Duration::from_millis(ticks.get())
    });
    Machine::new(Box::new(executor), Arc::new(Letters), options, clock)
}

pub(super) fn submit(machine: &mut Machine, id: u64, request: GenerateRequest) {
    machine.open(id, Instant::now());
    let prompt = Letters.read(&request);
    machine.ready(id, request, prompt);
}

/// What a client saw of one request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub text: String,
    pub end: String,
    pub tokens: u32,
    logprobs: Vec<TokenLogprob>,
}

pub(super) fn seen(events: &[Event], id: u64) -> Seen {
    let mut seen = Seen::default();
    for event in events.iter().filter(|event| event.id() == id) {
        assert_eq!(seen.end, "", "an event after the end");
        match event {
            Event::Started { .. } => {}
            Event::Text { text, logprobs, .. } => {
                seen.text.push_str(text);
                seen.logprobs.extend_from_slice(logprobs);
            }
            Event::Finished { reason, completion_tokens, .. } => {
                seen.end = reason.name().to_owned();
                seen.tokens = *completion_tokens;
            }
            Event::Failed { code, .. } => seen.end = (*code).to_owned(),
        }
    }
    seen
}

pub(super) fn run(machine: &mut Machine) -> Vec<Event> {
    for _ in 0..2000 {
        if !machine.step() {
            return std::mem::take(&mut machine.events);
        }
    }
    panic!("no end");
}

/// Runs one request alone.
fn alone(text: &str, change: impl FnOnce(&mut GenerateRequest)) -> Seen {
    let mut machine = machine(Scripted::default());
    submit(&mut machine, 1, request(text, change));
    let events = run(&mut machine);
    assert_eq!(machine.statistics().live, 0);
    seen(&events, 1)
}

#[test]
fn answers_end_as_they_should() {
    type Change = fn(&mut GenerateRequest);
    let table: &[(&str, Change, &str, &str, u32)] = &[
        ("hello|", |_| (), "hello", "stop", 6),
        ("hello|", |request| request.max_tokens = Some(5), "hello", "length", 5),
        ("hello|", |request| request.max_tokens = Some(6), "hello", "stop", 6),
        ("hello|", |request| request.max_tokens = Some(2), "he", "length", 2),
        ("hello|", |request| request.stop = vec!["ll".to_owned()], "he", "stop", 4),
        ("hello|", |request| request.stop = vec!["lox".to_owned()], "hello", "stop", 6),
        ("hello|", |request| request.stop = vec!["o".to_owned()], "hell", "stop", 5),
        ("hello|", |request| (request.stop, request.max_tokens) = (vec!["llo".to_owned()], Some(5)), "he", "stop", 5),
        (
            "hello|",
            |request| (request.stop, request.max_tokens) = (vec!["llo".to_owned()], Some(4)),
            "hell",
            "length",
            4,
        ),
        ("hi|", |request| request.ignore_eos = true, "hi", "length", 8),
        ("aé|", |_| (), "aé", "stop", 4),
        ("aé|", |request| request.max_tokens = Some(2), "a\u{fffd}", "length", 2),
        ("|", |_| (), "", "stop", 1),
        ("", |_| (), "", "invalid_request", 0),
    ];
    for (text, change, answer, end, tokens) in table {
        let expected = Seen { text: (*answer).to_owned(), end: (*end).to_owned(), tokens: *tokens, logprobs: vec![] };
        assert_eq!(alone(text, change), expected, "{text}");
    }
}

#[test]
fn log_probabilities_go_with_their_text() {
    let letters = |seen: &Seen| seen.logprobs.iter().map(|score| score.token as u8 as char).collect::<String>();
    let all = alone("hello|", |request| request.logprobs = Some(2));
    assert_eq!(letters(&all), "hello");
    assert_eq!(all.logprobs[0].top.len(), 2);
    assert_eq!(all.logprobs[0].top[0].token, all.logprobs[0].token);
    assert!(all.logprobs[0].logprob < 0.0 && all.logprobs[0].logprob > -0.1);
    let stopped = alone("hello|", |request| {
        (request.logprobs, request.stop) = (Some(0), vec!["ll".to_owned()]);
    });
    assert_eq!(letters(&stopped), "he");
    let held = alone("hello|", |request| {
        (request.logprobs, request.stop) = (Some(0), vec!["lox".to_owned()]);
    });
    assert_eq!(letters(&held), "hello");
    let halves = alone("aé|", |request| request.logprobs = Some(0));
    assert_eq!(
        halves.logprobs.iter().map(|score| score.bytes.clone()).collect::<Vec<_>>(),
        [vec![b'a'], vec![0xc3], vec![0xa9]]
    );
}

#[test]
fn a_batch_changes_nothing() {
    let texts: Vec<String> = (0..12).map(|index| format!("prompt {index} {}", "x".repeat(index * 7))).collect();
    let single: Vec<Seen> = texts.iter().map(|text| alone(text, |_| ())).collect();
    let mut machine = machine(Scripted::default());
    for (id, text) in texts.iter().enumerate() {
        submit(&mut machine, id as u64, request(text, |_| ()));
    }
    let events = run(&mut machine);
    for (id, expected) in single.iter().enumerate() {
        assert_eq!(seen(&events, id as u64), *expected);
    }
}

#[test]
fn little_memory_changes_nothing() {
    let text = |id: u64| format!("{}{id}", "word ".repeat(5));
    let run_with = |memory: usize| {
        let mut machine = machine(Scripted { memory, ..Scripted::default() });
        (0..6).for_each(|id| submit(&mut machine, id, request(&text(id), |_| ())));
        let events = run(&mut machine);
        let preemptions = machine.statistics().preemptions;
        ((0..6).map(|id| seen(&events, id)).collect::<Vec<_>>(), preemptions)
    };
    let (plenty, none) = run_with(usize::MAX);
    let (scarce, some) = run_with(3);
    assert_eq!(plenty, scarce);
    assert!(none == 0 && some > 0, "{none} and {some} preemptions");
    // Too little for any: each fails alone, and says why.
    let (failed, _) = run_with(0);
    assert!(failed.iter().all(|seen| seen.end == "out_of_memory"), "{failed:?}");
}

#[test]
fn a_next_turn_computes_only_what_is_new() {
    let mut machine = machine(Scripted::default());
    let first = "x".repeat(40);
    submit(&mut machine, 1, request(&first, |_| ()));
    let answer = seen(&run(&mut machine), 1).text;
    let second = format!("{first}{answer} and then");
    let stranger = |request: &mut GenerateRequest| request.scope = "another".to_owned();
    submit(&mut machine, 2, request(&second, stranger));
    submit(&mut machine, 3, request(&second, |_| ()));
    let events = run(&mut machine);
    let expected = alone(&second, |_| ());
    assert_eq!(seen(&events, 2), expected);
    assert_eq!(seen(&events, 3), expected);
    let statistics = machine.statistics();
    // The last token of the first answer was never computed.
    assert_eq!(statistics.reused_tokens, 40 + 7);
    assert_eq!(statistics.prompt_tokens, 40 + 57 + (57 - 47));
    assert_eq!((statistics.live, statistics.blocks_used, statistics.blocks_kept), (0, 0, 4));
}

/// Fails whatever step holds a token `!`.
fn against_shouts(fault: fn() -> Fault) -> Scripted {
    let faults = move |batch: &[Chunk<'_>]| batch.iter().any(|chunk| chunk.tokens.contains(&33)).then(fault);
    Scripted { faults: Box::new(faults), ..Scripted::default() }
}

#[test]
fn a_failure_stays_with_its_request() {
    type Make = fn() -> Fault;
    let table: [(Make, &str, usize); 2] =
        [(|| Fault::Error, "engine_internal", 1), (|| Fault::Panic, "engine_internal", 1)];
    for (fault, code, failures) in table {
        let mut machine = machine(against_shouts(fault));
        for (id, text) in [(1, "hello|"), (2, "hello!|"), (3, "hello|")] {
            submit(&mut machine, id, request(text, |_| ()));
        }
        let events = run(&mut machine);
        assert_eq!(seen(&events, 2).end, code);
        for id in [1, 3] {
            assert_eq!(seen(&events, id).text, "hello");
        }
        let statistics = machine.statistics();
        assert_eq!((statistics.failed as usize, statistics.live), (failures, 0));
        assert!(statistics.retries > 0);
    }
}

#[test]
fn unusable_numbers_end_a_request() {
    let mut steps = 0;
    let faults = move |_: &[Chunk<'_>]| {
        steps += 1;
        (steps == 1).then_some(Fault::Nan)
    };
    let mut machine = machine(Scripted { faults: Box::new(faults), ..Scripted::default() });
    submit(&mut machine, 2, request("hello|", |_| ()));
    assert_eq!(seen(&run(&mut machine), 2).end, "no_finite_logits");
    submit(&mut machine, 1, request("hello|", |_| ()));
    assert_eq!(seen(&run(&mut machine), 1).text, "hello");
}

#[test]
fn a_passing_fault_costs_a_retry() {
    let mut steps = 0;
    let faults = move |_: &[Chunk<'_>]| {
        steps += 1;
        (steps == 3).then_some(Fault::Error)
    };
    let mut machine = machine(Scripted { faults: Box::new(faults), ..Scripted::default() });
    (1..=2).for_each(|id| submit(&mut machine, id, request("hello|", |_| ())));
    let events = run(&mut machine);
    assert_eq!([seen(&events, 1).text, seen(&events, 2).text], ["hello", "hello"]);
    assert_eq!(machine.statistics().retries, 1);
}

#[test]
fn cancelled_leaves_nothing() {
    let mut machine = machine(Scripted::default());
    (1..=100).for_each(|id| submit(&mut machine, id, request(&"x".repeat(40), |request| request.max_tokens = None)));
    machine.open(101, Instant::now());
    for id in 1..=101 {
        machine.step();
        machine.cancel(id);
        machine.cancel(id);
    }
    machine.ready(101, request("late", |_| ()), Ok(vec![1]));
    assert!(!machine.step());
    let statistics = machine.statistics();
    assert_eq!((statistics.live, statistics.waiting, statistics.cancelled), (0, 0, 101));
    let events = std::mem::take(&mut machine.events);
    (1..=101).for_each(|id| assert_eq!(seen(&events, id).end, "cancelled"));
}

#[test]
fn times_add_up() {
    let mut machine = machine(Scripted::default());
    submit(&mut machine, 1, request(&"x".repeat(60), |_| ()));
    let events = run(&mut machine);
    let Some(Event::Finished { timings, reason: Reason::Length, prompt_tokens: 60, .. }) = events.last() else {
        panic!("{events:?}");
    };
    assert!(timings.prefill > Duration::ZERO && timings.decode > Duration::ZERO);
    assert_eq!(timings.first_token, timings.queue + timings.prefill);
}

#[test]
fn late_requests_fail_with_a_code() {
    let mut machine = machine_with(Scripted::default(), RunOptions { max_sequences: 1, ..OPTIONS });
    submit(&mut machine, 1, request("hello|", |_| ()));
    submit(&mut machine, 2, request("hello|", |request| request.deadline_ms = Some(5)));
    submit(&mut machine, 3, request("hello|", |request| request.deadline_ms = Some(60_000)));
    let events = run(&mut machine);
    assert_eq!([1, 2, 3].map(|id| seen(&events, id).end), ["stop", "deadline_exceeded", "stop"]);
}

#[test]
fn the_urgent_overtake() {
    let mut machine = machine_with(Scripted::default(), RunOptions { max_sequences: 1, ..OPTIONS });
    for (id, priority) in [(1, 0), (2, 0), (3, 5)] {
        submit(&mut machine, id, request("hi|", |request| request.priority = priority));
    }
    let events = run(&mut machine);
    let ends = events.iter().filter(|event| matches!(event, Event::Finished { .. })).map(Event::id);
    assert_eq!(ends.collect::<Vec<_>>(), [3, 1, 2]);
}

#[test]
fn too_long_for_the_cache_is_refused_with_numbers() {
    let executor = Scripted { context_length: 4096, ..Scripted::default() };
    let mut machine = machine_with(executor, RunOptions { kv_bytes: Some(4 * 1024), ..OPTIONS });
    submit(&mut machine, 1, request(&"x".repeat(200), |_| ()));
    let events = run(&mut machine);
    let Some(Event::Failed { code: "kv_full", message, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(message, "207 positions of the key-value cache needed, it has room for 128");
}

#[test]
fn guesses_save_steps_and_change_nothing() {
    let steps = |speculate: bool, temperature: f32| {
        let mut machine = machine_with(Scripted::default(), RunOptions { speculate, ..OPTIONS });
        let change = |request: &mut GenerateRequest| {
            (request.max_tokens, request.temperature, request.seed) = (Some(100), temperature, Some(3));
        };
        submit(&mut machine, 1, request("say ~", change));
        let events = run(&mut machine);
        let Some(Event::Finished { work, .. }) = events.last() else { panic!("{events:?}") };
        let statistics = machine.statistics();
        assert_eq!(statistics.drafted_tokens, u64::from(work.drafted_tokens));
        assert_eq!(statistics.accepted_tokens, u64::from(work.accepted_tokens));
        (seen(&events, 1), statistics.steps, work.accepted_tokens)
    };
    for temperature in [0.0, 1.0] {
        let ((plain, slow, none), (guessed, fast, some)) = (steps(false, temperature), steps(true, temperature));
        assert_eq!((plain, none), (guessed, 0));
        assert_eq!(fast + u64::from(some), slow);
        assert!(fast * 2 < slow || (temperature > 0.0 && fast < slow), "{fast} steps of {slow} at {temperature}");
    }
}

#[test]
fn figures_count_tokens_once() {
    let mut machine = machine(Scripted::default());
    (1..=3).for_each(|id| submit(&mut machine, id, request(&"x".repeat(30), |_| ())));
    run(&mut machine);
    let statistics = machine.statistics();
    // The three prompts are equal, but shorter than a block.
    assert_eq!((statistics.prompt_tokens, statistics.completion_tokens, statistics.finished), (90, 24, 3));
    let computed = statistics.step_tokens - statistics.drafted_tokens;
    // The last token of each is never computed.
    assert_eq!((computed, statistics.busy), (90 + 21, statistics.prompt_time + statistics.completion_time));
}

/// A running engine and the wake-ups it gives.
fn engine(executor: Scripted) -> (Engine, Receiver<()>) {
    let (sender, wakes) = channel();
    let wake = Box::new(move || {
        let _ = sender.send(());
    });
    (Engine::start(Box::new(executor), Arc::new(Letters), OPTIONS, wake).unwrap(), wakes)
}

/// Drains at each wake-up until `count` requests have ended; acknowledges all but `slow`.
fn until_ended(engine: &Engine, wakes: &Receiver<()>, count: usize, slow: u64) -> Vec<Event> {
    let (mut events, mut ended) = (Vec::new(), 0);
    while ended < count {
        wakes.recv().unwrap();
        for event in engine.drain() {
            match &event {
                Event::Text { id, tokens, .. } if *id != slow => engine.acknowledge(*id, *tokens),
                Event::Finished { .. } | Event::Failed { .. } => ended += 1,
                _ => {}
            }
            events.push(event);
        }
    }
    events
}

#[test]
fn many_requests_end_once() {
    let (engine, wakes) = engine(Scripted::default());
    for id in 0..200 {
        engine
            .submit(
                id,
                request(&format!("answer {id}|"), |request| (request.max_tokens, request.window) = (Some(40), 3)),
            )
            .unwrap();
    }
    let events = until_ended(&engine, &wakes, 200, u64::MAX);
    for id in 0..200 {
        assert_eq!(seen(&events, id).text, format!("answer {id}"));
    }
    let statistics = engine.statistics();
    assert_eq!((statistics.live, statistics.finished), (0, 200));
}

#[test]
fn a_slow_client_holds_up_itself() {
    let (engine, wakes) = engine(Scripted::default());
    let endless = |request: &mut GenerateRequest| (request.max_tokens, request.window) = (Some(100), 4);
    (1..=6).for_each(|id| engine.submit(id, request("words", endless)).unwrap());
    let mut events = until_ended(&engine, &wakes, 5, 3);
    let told = events.iter().filter_map(|event| match event {
        Event::Text { id: 3, tokens, .. } => Some(*tokens),
        _ => None,
    });
    assert_eq!(told.max(), Some(4));
    engine.acknowledge(3, 4);
    events.extend(until_ended(&engine, &wakes, 1, u64::MAX).into_iter().inspect(|event| assert_eq!(event.id(), 3)));
    assert_eq!(seen(&events, 3).end, "length");
}

#[test]
fn closing_fails_what_is_open() {
    let (engine, _wakes) = engine(Scripted::default());
    (1..=9).for_each(|id| engine.submit(id, request("words", |request| request.window = 1)).unwrap());
    engine.close();
    engine.close();
    let events = engine.drain();
    (1..=9).for_each(|id| assert_eq!(seen(&events, id).end, "engine_stopped"));
    assert_eq!(engine.submit(10, request("words", |_| ())).unwrap_err().code(), "engine_stopped");
    engine.cancel(1);
    engine.acknowledge(1, 1);
    assert_eq!(engine.statistics().live, 0);
    assert!(engine.drain().is_empty());
}

#[test]
fn a_panic_while_reading_fails_one() {
    let (engine, wakes) = engine(Scripted::default());
    engine.submit(1, request("panic", |_| ())).unwrap();
    engine.submit(2, request("hello|", |_| ())).unwrap();
    let events = until_ended(&engine, &wakes, 2, u64::MAX);
    assert_eq!([seen(&events, 1).end, seen(&events, 2).text], ["engine_internal", "hello"]);
}

#[test]
fn impossible_requests_are_refused_at_once() {
    let (engine, _wakes) = engine(Scripted::default());
    let tokens = |tokens: Vec<u32>| GenerateRequest::new(Prompt::Tokens(tokens));
    let messages = serde_json::json!([{"role": "user", "content": "hi"}]);
    let table = [
        (tokens(vec![256]), "`prompt`: there is no token 256: the model has 256"),
        (
            GenerateRequest::new(Prompt::Messages(messages)),
            "`prompt`: the model has no chat template: send `text` or `tokens`",
        ),
        (
            request("a", |request| request.logit_bias = vec![(300, 1.0)]),
            "`logit_bias`: there is no token 300: the model has 256",
        ),
        (request("a", |request| request.temperature = f32::NAN), "`temperature`: NaN is not between 0 and 2"),
        (tokens(vec![1; 512]), "512 prompt tokens and 1 to generate exceed the context of 512 tokens"),
    ];
    for (request, message) in table {
        assert_eq!(engine.submit(1, request).unwrap_err().to_string(), message);
    }
}

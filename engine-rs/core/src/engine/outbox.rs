//! Where events wait until the consumer takes them, and the one wake-up that tells it to. A consumer that is behind gets
//! fewer, longer texts, not more events: what waits here is bounded by the number of open requests.

use crate::event::Event;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Default)]
struct Waiting {
    events: Vec<Event>,
    /// Where each request's waiting text is, for the next one to be appended to.
    texts: HashMap<u64, usize>,
}

pub struct Outbox {
    waiting: Mutex<Waiting>,
    /// A wake-up is under way that the consumer has not answered yet.
    armed: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Outbox {
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { waiting: Mutex::default(), armed: AtomicBool::new(false), wake }
    }

    /// Hands over the events of a whole step, then wakes the consumer once, unless it is awake already.
    pub fn push(&self, events: &mut Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events.drain(..) {
            waiting.add(event);
        }
        drop(waiting);
        if !self.armed.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// Takes all events. Clears `armed` first: an event pushed in between is either taken now or wakes again.
    pub fn drain(&self) -> Vec<Event> {
        self.armed.swap(false, Ordering::AcqRel);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.texts.clear();
        std::mem::take(&mut waiting.events)
    }
}

impl Waiting {
    fn add(&mut self, event: Event) {
        let Event::Text { id, text, tokens, logprobs } = event else {
            self.events.push(event);
            return;
        };
        let at = *self.texts.entry(id).or_insert(self.events.len());
        match self.events.get_mut(at) {
            Some(Event::Text { text: earlier, tokens: count, logprobs: scores, .. }) => {
                earlier.push_str(&text);
                scores.extend(logprobs);
                *count = tokens;
            }
            _ => self.events.push(Event::Text { id, text, tokens, logprobs }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    fn text(id: u64, text: &str, tokens: u32) -> Event {
        Event::Text { id, text: text.to_owned(), tokens, logprobs: Vec::new() }
    }

    fn failed(id: u64) -> Event {
        Event::Failed { id, code: "x", message: String::new() }
    }

    #[test]
    fn texts_of_a_request_join() {
        let outbox = Outbox::new(Box::new(|| ()));
        outbox.push(&mut vec![text(1, "a", 1), text(2, "x", 1)]);
        outbox.push(&mut vec![text(2, "y", 2), text(1, "b", 2), failed(2)]);
        assert_eq!(outbox.drain(), [text(1, "ab", 2), text(2, "xy", 2), failed(2)]);
        outbox.push(&mut vec![text(1, "c", 3)]);
        assert_eq!(outbox.drain(), [text(1, "c", 3)]);
    }

    #[test]
    fn one_wake_up_until_drained() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        let outbox = Outbox::new(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        let count = |outbox: &Outbox| {
            outbox.push(&mut vec![failed(1)]);
            wakes.load(Ordering::Relaxed)
        };
        outbox.push(&mut Vec::new());
        assert_eq!([count(&outbox), count(&outbox)], [1, 1]);
        outbox.drain();
        assert_eq!(count(&outbox), 2);
    }

    #[test]
    fn no_event_is_lost_between_threads() {
        const EVENTS: usize = 20_000;
        let (sender, wakes) = mpsc::channel();
        let outbox = Arc::new(Outbox::new(Box::new(move || {
            let _ = sender.send(());
        })));
        let pusher = Arc::clone(&outbox);
        let thread = std::thread::spawn(move || {
            (0..EVENTS).for_each(|id| pusher.push(&mut vec![failed(id as u64)]));
        });
        let mut taken = 0;
        while taken < EVENTS {
            // Only ever waits for a wake-up, as the consumer does: a lost one would hang here.
            wakes.recv().unwrap();
            for event in outbox.drain() {
                assert_eq!(event.id(), taken as u64);
                taken += 1;
            }
        }
        thread.join().unwrap();
    }
}

//! The choice of one step: which running sequences take part, with how many tokens, and on which blocks.

use super::share::{Demand, Row, share};
use super::speculation::MOST;
use super::{Scheduler, SeqId};
use crate::error::Error;
use crate::kv::BLOCK;
use std::collections::HashSet;

/// What to compute next.
#[derive(Debug, Default)]
pub struct Plan {
    pub rows: Vec<Row>,
    /// How many sequences lost their place, because others needed their blocks.
    pub preempted: usize,
    /// Sequences that can never be computed. They are gone already.
    pub failed: Vec<(SeqId, Error)>,
}

impl Scheduler {
    /// Chooses the next step, of about `step_tokens` tokens, decoded ones and prompt chunks together. Empty when there
    /// is nothing to compute until a command arrives.
    pub fn plan(&mut self, step_tokens: usize) -> Plan {
        let demands = self.demands();
        let mut rows = share(&demands, step_tokens, self.limits.least_prompt_tokens.max(1));
        self.guess(&mut rows);
        let mut plan = Plan::default();
        // The first in rank get their blocks first.
        rows.sort_by_key(|row| self.rank(row.id));
        for row in rows {
            if self.provide(&row, &mut plan) {
                plan.rows.push(row);
            }
        }
        plan.rows.retain(|row| self.expects(row));
        plan
    }

    /// What could be computed now. Of several sequences that would compute the same block only the first does; the
    /// others find it known when it is done.
    fn demands(&mut self) -> Vec<Demand> {
        let (mut demands, mut claimed) = (Vec::new(), HashSet::new());
        for id in &self.running {
            let Some(sequence) = self.sequences.get_mut(id).filter(|sequence| !sequence.paused()) else {
                continue;
            };
            if sequence.remaining() > 1 {
                sequence.adopt(&mut self.pool);
                if sequence.next_digest(&self.pool).is_some_and(|digest| !claimed.insert(digest)) {
                    continue;
                }
            }
            demands.push(Demand { id: *id, start: sequence.computed, remaining: sequence.remaining() });
        }
        demands
    }

    /// Adds guesses where all rows decode and are few: beside prompts a row of its own costs as much as any.
    fn guess(&mut self, rows: &mut [Row]) {
        let most = (self.limits.speculative_rows / rows.len().max(1)).saturating_sub(1).min(MOST);
        let scarce = self.pool.available() < rows.len() * 2;
        if most == 0 || scarce || rows.iter().any(|row| row.len > 1 || !row.samples) {
            return;
        }
        for row in rows {
            if let Some(sequence) = self.sequences.get_mut(&row.id)
                && let Some(mut speculation) = sequence.speculation.take()
            {
                // The token that is due takes one place.
                let most = most.min(sequence.room().saturating_sub(1));
                row.guess = speculation.guess(&sequence.tokens, most);
                sequence.speculation = Some(speculation);
            }
        }
    }

    /// Sees that the row has its blocks. Where there are none left, the last in rank gives its own, be it this one.
    fn provide(&mut self, row: &Row, plan: &mut Plan) -> bool {
        while self.expects(row) {
            let Some(sequence) = self.sequences.get_mut(&row.id) else {
                return false;
            };
            if sequence.grow(row.end(), &mut self.pool) {
                return true;
            }
            if let [alone] = self.running[..] {
                if self.regain() {
                    continue;
                }
                self.remove(alone);
                let available = self.pool.capacity() * BLOCK;
                plan.failed.push((alone, Error::KvFull { needed: row.end(), available }));
                return false;
            }
            if let Some(victim) = self.last_paused().or_else(|| self.running.last().copied()) {
                self.evict(victim);
                plan.preempted += 1;
            }
        }
        false
    }
}

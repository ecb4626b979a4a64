//! What is long goes to the helpers, and comes back.

use nix::sched::sched_getcpu;
use shm_ring::Violation;

use super::{Loop, Missed, Use, helpers::Done};
use crate::ring::link::LinkError;

impl Loop {
    /// Of lanes that have a lot to write, lends those whose sockets last received on other cores.
    pub(super) fn lend(&mut self, ready: &mut Vec<usize>) -> Result<(), LinkError> {
        // One connection alone is served at once: waking a helper would only delay it.
        let is_alone = ready.len() < 2 && self.answers_due < 2;
        if ready.is_empty() || is_alone || self.helpers.is_empty() {
            return Ok(());
        }
        // It is not known where this is: then it may as well be here.
        let Ok(own_core) = sched_getcpu() else {
            return Ok(());
        };
        let mut kept = 0;
        for ahead in 0..ready.len() {
            let lane = ready[ahead];
            if !self.lend_one(lane, own_core)? {
                ready[kept] = lane;
                kept += 1;
            }
        }
        ready.truncate(kept);
        Ok(())
    }

    /// Whether it was lent.
    fn lend_one(&mut self, index: usize, own_core: usize) -> Result<bool, Violation> {
        let Use::Open(connection) = &mut self.lanes[index] else {
            return Ok(false);
        };
        if !connection.has_bulk()? {
            return Ok(false);
        }
        let core = connection.core().filter(|core| *core != own_core);
        let Some(helper) = core.and_then(|core| self.helpers.on(core)) else {
            return Ok(false);
        };
        let lent = Use::Lent(Missed::default());
        if let Use::Open(connection) = std::mem::replace(&mut self.lanes[index], lent) {
            self.lent += 1;
            helper.lend(index, connection, &self.returns);
        }
        Ok(true)
    }

    /// Goes on with what the helpers have done.
    pub(super) fn take_back(&mut self) -> Result<(), LinkError> {
        while self.lent > 0
            && let Some(done) = self.returns.take()
        {
            self.lent -= 1;
            let Done {
                lane,
                connection,
                progress,
            } = done?;
            let before = std::mem::replace(&mut self.lanes[lane], Use::Open(connection));
            self.after(lane, progress?);
            if let Use::Lent(missed) = before {
                if let Some(readiness) = missed.socket {
                    self.on_socket(lane, readiness)?;
                }
                if missed.peer {
                    self.on_peer(lane)?;
                }
            }
        }
        Ok(())
    }
}

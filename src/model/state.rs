//! The two state machines. Nothing else in the program sets a state.
//!
//! Codes on the wire differ by client generation and live in [`crate::wire`]; the store holds names.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A move that the state machine does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{machine} cannot take '{event}' in state {state}")]
pub struct IllegalTransition {
    /// `job` or `execution`.
    pub machine: &'static str,
    /// The state it is in.
    pub state: &'static str,
    /// What happened.
    pub event: &'static str,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in the order of the declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words!(
    /// States of a job (persistence.md section 4).
    JobState {
        /// Accepted, nothing runs yet.
        Pending,
        /// No node can take it now; it waits.
        Queued,
        /// At least one execution was accepted.
        Running,
        /// Enough executions completed.
        Completed,
        /// It cannot complete.
        Failed,
        /// A user stopped it.
        Stopped,
    }
);

words!(
    /// What happens to a job.
    JobEvent {
        /// No node has room; queue time is left.
        Queue,
        /// An execution was accepted.
        Start,
        /// Enough executions completed.
        Complete,
        /// Given up.
        Fail,
        /// A user wants it stopped.
        Stop,
        /// A new version of it came in under its name.
        Update,
        /// A user wants it run again.
        Rerun,
    }
);

impl JobState {
    /// Completed, Failed and Stopped: nothing follows but a new version.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Stopped)
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// The event makes no sense in this state.
    pub fn next(self, event: JobEvent) -> Result<Self, IllegalTransition> {
        use JobEvent as E;
        match (self, event) {
            (Self::Pending | Self::Queued, E::Queue) => Ok(Self::Queued),
            (Self::Pending | Self::Queued | Self::Running, E::Start) => Ok(Self::Running),
            (Self::Pending | Self::Queued | Self::Running, E::Complete) => Ok(Self::Completed),
            (Self::Pending | Self::Queued | Self::Running, E::Fail) => Ok(Self::Failed),
            // Upstream lets a failed job be stopped, too (http-api.md section 3.9); a stop of a stopped job is no news.
            (Self::Pending | Self::Queued | Self::Running | Self::Failed | Self::Stopped, E::Stop) => {
                Ok(Self::Stopped)
            }
            (_, E::Update)
            // What has not begun is not begun again, as upstream has it (persistence.md section 4).
            | (Self::Running | Self::Completed | Self::Failed | Self::Stopped, E::Rerun) => Ok(Self::Pending),
            _ => Err(IllegalTransition { machine: "job", state: self.as_str(), event: event.as_str() }),
        }
    }
}

words!(
    /// States of an execution: Bacalhau 1.9's list (persistence.md section 3).
    ExecutionState {
        /// Made by the orchestrator, nobody asked yet.
        New,
        /// The node is asked.
        AskForBid,
        /// The node would.
        AskForBidAccepted,
        /// The node would not.
        AskForBidRejected,
        /// It is to run; it may wait in the node's queue.
        BidAccepted,
        /// The engine runs it.
        Running,
        /// The program ended; its result is being published.
        Publishing,
        /// The orchestrator did not want it after all.
        BidRejected,
        /// Done.
        Completed,
        /// Failed.
        Failed,
        /// Stopped.
        Cancelled,
    }
);

words!(
    /// What happens to an execution.
    ExecutionEvent {
        /// The orchestrator asks the node.
        Ask,
        /// The node says yes.
        Offer,
        /// The node says no.
        Decline,
        /// The orchestrator accepts the node's yes.
        Accept,
        /// The orchestrator turns the node's yes down.
        Reject,
        /// The engine starts.
        Start,
        /// The program ended; there is something to publish.
        Publish,
        /// The program ended and everything is published.
        Complete,
        /// An error.
        Fail,
        /// A request to stop.
        Cancel,
    }
);

impl ExecutionState {
    /// Nothing follows these.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::AskForBidRejected | Self::BidRejected | Self::Completed | Self::Failed | Self::Cancelled
        )
    }

    /// It holds or waits for resources on the node.
    #[must_use]
    pub const fn is_executing(self) -> bool {
        matches!(self, Self::BidAccepted | Self::Running | Self::Publishing)
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// The event makes no sense in this state; terminal states take none.
    pub fn next(self, event: ExecutionEvent) -> Result<Self, IllegalTransition> {
        use ExecutionEvent as E;
        match (self, event) {
            (Self::New, E::Ask) => Ok(Self::AskForBid),
            (Self::New | Self::AskForBid, E::Offer) => Ok(Self::AskForBidAccepted),
            (Self::New | Self::AskForBid, E::Decline) => Ok(Self::AskForBidRejected),
            // Ops and daemon jobs skip the second round: New or AskForBid straight to BidAccepted.
            (Self::New | Self::AskForBid | Self::AskForBidAccepted, E::Accept) => Ok(Self::BidAccepted),
            (Self::New | Self::AskForBid | Self::AskForBidAccepted, E::Reject) => Ok(Self::BidRejected),
            // Running to Running: a service that is started again after a restart.
            (Self::BidAccepted | Self::Running, E::Start) => Ok(Self::Running),
            (Self::Running, E::Publish) => Ok(Self::Publishing),
            // An orchestrator that is not told of Running sees BidAccepted, then the end.
            (Self::BidAccepted | Self::Running | Self::Publishing, E::Complete) => Ok(Self::Completed),
            (state, E::Fail) if !state.is_terminal() => Ok(Self::Failed),
            (state, E::Cancel) if !state.is_terminal() => Ok(Self::Cancelled),
            _ => Err(IllegalTransition { machine: "execution", state: self.as_str(), event: event.as_str() }),
        }
    }
}

words!(
    /// What the orchestrator wants of an execution.
    DesiredState {
        /// A bid only.
        Pending,
        /// A run.
        Running,
        /// An end.
        Stopped,
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    /// One row for each state, one column for each event; `.` is refused.
    fn check<S: Copy + fmt::Display, E: Copy + fmt::Display>(
        states: &[S],
        events: &[E],
        table: &str,
        next: impl Fn(S, E) -> Result<S, IllegalTransition>,
    ) {
        let mut rows = table.lines().map(str::trim).filter(|l| !l.is_empty());
        let header: Vec<&str> = rows.next().unwrap().split_whitespace().collect();
        assert_eq!(header, events.iter().map(ToString::to_string).collect::<Vec<_>>());
        for state in states {
            let cells: Vec<&str> = rows.next().unwrap().split_whitespace().collect();
            assert_eq!(cells[0], state.to_string());
            assert_eq!(cells.len(), events.len() + 1);
            for (event, cell) in events.iter().zip(&cells[1..]) {
                match next(*state, *event) {
                    Ok(new) => assert_eq!(new.to_string(), *cell, "{state} + {event}"),
                    Err(error) => {
                        assert_eq!(*cell, ".", "{error}");
                        assert!(error.to_string().contains(&state.to_string()));
                    }
                }
            }
        }
        assert_eq!(rows.next(), None);
    }

    #[test]
    fn every_pair_of_a_job() {
        let table = "
                      Queue   Start    Complete   Fail    Stop     Update   Rerun
            Pending   Queued  Running  Completed  Failed  Stopped  Pending  .
            Queued    Queued  Running  Completed  Failed  Stopped  Pending  .
            Running   .       Running  Completed  Failed  Stopped  Pending  Pending
            Completed .       .        .          .       .        Pending  Pending
            Failed    .       .        .          .       Stopped  Pending  Pending
            Stopped   .       .        .          .       Stopped  Pending  Pending
        ";
        check(JobState::ALL, JobEvent::ALL, table, JobState::next);
    }

    #[test]
    fn every_pair_of_an_execution() {
        let table = "
            Ask       Offer             Decline           Accept      Reject      Start   Publish    Complete  Fail   Cancel
            New       AskForBid         AskForBidAccepted AskForBidRejected BidAccepted BidRejected . . . Failed Cancelled
            AskForBid .                 AskForBidAccepted AskForBidRejected BidAccepted BidRejected . . . Failed Cancelled
            AskForBidAccepted . . . BidAccepted BidRejected . . . Failed Cancelled
            AskForBidRejected . . . . . . . . . .
            BidAccepted . . . . . Running . Completed Failed Cancelled
            Running     . . . . . Running Publishing Completed Failed Cancelled
            Publishing  . . . . . . . Completed Failed Cancelled
            BidRejected . . . . . . . . . .
            Completed   . . . . . . . . . .
            Failed      . . . . . . . . . .
            Cancelled   . . . . . . . . . .
        ";
        check(ExecutionState::ALL, ExecutionEvent::ALL, table, ExecutionState::next);
    }

    #[test]
    fn terminal_means_terminal() {
        for state in ExecutionState::ALL.iter().filter(|s| s.is_terminal()) {
            assert!(ExecutionEvent::ALL.iter().all(|e| state.next(*e).is_err()));
            assert!(!state.is_executing());
        }
    }
}

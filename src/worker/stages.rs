//! The stages in which a worker gives shards away, or gets them, as tables (REQ E1). What is done in each is in `moving`.

/// How far a worker is that gives shards away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Giving {
    /// It looks for the places of their flows, some in each turn.
    Gathering,
    /// It waits until no frame that was taken for lost can come any more.
    Settling,
    /// It waits for a marker of every lcore that hands packets over to it; until then it is their owner.
    Draining,
    /// All that comes of them goes to the new owner; flows are marked, some in each turn, so that none goes by the short way.
    Marking,
    /// It waits until their held packets have gone and nothing of them is on its way to a peer.
    Flushing,
    /// Their flows leave, some in each turn.
    Sending,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// All places were looked at.
    AllFound,
    /// No stray is to be expected, or it was waited for long enough.
    NoStrays,
    /// The last marker came.
    LastMarker,
    /// All flows are marked.
    AllMarked,
    /// Nothing is on its way any more, or it was waited for long enough.
    Quiet,
    /// The last flow left.
    AllSent,
    /// The new owner has no room.
    Cancelled,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// Go on with this stage.
    To(Giving),
    /// Say that the flows are gathered, and wait for markers.
    SayGathered,
    /// Hand over to the new owner what comes from now on, and mark flows.
    LetGo,
    /// Say nothing more of the shards, and let their flows leave.
    Part,
    /// It is over.
    End,
}

/// The table.
pub(super) const fn step(stage: Giving, happened: Happened) -> Step {
    use Giving::{Draining, Flushing, Gathering, Marking, Sending, Settling};
    use Happened::{AllFound, AllMarked, AllSent, Cancelled, LastMarker, NoStrays, Quiet};
    match (stage, happened) {
        (Gathering, AllFound) => Step::To(Settling),
        (Settling, NoStrays) => Step::SayGathered,
        (Draining, LastMarker) => Step::LetGo,
        (Marking, AllMarked) => Step::To(Flushing),
        (Flushing, Quiet) => Step::Part,
        (Sending, AllSent) => Step::End,
        // Nobody was told of the new owner yet.
        (Gathering | Settling | Draining, Cancelled) => Step::End,
        (Gathering, NoStrays | LastMarker | AllMarked | Quiet | AllSent)
        | (Settling, AllFound | LastMarker | AllMarked | Quiet | AllSent)
        | (Draining, AllFound | NoStrays | AllMarked | Quiet | AllSent)
        | (Marking, AllFound | NoStrays | LastMarker | Quiet | AllSent | Cancelled)
        | (Flushing, AllFound | NoStrays | LastMarker | AllMarked | AllSent | Cancelled)
        | (Sending, AllFound | NoStrays | LastMarker | AllMarked | Quiet | Cancelled) => Step::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [Giving; 6] = [
        Giving::Gathering,
        Giving::Settling,
        Giving::Draining,
        Giving::Marking,
        Giving::Flushing,
        Giving::Sending,
    ];
    const HAPPENED: [Happened; 7] = [
        Happened::AllFound,
        Happened::NoStrays,
        Happened::LastMarker,
        Happened::AllMarked,
        Happened::Quiet,
        Happened::AllSent,
        Happened::Cancelled,
    ];

    #[test]
    fn each_stage_ends_by_one_thing_and_only_what_nobody_was_told_of_is_cancelled() {
        use Step::{End, LetGo, Part, SayGathered, Stay, To};
        let table = [
            [To(Giving::Settling), Stay, Stay, Stay, Stay, Stay, End],
            [Stay, SayGathered, Stay, Stay, Stay, Stay, End],
            [Stay, Stay, LetGo, Stay, Stay, Stay, End],
            [Stay, Stay, Stay, To(Giving::Flushing), Stay, Stay, Stay],
            [Stay, Stay, Stay, Stay, Part, Stay, Stay],
            [Stay, Stay, Stay, Stay, Stay, End, Stay],
        ];
        for (stage, row) in STAGES.iter().zip(table) {
            for (happened, expected) in HAPPENED.iter().zip(row) {
                assert_eq!(step(*stage, *happened), expected, "{stage:?}, {happened:?}");
            }
        }
    }
}

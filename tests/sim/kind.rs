//! What runs are about.

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Calm,
    ActiveCrashes,
    StandbyCrashes,
    ActivePaused,
    StandbyPaused,
    MirrorCut,
    MirrorCutOneWay,
    MirrorRough,
    OneWayCut,
    DataCableCut,
    WorkerStalls,
    StandbyWorkerStalls,
    ShortStalls,
    TwoTakeovers,
    Switchover,
    Shutdown,
    Partition,
    BothCrash,
    TwoFaults,
    /// The active's cable to clients or servers is pulled: it hands over to the other one, which lacks none.
    ActiveCableCut,
    /// One data port of either passes frames in one direction only.
    PortOneWay,
    /// Switches forget which addresses are where, now and then, and when somebody else takes over.
    MacsForgotten,
    /// The disk of either cannot be written for a while, in which the other one fails.
    DiskFails,
    /// Both fail, and one of them starts again with a disk that cannot be written: the other one has to serve.
    LoneDiskFails,
    /// As a partition, but with `partition = "safety"`: never two senders.
    SafePartition,
    /// A thread of either fails: the process resigns, ends, and is started again.
    Panics,
    /// One lcore of the active never moves again: the other one has to serve.
    WorkerStuckForGood,
    /// One fault of many, while clocks drift apart as fast as the configuration's check allows for.
    ClockDrifts,
    /// The active loses all its links for a while.
    ActiveLinksCut,
    /// The standby does: it cannot know that it is not the other one that is gone.
    StandbyLinksCut,
    /// Groups of three: the active crashes.
    ThreeActiveCrashes,
    /// First the active crashes and, when the others are in sync, its successor.
    ThreeTwoCrash,
    /// One of three cannot keep up, or is cut off from the mirror's link.
    ThreeStandbyLags,
    /// The same, and then the active crashes.
    ThreeLagsThenCrash,
    /// One of three is cut off from the others.
    ThreePartition,
    /// The same with `partition = "safety"`.
    ThreeSafePartition,
    /// As a partition, with a witness that both hear, or one of them, or neither, soon or late: never two senders.
    WitnessPartition,
    /// The witness is lost for a while, or one does not reach it: nobody minds.
    WitnessLost,
    /// In a partition the witness starts anew, now and then: never two senders.
    WitnessRestarts,
    /// Flows of the standby are not what it was told, by a fault of its machine: their digests say so, and it is told again.
    FlowsDamaged,
    /// As `MirrorRough`, with two standbys.
    ThreeMirrorRough,
    /// The mirror's link is bad and stays so, and the active crashes, at any time.
    RoughThenCrash,
    /// The same with two standbys.
    ThreeRoughThenCrash,
    /// While the active hands over, it crashes, or the other one: after any event.
    CrashInHandover,
    /// The same with two standbys.
    ThreeCrashInHandover,
    /// While the standby comes back and is told all, with its disk or without, it crashes again, or the active: after any event.
    CrashInRejoin,
    /// The same with two standbys, of which one stays: whoever crashes, it is in sync.
    ThreeCrashInRejoin,
    /// One starts again without its disk and, when it is in sync, the other one crashes.
    DiskLost,
    /// The standby takes few frames at a time, or the mirror's link to it carries little.
    SlowStandby,
    /// The same, and then the active crashes.
    SlowThenCrash,
    /// The same with two standbys, of which one is slow.
    ThreeSlowThenCrash,
    /// The tables are small, or that of one: flows are refused, and told again when there is room.
    TableFull,
    /// The same, and the active crashes.
    TableFullThenCrash,
    /// The same with two standbys.
    ThreeTableFullThenCrash,
    /// With `checkpoints = "periodic"`: the active crashes, or hands over, or the standby crashes, while shards move.
    Periodic,
    /// With that, as `RoughThenCrash`.
    PeriodicRoughThenCrash,
    /// Flows are mirrored, left out and mirrored again, as rules and an operator say; the active crashes, and the next one hands over.
    FlowsChosen,
    /// Of three, the third tracks certain virtual servers only, and the active crashes: the other one leads if it can. In every
    /// second run that one crashes too, and the third leads and carries on what it knows.
    ThreePartial,
}

impl Kind {
    pub const ALL: [Kind; 58] = [
        Kind::ActiveCrashes,
        Kind::Calm,
        Kind::StandbyCrashes,
        Kind::ActivePaused,
        Kind::StandbyPaused,
        Kind::MirrorCut,
        Kind::MirrorCutOneWay,
        Kind::MirrorRough,
        Kind::OneWayCut,
        Kind::DataCableCut,
        Kind::WorkerStalls,
        Kind::StandbyWorkerStalls,
        Kind::ShortStalls,
        Kind::TwoTakeovers,
        Kind::Switchover,
        Kind::Shutdown,
        Kind::Partition,
        Kind::BothCrash,
        Kind::TwoFaults,
        Kind::ActiveCableCut,
        Kind::PortOneWay,
        Kind::MacsForgotten,
        Kind::DiskFails,
        Kind::LoneDiskFails,
        Kind::SafePartition,
        Kind::Panics,
        Kind::WorkerStuckForGood,
        Kind::ClockDrifts,
        Kind::ActiveLinksCut,
        Kind::StandbyLinksCut,
        Kind::ThreeActiveCrashes,
        Kind::ThreeTwoCrash,
        Kind::ThreeStandbyLags,
        Kind::ThreeLagsThenCrash,
        Kind::ThreePartition,
        Kind::ThreeSafePartition,
        Kind::WitnessPartition,
        Kind::WitnessLost,
        Kind::WitnessRestarts,
        Kind::FlowsDamaged,
        Kind::ThreeMirrorRough,
        Kind::RoughThenCrash,
        Kind::ThreeRoughThenCrash,
        Kind::CrashInHandover,
        Kind::ThreeCrashInHandover,
        Kind::CrashInRejoin,
        Kind::ThreeCrashInRejoin,
        Kind::DiskLost,
        Kind::SlowStandby,
        Kind::SlowThenCrash,
        Kind::ThreeSlowThenCrash,
        Kind::TableFull,
        Kind::TableFullThenCrash,
        Kind::ThreeTableFullThenCrash,
        Kind::Periodic,
        Kind::PeriodicRoughThenCrash,
        Kind::FlowsChosen,
        Kind::ThreePartial,
    ];

    /// How many appliances there are.
    pub const fn members(self) -> usize {
        match self {
            Kind::ThreeActiveCrashes
            | Kind::ThreeTwoCrash
            | Kind::ThreeStandbyLags
            | Kind::ThreeLagsThenCrash
            | Kind::ThreePartition
            | Kind::ThreeSafePartition
            | Kind::ThreeMirrorRough
            | Kind::ThreeRoughThenCrash
            | Kind::ThreeCrashInHandover
            | Kind::ThreeCrashInRejoin
            | Kind::ThreeSlowThenCrash
            | Kind::ThreeTableFullThenCrash
            | Kind::ThreePartial => 3,
            _ => 2,
        }
    }

    /// The place of the one that tracks certain virtual servers only, if there is one.
    pub fn partial(self) -> Option<usize> {
        (self == Kind::ThreePartial).then_some(2)
    }

    /// For a while no path may work between two appliances.
    pub fn may_part(self) -> bool {
        self == Kind::ActiveLinksCut || !self.is_single()
    }

    /// No more than one may ever send, in a partition or not.
    pub fn is_safe(self) -> bool {
        self.prefers_safety() || self.has_witness()
    }

    /// One that was silenced may go on after another one served and was silenced too, each by the witness's grant: terms then do
    /// not tell who may send, but leases do.
    pub fn may_go_back(self) -> bool {
        matches!(self, Kind::WitnessPartition | Kind::WitnessRestarts)
    }

    /// With `partition = "safety"`.
    pub fn prefers_safety(self) -> bool {
        matches!(self, Kind::SafePartition | Kind::ThreeSafePartition)
    }

    /// There is a witness.
    pub fn has_witness(self) -> bool {
        matches!(self, Kind::WitnessPartition | Kind::WitnessLost | Kind::WitnessRestarts)
    }

    /// Faults come one at a time, each with a synchronized standby: every promise holds.
    pub fn is_single(self) -> bool {
        !matches!(
            self,
            Kind::Partition
                | Kind::SafePartition
                | Kind::BothCrash
                | Kind::LoneDiskFails
                | Kind::TwoFaults
                | Kind::StandbyLinksCut
                | Kind::ThreePartition
                | Kind::ThreeSafePartition
                | Kind::WitnessPartition
                | Kind::WitnessRestarts
                | Kind::CrashInRejoin
        )
    }

    /// The mirror, or whoever acknowledges, is disturbed for long.
    pub fn disturbs_mirror(self) -> bool {
        match self {
            Kind::MirrorCut
            | Kind::MirrorCutOneWay
            | Kind::MirrorRough
            | Kind::StandbyPaused
            | Kind::ActivePaused
            | Kind::WorkerStalls
            | Kind::StandbyWorkerStalls
            | Kind::ShortStalls
            | Kind::OneWayCut
            | Kind::Partition
            | Kind::SafePartition
            | Kind::BothCrash
            | Kind::LoneDiskFails
            | Kind::TwoFaults
            | Kind::WorkerStuckForGood
            | Kind::ClockDrifts
            | Kind::ActiveLinksCut
            | Kind::StandbyLinksCut
            | Kind::ThreeStandbyLags
            | Kind::ThreeLagsThenCrash
            | Kind::ThreePartition
            | Kind::ThreeSafePartition
            | Kind::WitnessPartition
            | Kind::WitnessRestarts
            | Kind::FlowsDamaged
            | Kind::ThreeMirrorRough
            | Kind::RoughThenCrash
            | Kind::PeriodicRoughThenCrash
            | Kind::ThreeRoughThenCrash
            | Kind::CrashInHandover
            | Kind::ThreeCrashInHandover
            | Kind::CrashInRejoin
            | Kind::ThreeCrashInRejoin
            | Kind::SlowStandby
            | Kind::SlowThenCrash
            | Kind::ThreeSlowThenCrash
            | Kind::TableFull
            | Kind::TableFullThenCrash
            | Kind::ThreeTableFullThenCrash => true,
            Kind::Calm
            | Kind::ActiveCrashes
            | Kind::StandbyCrashes
            | Kind::DataCableCut
            | Kind::ActiveCableCut
            | Kind::PortOneWay
            | Kind::MacsForgotten
            | Kind::DiskFails
            | Kind::TwoTakeovers
            | Kind::Switchover
            | Kind::Shutdown
            | Kind::Panics
            | Kind::ThreeActiveCrashes
            | Kind::ThreeTwoCrash
            | Kind::WitnessLost
            | Kind::DiskLost
            | Kind::Periodic
            | Kind::FlowsChosen
            | Kind::ThreePartial => false,
        }
    }

    /// Nobody has a reason to take over.
    pub fn keeps_leader(self) -> bool {
        matches!(
            self,
            Kind::Calm
                | Kind::StandbyCrashes
                | Kind::StandbyPaused
                | Kind::MirrorCut
                | Kind::MirrorCutOneWay
                | Kind::StandbyWorkerStalls
                | Kind::ShortStalls
                | Kind::DataCableCut
                | Kind::PortOneWay
                | Kind::ThreeStandbyLags
                | Kind::WitnessLost
                | Kind::FlowsDamaged
                | Kind::ThreeMirrorRough
                | Kind::SlowStandby
                | Kind::TableFull
        )
    }

    /// The link between the mirror ports loses, doubles, delays and changes much.
    pub fn has_rough_mirror(self) -> bool {
        matches!(
            self,
            Kind::MirrorRough
                | Kind::ThreeMirrorRough
                | Kind::RoughThenCrash
                | Kind::ThreeRoughThenCrash
                | Kind::PeriodicRoughThenCrash
        )
    }

    /// How far connections have come is said without acknowledgement.
    pub fn is_periodic(self) -> bool {
        matches!(self, Kind::Periodic | Kind::PeriodicRoughThenCrash)
    }

    /// Tables are small: flows of which one is full are not protected.
    pub fn fills_tables(self) -> bool {
        matches!(self, Kind::TableFull | Kind::TableFullThenCrash | Kind::ThreeTableFullThenCrash)
    }

    /// When the active fails, nobody may be in sync with it: what was let go then was not protected.
    pub fn may_be_behind(self) -> bool {
        matches!(
            self,
            Kind::RoughThenCrash
                | Kind::PeriodicRoughThenCrash
                | Kind::ThreeRoughThenCrash
                | Kind::CrashInHandover
                | Kind::ThreeCrashInHandover
                | Kind::ThreeCrashInRejoin
                | Kind::SlowThenCrash
                | Kind::ThreeSlowThenCrash
        )
    }
}

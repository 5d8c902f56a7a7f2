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
    /// The active's cable to clients or servers is pulled.
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
}

impl Kind {
    pub const ALL: [Kind; 25] = [
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
    ];

    /// No more than one may ever send, in a partition or not.
    pub fn is_safe(self) -> bool {
        self == Kind::SafePartition
    }

    /// Faults come one at a time, each with a synchronized standby: every promise holds.
    pub fn is_single(self) -> bool {
        !matches!(
            self,
            Kind::Partition | Kind::SafePartition | Kind::BothCrash | Kind::LoneDiskFails | Kind::TwoFaults
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
            | Kind::TwoFaults => true,
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
            | Kind::Shutdown => false,
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
                | Kind::ActiveCableCut
                | Kind::PortOneWay
        )
    }
}

/* Bounds, and the state. Time is discrete: a tick is one heartbeat interval, and one poll. Ages count up to T
 * ("takeover_after, or more"). */

#ifndef N
#define N 2                     /* members */
#endif
#ifndef T
#define T 6                     /* takeover_after */
#endif
#ifndef L
#define L 3                     /* lease */
#endif
#ifndef P
#define P 1                     /* pause_bound: at most so long from the check of the lease to the transmit */
#endif
#ifndef WAIT
#define WAIT (T + 4)            /* boot_wait: the shortest, takeover_after and four intervals */
#endif
#ifndef MISSED
#define MISSED 1                /* on a path that works, so many beats in a row may not come through */
#endif
#ifndef DRIFTS
#define DRIFTS 1                /* in a run: one clock gains or loses a tick against all others */
#endif
#ifndef COUNTERS
#define COUNTERS 4              /* terms have counters up to here; then nobody leads anew */
#endif
#ifndef CRASHES
#define CRASHES 2               /* in a run */
#endif
#ifndef PAUSES
#define PAUSES 2                /* in a run; each as long as it likes */
#endif
#ifndef WITNESS_RESTARTS
#define WITNESS_RESTARTS 1      /* in a run */
#endif
#ifndef HANDOVERS
#define HANDOVERS 0             /* in a run */
#endif
#ifndef SLOW
#define SLOW 1                  /* removals of a member that is up but too slow, in a run */
#endif

/* How frames travel: on each way at least one of MISSED + 1 beats comes through (the default); ONE_WAY: what member 0
 * says may be lost or late at will; PARTITIONS: anything may; CUTS: every way works or does not, and changes so often.
 * How the group decides: by availability (the default), SAFETY, WITNESS. FLOW: with the in-sync set and a flow. */

#define DEAF 2                  /* two heartbeat intervals */
#ifndef GRANTS
#define GRANTS 4                /* four of them */
#endif
#define X(i, j) ((i) * N + (j))
#define NODE(term) ((term) & 3)
#define COUNTER(term) ((term) >> 2)
#define TERM(counter, i) ((counter) << 2 | (i))

/* Roles (role.rs), Quiescing being Active here. */
#define DOWN 0
#define BOOT 1
#define STANDBY 2
#define INSTALLING 3
#define ACTIVE 4
#define SILENCED 5
#define RESIGNING 6
#define CLAIMS(role) ((role) >= INSTALLING)
#define SAID_NOTHING 0          /* what a peer said that it is: nothing yet, BOOT, STANDBY or CLAIM */
#define CLAIM 3

/* ---- Each member ---- */
byte role[N];
byte term[N];                   /* led or followed */
byte highest[N];                /* counters up to here are used or were heard */
byte durable[N];                /* counters up to here are reserved on its disk: all that survives a crash */
byte lease[N];                  /* ticks left of it */
byte checked[N];                /* a worker saw the lease cover a packet: ticks left to transmit it, and one */
byte since[N];                  /* BOOT: since vacant, and one. INSTALLING: age of the newest claim; L: too old.
                                   SILENCED, RESIGNING: since then */
bit claimed[N];                 /* INSTALLING: a claim was handed out */
byte gap[N];                    /* since its last round */
byte listening[N];              /* age of listening_since */
byte heard[N];                  /* STANDBY: age of the newest sign of the leader */
#if N > 2
byte direct[N];                 /* STANDBY: age of the leader's newest beat */
#endif
bit gone[N];                    /* STANDBY: the leader's process is gone */
bit named[N];                   /* STANDBY: the leader resigned and named it */
bit believes[N];                /* STANDBY: the leader said that it is in sync */
byte successor[N];              /* it resigns, and names this one; N: no */
byte grace[N];                  /* what is left of boot_wait; or it resigned: its successor has so
                                   much longer */

/* ---- What member i knows of j, at X(i, j) ---- */
byte said[N * N];
byte said_term[N * N];
bit said_in_sync[N * N];
byte silent[N * N];             /* age of the newest beat */
byte echo[N * N];               /* age, on i's clock, of the newest beat of i's that j acknowledged */
bit answered[N * N];            /* that beat is of after i's newest gap or lapse */
byte stale[N * N];              /* beats in a row with no newer echo */
byte got[N * N];                /* age, on j's clock, of the newest beat of j's that came to i */
bit got_fresh[N * N];           /* that beat is of after j's newest gap or lapse */
bit session[N * N];             /* both ways the same */
bit new_boot[N * N];            /* j was started anew, and i does not know it */
bit diverged[N * N];            /* i led while j did: it does not say that it follows before there is a new session */
byte missed[N * N];             /* beats of j's that did not come through to i, in a row */

/* ---- Beats on their way from i to j, at X(i, j): one at most ---- */
byte beat_age[N * N];           /* 0: none; or its age and one, on i's clock */
byte beat_role[N * N];
byte beat_term[N * N];
bit beat_in_sync[N * N];
bit beat_member[N * N];         /* j is in the set */
bit beat_successor[N * N];      /* j is named */
byte beat_echo[N * N];          /* age, on j's clock, of the newest beat of j's that i had */
bit beat_fresh[N * N];
#ifndef SEVERAL_WORKERS
bit beat_held[N * N];           /* the one worker, which sends it, is between a check and the transmit */
#endif
bit beat_current[N * N];         /* it is of after i's newest gap or lapse */
#if N > 2
byte beat_leader[N * N];        /* age of what it heard of its leader */
#endif

#ifdef WITNESS
/* The witness grants to one member at a time. */
byte holder = N;
byte holds;                     /* ticks left on its clock; it never grants to another one before */
byte asked[N];                  /* a request on its way: 0, or its age and one, on the member's clock */
bit gives_back[N];              /* it asks for nothing: if it has the grant, nobody has it then */
#ifdef FROM_ANSWER
bit answer[N];                  /* a grant on its way */
#endif
byte grant[N];                  /* age of the newest request that was granted; L: none */
#ifdef FLOW
byte asked_term[N];             /* the request's term */
byte witness_term;              /* the newest term of a leader that it granted to, since its start */
bit witness_knows[N];           /* i: it has the term that a removal raised */
bit heard_it[N];                /* i heard the witness since its start */
bit vouches[N];                 /* STANDBY: the witness runs since before the leader last said that it is in sync.
                                   Who leads: it granted something to it as a leader since its start */
#endif
#endif

#ifdef FLOW
/* ---- The promise, by one flow that stands for all ---- */
bit known[N];                   /* to i's workers */
bit acked[N * N];               /* i's workers had j's acknowledgement, in this session */
bit walked[N * N];              /* i's workers reported that j has all, in this session and term */
bit lost_peer[N * N];           /* i: j's process is gone, and the set does not know */
byte told[N];                   /* the set in beats, a bit each */
byte holding[N];                /* the set that workers wait for */
byte change[N];                 /* NO_CHANGE, ADMITTING or REMOVING */
byte whom[N];                   /* the change is about */
bit older[N];                   /* ADMITTING: the flow was there before workers held for it */
bit excused[N];                 /* REMOVING: its process is gone */
byte change_age[N];
bit promised;                   /* a client has something because of the flow */
bit protected;                  /* and at that moment somebody was in sync */
bit owed[N];                    /* and this one believed to be, or was waited for */
#endif
#define NO_CHANGE 0
#define ADMITTING 1
#define REMOVING 2

/* ---- The world ---- */
#if DRIFTS > 0
byte drifts = DRIFTS;
#endif
byte crashes = CRASHES;
#ifdef WITNESS
byte witness_restarts = WITNESS_RESTARTS;
#endif
byte pauses = PAUSES;
#if HANDOVERS > 0
byte handovers = HANDOVERS;
#endif
#ifdef FLOW
byte slow = SLOW;
#endif
#ifdef CUTS
byte cuts = CUTS;
bit cut[N * N];                 /* nothing passes from i to j */
#endif
byte ever_taken[N];             /* the highest counter that it ever led with */
/* Scratch: zero between steps. */
byte j, k, x, y, step;
bit go, come, may;

#if N > 2 || HANDOVERS > 0
#define CAP (T * N)             /* ages that are waited for longer when others are better candidates */
#else
#define CAP T
#endif
#ifdef EQUAL_TERM_ACCEPTED
#define OUTRANKS(theirs, mine) (COUNTER(theirs) > COUNTER(mine))
#define BELOW(theirs, mine) (COUNTER(theirs) < COUNTER(mine))
#else
#define OUTRANKS(theirs, mine) ((theirs) > (mine))
#define BELOW(theirs, mine) ((theirs) < (mine))
#endif
#if defined(SAFETY) || defined(WITNESS)
#define ECHO_CAP L              /* nobody asks for more */
#define NEVER L                 /* the age of an echo of nothing */
#define STALE 0
#else
#define ECHO_CAP T
#define NEVER (T + 1)
#define STALE 3                 /* STALE_ECHOES */
#endif
#define OLDER(age, max, by) age = (age + (by) < (max) -> age + (by) : (max))
#define YOUNGER(left, by) left = (left > (by) -> left - (by) : 0)
#define MIN(x, y) ((x) < (y) -> (x) : (y))
#define MAX(x, y) ((x) > (y) -> (x) : (y))
#define MAY_SEND(i) (lease[i] > 0 || checked[i] > 0)

/* What the world does, and who runs. */

inline crash(i) {
    role[i] = DOWN;
    term[i] = 0;
    highest[i] = 0;
    lease[i] = 0;
    checked[i] = 0;
    since[i] = 0;
    claimed[i] = 0;
    gap[i] = 0;
    listening[i] = 0;
    heard[i] = 0;
    gone[i] = 0;
    named[i] = 0;
    DOUBT(i);
    successor[i] = N;
    grace[i] = 0;
#if N > 2
    direct[i] = 0;
#endif
#ifdef FLOW
    known[i] = 0;
    told[i] = 0;
    holding[i] = 0;
    clear_change(i);
#endif
#ifdef WITNESS
    asked[i] = 0;
    gives_back[i] = 0;
    grant[i] = L;
    holder = (holder == i -> N : holder);       /* The next process is another holder. */
#ifdef FLOW
    asked_term[i] = 0;
    witness_knows[i] = 0;
    heard_it[i] = 0;
    vouches[i] = 0;
#endif
#endif
    for (j : 0 .. N - 1) {
        said[X(i, j)] = SAID_NOTHING;
        said_term[X(i, j)] = 0;
        said_in_sync[X(i, j)] = 0;
        silent[X(i, j)] = T;
        echo[X(i, j)] = NEVER;
        answered[X(i, j)] = 0;
        stale[X(i, j)] = 0;
        got[X(i, j)] = NEVER;
        got_fresh[X(i, j)] = 0;
        diverged[X(i, j)] = 0;
        missed[X(i, j)] = 0;
        new_boot[X(i, j)] = 0;
        clear_beat(j, i);
#ifndef SEVERAL_WORKERS
        if
        :: beat_held[X(i, j)] -> clear_beat(i, j)
        :: else
        fi;
#endif
#ifdef FLOW
        acked[X(i, j)] = 0;
        walked[X(i, j)] = 0;
        lost_peer[X(i, j)] = 0;
#endif
        /* The session is of the process. */
        new_boot[X(j, i)] = (role[j] != DOWN && (new_boot[X(j, i)] || session[X(j, i)]));
        session[X(i, j)] = 0;
        session[X(j, i)] = 0
    }
    j = 0
}

inline start(i) {
    printf("%d is started\n", i);
    role[i] = BOOT;
    grace[i] = WAIT;
    highest[i] = durable[i];
    heard[i] = CAP;
#if N > 2
    direct[i] = CAP;
#endif
#ifndef NOT_DURABLE
    RESERVE(i)
#endif
}

/* receive.rs: establish, for i's side of a session with j. */
inline establish(i, j) {
    printf("%d has a session with %d, new process %d\n", i, j, new_boot[X(i, j)]);
    session[X(i, j)] = 1;
    diverged[X(i, j)] = 0;
#ifdef FLOW
    acked[X(i, j)] = 0;
    walked[X(i, j)] = 0;
#endif
    if
    :: new_boot[X(i, j)] ->
        new_boot[X(i, j)] = 0;
        said[X(i, j)] = SAID_NOTHING;
        said_term[X(i, j)] = 0;
        said_in_sync[X(i, j)] = 0;
        silent[X(i, j)] = T;
        echo[X(i, j)] = NEVER;
        answered[X(i, j)] = 0;
        stale[X(i, j)] = 0;
        got[X(i, j)] = NEVER;
        got_fresh[X(i, j)] = 0;
        clear_beat(j, i);
#ifdef FLOW
        lost_peer[X(i, j)] = 1;
#endif
        if
        :: !CLAIMS(role[i]) && term[i] > 0 && NODE(term[i]) == j && !gone[i] ->
            gone[i] = 1;
            since[i] = 0
        :: else
        fi
    :: else
    fi
}

/* i's clock goes on by `by`. */
inline age(i, by) {
    YOUNGER(lease[i], by);
    if
    :: role[i] == BOOT && since[i] > 0 -> OLDER(since[i], 2 * T * (N - 1) + 1, by)
    :: role[i] == INSTALLING && claimed[i] -> OLDER(since[i], L, by)
    :: role[i] == SILENCED -> OLDER(since[i], T, by)
    :: role[i] == RESIGNING -> OLDER(since[i], 2 * T, by)
#if N > 2
    :: role[i] == STANDBY && gone[i] -> OLDER(since[i], CAP, by)
#endif
    :: else
    fi;
    if
    :: role[i] != DOWN ->
        OLDER(gap[i], T, 1);
        OLDER(listening[i], CAP, by);
        if
        :: grace[i] > 0 -> YOUNGER(grace[i], by)
        :: else
        fi;
        if
        :: grace[i] == 0 || role[i] != STANDBY -> OLDER(heard[i], CAP, by)
        :: else
        fi;
#if N > 2
        OLDER(direct[i], CAP, by);
#endif
#ifdef FLOW
        if
        :: change[i] == REMOVING -> OLDER(change_age[i], 2 * T, by)
        :: else
        fi;
#endif
#ifdef WITNESS
        OLDER(grant[i], L, by);
        late_request(asked[i], by);
#endif
    :: else
    fi;
    for (j : 0 .. N - 1) {
        if
        :: j != i ->
            if
            :: role[i] != DOWN ->
                OLDER(silent[X(i, j)], T, by);
                if
                :: echo[X(i, j)] != NEVER -> OLDER(echo[X(i, j)], ECHO_CAP, by)
                :: else
                fi;
                if
                :: got[X(j, i)] != NEVER -> OLDER(got[X(j, i)], ECHO_CAP, by)
                :: else
                fi;
                if
                :: beat_age[X(j, i)] > 0 && beat_echo[X(j, i)] != NEVER -> OLDER(beat_echo[X(j, i)], ECHO_CAP, by)
                :: else
                fi
            :: else
            fi;
            if
            :: beat_age[X(i, j)] > 0 ->
                OLDER(beat_age[X(i, j)], ECHO_CAP + 1, by);
#if N > 2
                OLDER(beat_leader[X(i, j)], CAP, by);
#endif
            :: else
            fi
        :: else
        fi
    }
    j = 0
}

inline late_request(it, by) {
    if
    :: it > 0 ->
        it = it + by;
        if
        :: it > L -> it = 0         /* An answer to it would be of no use. */
        :: else
        fi
    :: else
    fi
}

/* All clocks go on. One of them by nothing or by two, if it may; `y` is its owner (the witness is N). */
inline tick() {
    y = N + 1;
    x = 1;
    if
    :: true
#if DRIFTS > 0
    :: drifts > 0 -> drifts--;
        if
        :: x = 0
        :: x = 2
        fi;
        if
        :: y = 0
        :: y = 1
#if N > 2
        :: y = 2
#endif
#ifdef WITNESS
        :: y = N
#endif
        fi
#endif
    fi;
    d_step {
        printf("-- tick; clock %d: %d\n", y, x);
        for (k : 0 .. N - 1) {
            if
            :: role[k] != DOWN && gap[k] == 1 ->
                printf("%d stands still\n", k);
                pauses--
            :: else
            fi
        }
        for (k : 0 .. N - 1) {
            if
            :: checked[k] == 1 -> LET_BEATS_GO(k) checked[k] = 0
            :: checked[k] > 1 -> checked[k]--
            :: else
            fi
        }
        for (k : 0 .. N - 1) {
            step = (k == y -> x : 1);
            age(k, step)
        }
        k = 0;
#ifdef WITNESS
        step = (y == N -> x : 1);
        YOUNGER(holds, step);
        holder = (holds == 0 -> N : holder);
#endif
        step = 0;
        x = 0;
        y = 0
    }
}

proctype member() {
    do
    :: atomic { role[me] != DOWN && gap[me] > 0 && TURN(me) -> round(me) }
    /* A worker reads the clock, and compares it with the lease: at any instant, but it is enough to look at the last
     * one before the lease ends, by itself or by what is about to be heard. */
    :: d_step { COVERED(me) && checked[me] == 0 && LAST_INSTANT(me) ->
            checked[me] = P + 1;
            printf("%d: the lease covers a packet\n", me)
        }
    /* Later it transmits: nobody else may send now, or have a packet that is on its way out. */
    :: d_step { checked[me] > 0 ->
            printf("%d transmits it\n", me);
            for (x : 0 .. N - 1) {
                assert(x == me || !MAY_SEND(x))
            }
            x = 0;
            LET_BEATS_GO(me)
            checked[me] = 0
        }
    :: d_step { role[me] != DOWN && crashes > 0 ->
            printf("%d is killed\n", me);
            crashes--;
            crash(me)
        }
    :: d_step { role[me] == DOWN -> start(me) }
#ifdef NOT_DURABLE
    :: d_step { role[me] != DOWN && durable[me] < highest[me] -> durable[me] = highest[me] }
#endif
#if HANDOVERS > 0
    :: d_step { handovers > 0 && role[me] == ACTIVE ->
            for (x : 0 .. N - 1) {
                if
                :: x != me && role[me] == ACTIVE && silent[X(me, x)] < T && said[X(me, x)] == STANDBY &&
                   said_term[X(me, x)] == term[me] IN_SET(me, x) ->
                    handovers--;
                    role[me] = RESIGNING;
                    lease[me] = 0;
                    since[me] = 0;
                    successor[me] = x
                :: else
                fi
            }
            x = 0
        }
#endif
#ifdef FLOW
    /* A client opens the connection. */
    :: d_step { role[me] == ACTIVE && lease[me] > 0 && !known[me] && !promised ->
            printf("%d has a new flow\n", me);
            known[me] = 1
        }
    /* Its packet leaves: nobody is in sync, or all that are have acknowledged. */
    :: d_step { role[me] == ACTIVE && lease[me] > 0 && known[me] && !protected && RELEASABLE(me) ->
            promised = 1;
            protected = (holding[me] != 0);
            for (x : 0 .. N - 1) {
                owed[x] = (x != me && (believes[x] || holding[me] & 1 << x))
            }
            x = 0;
            printf("%d lets a packet of the flow go, protected %d\n", me, protected)
        }
#endif
    od
}

init {
    d_step {
        for (k : 0 .. N - 1) {
            crash(k)
        }
        k = 0;
#ifdef SETTLED
        /* Member 0 leads, and the others follow. */
        for (k : 0 .. N - 1) {
            start(k);
            begin(k, (k == 0 -> ACTIVE : STANDBY));
            term[k] = TERM(1, 0);
            highest[k] = 1;
            RESERVE(k);
            listening[k] = CAP;
            heard[k] = (k == 0 -> CAP : 0);
#if N > 2
            direct[k] = heard[k];
#endif
            for (j : 0 .. N - 1) {
                if
                :: j != k ->
                    session[X(k, j)] = 1;
                    said[X(k, j)] = (j == 0 -> CLAIM : STANDBY);
                    said_term[X(k, j)] = TERM(1, 0);
                    silent[X(k, j)] = 0;
                    echo[X(k, j)] = 0;
                    answered[X(k, j)] = 1;
                    got[X(k, j)] = 0;
                    got_fresh[X(k, j)] = 1
                :: else
                fi
            }
            j = 0
        }
        k = 0;
        ever_taken[0] = 1;
        lease[0] = L
#endif
    };
    atomic {
        run member();
        run member();
#if N > 2
        run member();
#endif
    }
    do
    :: atomic { ROUNDS_MISSED <= pauses && TIMELY -> tick() }
#ifdef CUTS
    CHANGE(0, 1)
    CHANGE(1, 0)
#if N > 2
    CHANGE(0, 2)
    CHANGE(2, 0)
    CHANGE(1, 2)
    CHANGE(2, 1)
#endif
#endif
    :: d_step { MAY_AGREE(0, 1) -> establish(0, 1); establish(1, 0) }
#if N > 2
    :: d_step { MAY_AGREE(0, 2) -> establish(0, 2); establish(2, 0) }
    :: d_step { MAY_AGREE(1, 2) -> establish(1, 2); establish(2, 1) }
#endif
#ifdef FLOW
    MIRROR(0, 1)
    MIRROR(1, 0)
#if N > 2
    MIRROR(0, 2)
    MIRROR(2, 0)
    MIRROR(1, 2)
    MIRROR(2, 1)
#endif
#endif
#ifdef WITNESS
    ASK(0)
    ASK(1)
#if N > 2
    ASK(2)
#endif
    :: d_step { holder < N && witness_restarts > 0 ->
            witness_restarts--;
            holder = N;
            holds = START_WAIT;
            FORGET()
            printf("the witness starts anew\n")
        }
#endif
    od
}

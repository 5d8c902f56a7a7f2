/* What a member does. */

/* From its next beat on, what others acknowledge counts (answers_from). */
inline forget_answers(i) {
    for (x : 0 .. N - 1) {
        answered[X(i, x)] = 0;
        got_fresh[X(x, i)] = 0;
        beat_fresh[X(x, i)] = 0;
        beat_current[X(i, x)] = 0
    }
    x = 0
}

/* Nothing of another term or role is left. */
inline begin(i, new_role) {
    role[i] = new_role;
    lease[i] = 0;
    since[i] = 0;
    claimed[i] = 0;
    heard[i] = CAP;
#if N > 2
    direct[i] = CAP;
#endif
    gone[i] = 0;
    named[i] = 0;
    DOUBT(i);
    successor[i] = N;
    grace[i] = 0;
#ifdef FLOW
    told[i] = 0;
    holding[i] = 0;
    clear_change(i);
    for (x : 0 .. N - 1) {
        walked[X(i, x)] = 0;
        acked[X(i, x)] = 0;
        lost_peer[X(i, x)] = 0
    }
    x = 0
#endif
}

inline clear_change(i) {
    change[i] = NO_CHANGE;
    whom[i] = 0;
    older[i] = 0;
    excused[i] = 0;
    change_age[i] = 0
}

/* drive.rs: follow. */
inline follow(i, j) {
    if
    :: CLAIMS(role[i]) -> diverged[X(i, j)] = 1
#if defined(WITNESS) && defined(FLOW)
        vouches[i] = 0
#endif
    :: else
    fi;
    if
    :: role[i] != STANDBY || term[i] != beat_term[X(j, i)] ->
        printf("%d follows %d in term %d of %d\n", i, j, COUNTER(beat_term[X(j, i)]), NODE(beat_term[X(j, i)]));
        begin(i, STANDBY);
        term[i] = beat_term[X(j, i)]
    :: else
    fi;
#ifdef OUTSIDER_PROMOTED
    believes[i] = 1;
#else
    believes[i] = beat_member[X(j, i)] && beat_fresh[X(j, i)];
    if
    :: !believes[i] -> DOUBT(i)
    :: else
    fi;
#endif
#if defined(WITNESS) && defined(FLOW)
    vouches[i] = believes[i] && heard_it[i];
#endif
    heard[i] = 0;
#if N > 2
    direct[i] = 0;
#endif
    grace[i] = 0;
    gone[i] = 0;
    named[i] = 0
}

/* receive.rs: digest. A beat of j's comes to i. */
inline digest(i, j) {
    printf("  %d hears %d: role %d, term %d of %d, aged %d, echo aged %d\n", i, j, beat_role[X(j, i)],
        COUNTER(beat_term[X(j, i)]), NODE(beat_term[X(j, i)]), beat_age[X(j, i)] - 1, beat_echo[X(j, i)]);
    highest[i] = MAX(highest[i], COUNTER(beat_term[X(j, i)]));
    if
    :: beat_echo[X(j, i)] < echo[X(i, j)] -> stale[X(i, j)] = 0
    :: else -> stale[X(i, j)] = MIN(stale[X(i, j)] + 1, STALE)
    fi;
    said[X(i, j)] = beat_role[X(j, i)];
    said_term[X(i, j)] = beat_term[X(j, i)];
    said_in_sync[X(i, j)] = beat_in_sync[X(j, i)];
    silent[X(i, j)] = 0;
    echo[X(i, j)] = beat_echo[X(j, i)];
    answered[X(i, j)] = beat_fresh[X(j, i)];
    got[X(i, j)] = beat_age[X(j, i)] - 1;
    got_fresh[X(i, j)] = beat_current[X(j, i)];
    missed[X(i, j)] = 0;
    if
    :: beat_role[X(j, i)] == CLAIM ->
        if
        :: OUTRANKS(beat_term[X(j, i)], term[i]) ||
           !CLAIMS(role[i]) && beat_term[X(j, i)] == term[i] -> follow(i, j)
        :: else
        fi
    :: else ->
        if
        :: !CLAIMS(role[i]) ->
            if
            :: beat_successor[X(j, i)] && beat_term[X(j, i)] == term[i] && NODE(term[i]) == j -> named[i] = 1
            :: else
            fi;
#if N > 2
            if
            :: beat_role[X(j, i)] == STANDBY && beat_term[X(j, i)] >= term[i] ->
                heard[i] = MIN(heard[i], beat_leader[X(j, i)])
            :: else
            fi
#endif
        :: else
        fi
    fi;
    clear_beat(j, i)
}

inline clear_beat(from, to) {
    beat_age[X(from, to)] = 0;
    beat_role[X(from, to)] = 0;
    beat_term[X(from, to)] = 0;
    beat_in_sync[X(from, to)] = 0;
    beat_member[X(from, to)] = 0;
    beat_successor[X(from, to)] = 0;
    beat_echo[X(from, to)] = 0;
    beat_fresh[X(from, to)] = 0;
    beat_current[X(from, to)] = 0;
#ifndef SEVERAL_WORKERS
    beat_held[X(from, to)] = 0;
#endif
#if N > 2
    beat_leader[X(from, to)] = 0
#endif
}

/* Counts better candidates into x, and whether all peers answered into may. */
inline candidates(i) {
    x = 0;
    may = 1;
    for (y : 0 .. N - 1) {
        if
        :: y != i ->
            if
            :: BETTER(i, y) -> x++
            :: else
            fi;
            may = may && silent[X(i, y)] < T && answered[X(i, y)]
        :: else
        fi
    }
    y = 0
}

inline take_term(i) {
    highest[i]++;
    assert(highest[i] > ever_taken[i]);         /* a term is taken once, and higher ones later */
    ever_taken[i] = highest[i];
    term[i] = TERM(highest[i], i)
}

/* drive.rs: lead. */
inline lead(i) {
#ifdef PARTIAL
    /* Of those that boot together, one that tracks everything leads, if it is heard. */
    if
    :: role[i] == BOOT && i == PARTIAL ->
        for (x : 0 .. N - 1) {
            assert(!(x != i && role[x] == BOOT && gap[x] <= DEAF && silent[X(i, x)] < T))
        }
        x = 0
    :: else
    fi;
#endif
#ifdef FLOW
    if
    :: role[i] == BOOT ->
        /* Whoever was just started has no state: it waits while someone who has it is there. */
#if !defined(PARTITIONS) && !defined(ONE_WAY)
        for (x : 0 .. N - 1) {
            assert(!(protected && x != i && role[x] == STANDBY && believes[x] && known[x] && gap[x] <= DEAF))
        }
#endif
        x = 0
    :: else
    fi;
    /* A member that believes to be in sync has every protected flow. */
    assert(!(role[i] == STANDBY && believes[i] && (protected || owed[i]) && !known[i]));
    if
    :: !known[i] ->
        /* It leads without: what clients had is lost, and said to be. */
        promised = 0;
        protected = 0;
        for (x : 0 .. N - 1) {
            known[x] = 0;
            owed[x] = 0
        }
        for (x : 0 .. N * N - 1) {
            acked[x] = 0
        }
        x = 0
    :: else
    fi;
#endif
    if
    :: named[i] -> go = 0
    :: else -> go = 1
    fi;
    begin(i, INSTALLING);
    take_term(i);
    if
    :: go -> forget_answers(i)
    :: else
    fi;
    go = 0;
#ifdef WITNESS
    grant[i] = L;               /* The witness is to know the term before anything is sent in it. */
#ifdef FLOW
    vouches[i] = 0;
#endif
#endif
    printf("%d leads in term %d, to be installed\n", i, COUNTER(term[i]))
}

/* decide.rs: decide_booting. */
inline decide_booting(i) {
    candidates(i);
    go = heard[i] >= T && (may PATIENCE_OVER(i));
    if
    :: !go -> since[i] = 0
    :: else ->
        since[i] = MAX(since[i], 1);
        if
        :: (x == 0 WAITED_FOR_BETTER(i) REBOOTED_FIRST) && MAY_LEAD(i) -> lead(i)
        :: else
        fi
    fi;
    go = 0;
    may = 0;
    x = 0
}

/* decide.rs: decide_standby. */
inline decide_standby(i) {
    if
    :: successor[i] < N && grace[i] == 0 && heard[i] >= T -> successor[i] = N
    :: else
    fi;
    candidates(i);
    go = 0;
    if
    :: named[i] && FRESH(i) -> go = 1
    :: else ->
        if
        :: gone[i] && FRESH(i) OTHERS_ANSWER(i) -> go = (x == 0 GONE_WAITED(i))
        :: !(gone[i] OTHERS_ANSWER(i)) && MIN(heard[i], listening[i]) >= T * (1 + x) ->
#ifdef SAFETY
            DOUBT(i);
            go = x == 0 && may
#else
            go = 1
#endif
        :: else
        fi
    fi;
    if
    :: go && MAY_LEAD(i) -> lead(i)
    :: else
    fi;
    go = 0;
    may = 0;
    x = 0
}

/* decide.rs: decide_silenced. */
inline decide_silenced(i) {
    go = 1;
    for (y : 0 .. N - 1) {
        if
        :: y != i ->
            if
            :: MIN(MIN(silent[X(i, y)], since[i]), listening[i]) >= T
            :: else ->
                if
                :: said[X(i, y)] != SAID_NOTHING && said_term[X(i, y)] <= term[i] &&
                   (silent[X(i, y)] < T && answered[X(i, y)] && echo[X(i, y)] < L HARMLESS(i))
                :: else -> go = 0
                fi
            fi
        :: else
        fi
    }
    y = 0;
#ifdef WITNESS
    allowed(i);
    go = x > 0 && (go || REASSURED(i));
    x = 0;
    if
    :: go && OUTDATED(i) && MAY_LEAD(i) -> go = 0; lead(i)
    :: else
    fi;
#endif
    if
    :: go ->
        printf("%d is sure that nobody else leads, and resumes\n", i);
        role[i] = INSTALLING;
        since[i] = 0
    :: else
    fi;
    go = 0
}

/* drive.rs: silence. */
inline silence(i) {
    printf("%d lost its lease and is silenced\n", i);
    lease[i] = 0;
    role[i] = SILENCED;
    since[i] = 0;
    claimed[i] = 0;
    successor[i] = N;
    forget_answers(i)
}

/* asking.rs: licence, into x: as long as the witness, or every peer, grants, counted from the request, or from the beat that
 * it answers. */
#ifdef WITNESS
#define STANDS_BY(i, y) (silent[X(i, y)] < T && said[X(i, y)] == STANDBY && said_term[X(i, y)] == term[i] && \
    echo[X(i, y)] < L)
#ifdef ONE_PEER_ENOUGH
#define NONE_YET 0
#define AND_ALL(so_far, more) MAX(so_far, more)
#else
#define NONE_YET L
#define AND_ALL(so_far, more) MIN(so_far, more)
#endif
inline allowed(i) {
    x = NONE_YET;
    for (y : 0 .. N - 1) {
        if
        :: y != i -> x = AND_ALL(x, (STANDS_BY(i, y) -> L - echo[X(i, y)] : 0))
        :: y == i
        fi
    }
    x = MAX(x, L - grant[i]);
    y = 0
}
#endif

/* drive.rs: grant, and decide.rs: granted_by_standbys. The lease runs from a beat of this age. */
inline renew(i, beat) {
#ifdef WITNESS
    allowed(i);
    x = MIN(x, (beat < L -> L - beat : 0));
#else
    x = (beat < L -> L - beat : 0);
#ifndef SAFETY
    for (y : 0 .. N - 1) {
        if
        :: y != i && silent[X(i, y)] < GRANTS && said[X(i, y)] == STANDBY && said_term[X(i, y)] <= term[i] ->
            if
            :: stale[X(i, y)] >= STALE -> x = MIN(x, (echo[X(i, y)] < L -> L - echo[X(i, y)] : 0))
            :: stale[X(i, y)] < STALE && echo[X(i, y)] != NEVER ->
                x = MIN(x, (echo[X(i, y)] < T - 1 -> T - 1 - echo[X(i, y)] : 0))
            :: else
            fi
        :: else
        fi
    }
#endif
#endif
    lease[i] = MAX(lease[i], x);
    x = 0;
    y = 0
}

/* Nobody else may send while i does. */
inline alone(i) {
    for (y : 0 .. N - 1) {
        assert(lease[i] == 0 || y == i || !MAY_SEND(y))
    }
    y = 0
}

/* drive.rs: advance_installed, serve. */
inline serve(i) {
    go = 1;
    for (y : 0 .. N - 1) {
        go = go && !(y != i && silent[X(i, y)] < T && said[X(i, y)] == CLAIM && BELOW(said_term[X(i, y)], term[i]));
        go = go && !(y != i && silent[X(i, y)] < T && MIGHT_CLAIM(i, y) && !answered[X(i, y)])
    }
#ifdef WITNESS
    allowed(i);
    go = go && x > 0;
    x = 0;
#endif
    if
    :: go ->
        role[i] = ACTIVE;
        renew(i, since[i]);
        alone(i);
        printf("%d serves, with a lease of %d ticks\n", i, lease[i]);
        since[i] = 0;
        claimed[i] = 0
    :: else
    fi;
    go = 0;
    y = 0
}

/* talk.rs: send_beats, to one peer. */
inline say(i, j) {
    beat_age[X(i, j)] = 1;
    beat_role[X(i, j)] = (CLAIMS(role[i]) -> CLAIM : role[i]);
    beat_term[X(i, j)] = (diverged[X(i, j)] -> 0 : term[i]);
    beat_in_sync[X(i, j)] = role[i] == STANDBY && believes[i];
    beat_successor[X(i, j)] = role[i] == STANDBY && successor[i] == j;
    beat_echo[X(i, j)] = got[X(i, j)];
    beat_fresh[X(i, j)] = got_fresh[X(i, j)];
    beat_current[X(i, j)] = 1;
#ifndef SEVERAL_WORKERS
    beat_held[X(i, j)] = checked[i] > 0;
#endif
#ifdef FLOW
    beat_member[X(i, j)] = CLAIMS(role[i]) && (told[i] & 1 << j) && !lost_peer[X(i, j)];
#endif
#if N > 2
    beat_leader[X(i, j)] = (role[i] == STANDBY && !gone[i] -> direct[i] : CAP)
#endif
}

/* decide.rs: poll, without what is said after it. come: workers have installed, or whatever else is left to chance. */
inline poll(i) {
    if
    :: gap[i] > DEAF ->
        listening[i] = 0;
        forget_answers(i)
    :: else
    fi;
    if
    :: gap[i] > DEAF && !CLAIMS(role[i]) && MAX(gap[i], HEARD_DIRECTLY(i)) >= T -> DOUBT(i)
    :: else
    fi;
    gap[i] = 0;
    if
    :: role[i] == ACTIVE && lease[i] == 0 || role[i] == INSTALLING && claimed[i] && since[i] >= L -> silence(i)
    :: else
    fi;
    if
    :: role[i] == BOOT -> decide_booting(i)
    :: role[i] == STANDBY -> decide_standby(i)
    :: role[i] == SILENCED -> decide_silenced(i)
    :: role[i] == RESIGNING && (checked[i] == 0 || since[i] >= 2 * T) ->
        /* Its workers have stopped (or had long enough): it names its successor. */
        printf("%d names %d as its successor\n", i, successor[i]);
        role[i] = STANDBY;
        since[i] = 0;
        named[i] = 0;
        gone[i] = 0;
        heard[i] = 0;
        grace[i] = T;
        believes[i] = 1
    :: else
    fi;
#ifdef FLOW
    may = come;
    if
    :: role[i] == ACTIVE -> membership(i)
    :: else
    fi;
    may = 0
#endif
}

/* One round of the liveness thread: what came in, what it means, what is said. */
inline round(i) {
    j = 0;
    do
    :: j < N && j != i && COMES(j, i) ->
        if
        :: d_step { THROUGH(j, i) -> digest(i, j); j++ }
        :: NOT_THROUGH(j, i) -> MISS(j, i); j++
        fi
    :: j < N && !(j != i && COMES(j, i)) -> j++
    :: j == N -> break
    od;
    if
    :: role[i] != ACTIVE && role[i] != RESIGNING || role[i] == ACTIVE CHANCE(i) -> come = 1
    :: come = 0
    fi;
    d_step {
        poll(i);
#ifdef WITNESS
        if
        :: CLAIMS(role[i]) && role[i] != RESIGNING || role[i] == BOOT && since[i] > 0 ||
           role[i] == STANDBY && (heard[i] >= T || gone[i] || named[i]) ->
            asked[i] = 1;
            gives_back[i] = 0;
#ifdef FLOW
            asked_term[i] = term[i];
#endif
        :: (role[i] == BOOT && since[i] == 0 || role[i] == STANDBY && heard[i] < T && !gone[i] && !named[i]) &&
           !STOPS(i) ->
            /* It asks for nothing, which is of interest if it had something, or has not heard the witness. */
            gives_back[i] = (holder == i NEWS_TO(i));
            asked[i] = gives_back[i];
            grant[i] = L;
#ifdef FLOW
            asked_term[i] = 0;
#endif
        :: else
        fi;
#endif
        for (j : 0 .. N - 1) {
            if
            :: j != i && session[X(i, j)] && !BEHIND(i, j) && !STOPS(i) -> say(i, j)
            :: else
            fi
        }
        j = 0;
        if
        :: role[i] == INSTALLING ->
            claimed[i] = 1;
            since[i] = 0;
            if
            :: come -> serve(i)
            :: else
            fi
        :: role[i] == ACTIVE -> renew(i, 0)
        :: else
        fi;
#ifndef NOT_DURABLE
        RESERVE(i);
#endif
        come = 0
    }
}

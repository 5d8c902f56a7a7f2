/* Conditions, each in a word; what a broken rule changes is here. */

/* decide.rs: fitness. Priorities are equal, so the lower node is the better. */
#define BETTER(i, j) (silent[X(i, j)] < T && (said[X(i, j)] == BOOT || said[X(i, j)] == STANDBY) && \
    (FITNESS_SAID(i, j) > FITNESS(i) || FITNESS_SAID(i, j) == FITNESS(i) && j < i))
#define FITNESS_SAID(i, j) (said[X(i, j)] == STANDBY -> 2 + WHOLE(j) + said_in_sync[X(i, j)] : WHOLE_BOOTS(j))
#define FITNESS(i) (role[i] == STANDBY -> 2 + WHOLE(i) + believes[i] : WHOLE_BOOTS(i))
/* Who tracks every virtual server; one member may not. */
#ifdef PARTIAL
#define WHOLE(i) ((i) != PARTIAL)
#else
#define WHOLE(i) 1
#endif
#ifdef PARTIAL_BOOTS_ALIKE
#define WHOLE_BOOTS(i) 1  /* those that boot are told apart by their numbers alone */
#else
#define WHOLE_BOOTS(i) WHOLE(i)
#endif

/* The counter after the highest is reserved, and the witness agrees. */
#ifdef WITNESS
#define LICENCE(i) (grant[i] < L)
#else
#define LICENCE(i) 1
#endif
#ifdef NOT_DURABLE
#define RESERVED(i) 1
#else
#define RESERVED(i) (highest[i] < durable[i])
#endif
#define MAY_LEAD(i) (RESERVED(i) && highest[i] < COUNTERS && LICENCE(i))

/* decide.rs: how long who waits, and for whom. */
#ifdef SAFETY
#define PATIENCE_OVER(i)
#define WAITED_FOR_BETTER(i)
#else
#define PATIENCE_OVER(i) || grace[i] == 0 && listening[i] >= T
#define WAITED_FOR_BETTER(i) || since[i] - 1 >= 2 * T * x
#endif
#ifdef REBOOTED_LEADS
#define REBOOTED_FIRST || true  /* it does not wait for those who have state */
#else
#define REBOOTED_FIRST
#endif
#define FRESH(i) (listening[i] >= T)
#if defined(SAFETY) && N > 2 && !defined(GONE_IS_ENOUGH)
/* The one that is neither this one nor its leader. */
#define THIRD(i) (3 - i - NODE(term[i]))
#define OTHERS_ANSWER(i) && silent[X(i, THIRD(i))] < T && answered[X(i, THIRD(i))]
#else
#define OTHERS_ANSWER(i)
#endif
#ifdef SAFETY
#define GONE_WAITED(i)
#else
#define GONE_WAITED(i) || since[i] >= T * x && listening[i] >= T * (1 + x)
#endif
#ifdef SAFETY
#define HARMLESS(i) || MIN(since[i], listening[i]) >= T
#else
#define HARMLESS(i)
#endif

/* drive.rs: unanswered_candidate. */
#ifdef CLAIMED_UNHEARD
#define MIGHT_CLAIM(i, j) false /* it serves before the others have heard of its claim */
#else
#define MIGHT_CLAIM(i, j) (said[X(i, j)] == STANDBY || said[X(i, j)] == BOOT)
#endif

/* membership.rs. */
#define FOLLOWS(i, j) (silent[X(i, j)] < T && said[X(i, j)] == STANDBY && said_term[X(i, j)] == term[i])
#define ADMISSIBLE(i, j) (session[X(i, j)] && !diverged[X(i, j)] && !(told[i] & 1 << j) && FOLLOWS(i, j) && \
    walked[X(i, j)] && WHOLE(j))
#ifdef ADMITTED_BEHIND
#define HAS_ALL(i, j)           /* what was there before workers held for it may be on its way still */
#else
#define HAS_ALL(i, j) && (!older[i] || !known[i] || acked[X(i, j)])
#endif
#define IS_SILENT(i, j) (MIN(silent[X(i, j)], listening[i]) >= T)
#define KNOWS(i, j) (said[X(i, j)] != SAID_NOTHING && COUNTER(said_term[X(i, j)]) >= COUNTER(term[i]))
#ifdef SAFETY
#define FORGETS(i) || change_age[i] >= 2 * T
#else
#define FORGETS(i)
#endif
#ifdef WITNESS
#define WITNESSED(i, y) && (y != whom[i] || witness_knows[i])
#else
#define WITNESSED(i, y)
#endif
#ifdef REMOVED_UNTOLD
#define UNTOLD(i, y) || 1       /* workers stop waiting for it at once */
#else
#define UNTOLD(i, y)
#endif
#if N > 2
#define HEARD_DIRECTLY(i) direct[i]
#else
#define HEARD_DIRECTLY(i) heard[i]
#endif

/* Flows: what is left to chance; to whom a leader may hand over; when a packet may go. */
#ifdef FLOW
#define CHANCE(i) && (change[i] == ADMITTING || change[i] == NO_CHANGE && told[i] != 0 && slow > 0)
#else
#define CHANCE(i) && 0
#endif

/* drive.rs: reserve; far ahead there, by one here. */
#define RESERVE(i) durable[i] = MAX(durable[i], (highest[i] < COUNTERS -> highest[i] + 1 : COUNTERS))

/* A beat that is there may be lost, or come later. */
#ifndef CUTS
#define THROUGH(from, to) true
#endif
#if defined(PARTITIONS)
#define NOT_THROUGH(from, to) true
#define MISS(from, to) skip
#elif defined(ONE_WAY)
#define NOT_THROUGH(from, to) (from == 0 || missed[X(to, from)] < MISSED)
#define MISS(from, to) missed[X(to, from)] = (from == 0 -> 0 : missed[X(to, from)] + 1)
#elif defined(CUTS)
#define NOT_THROUGH(from, to) cut[X(from, to)]
#define THROUGH(from, to) !cut[X(from, to)]
#define MISS(from, to) skip
#else
#define NOT_THROUGH(from, to) (missed[X(to, from)] < MISSED)
#define MISS(from, to) missed[X(to, from)]++
#endif
#ifdef FLOW
#define IN_SET(i, j) && told[i] & 1 << j
#else
#define IN_SET(i, j)
#endif
#define HAS(i, j) (!(holding[i] & 1 << j) || acked[X(i, j)])
#if N > 2
#define RELEASABLE(i) (HAS(i, 0) && HAS(i, 1) && HAS(i, 2))
#else
#define RELEASABLE(i) (HAS(i, 0) && HAS(i, 1))
#endif

/* The old boot was silent for three intervals. */
#define AGREEABLE(i, j) (!new_boot[X(i, j)] || silent[X(i, j)] >= 3 || said[X(i, j)] == SAID_NOTHING)
#ifdef CUTS
#define UNCUT(i, j) && !cut[X(i, j)] && !cut[X(j, i)]
#else
#define UNCUT(i, j)
#endif
#define MAY_AGREE(i, j) (i < j && role[i] != DOWN && role[j] != DOWN && \
    (!session[X(i, j)] || diverged[X(i, j)] || diverged[X(j, i)]) && AGREEABLE(i, j) && AGREEABLE(j, i) UNCUT(i, j))

/* A way is cut or mended. */
#define CHANGE(i, j) \
    :: d_step { cuts > 0 -> \
            cuts--; \
            cut[X(i, j)] = !cut[X(i, j)]; \
            printf("what %d says reaches %d: %d\n", i, j, !cut[X(i, j)]) }

/* Members that miss a round with this tick, and sessions that both sides look out for. */
#define MISSES_ROUND(i) (role[i] != DOWN && gap[i] == 1 -> 1 : 0)
#if N > 2
#define ROUNDS_MISSED (MISSES_ROUND(0) + MISSES_ROUND(1) + MISSES_ROUND(2))
#define BOTH_LOOK(i, j) (MAY_AGREE(i, j) && gap[i] == 0 && gap[j] == 0)
#define OVERDUE (BOTH_LOOK(0, 1) || BOTH_LOOK(0, 2) || BOTH_LOOK(1, 2))
#else
#define ROUNDS_MISSED (MISSES_ROUND(0) + MISSES_ROUND(1))
#define OVERDUE (MAY_AGREE(0, 1) && gap[0] == 0 && gap[1] == 0)
#endif
#if defined(PARTITIONS) || defined(ONE_WAY)
#define TIMELY true
#else
#define TIMELY !OVERDUE         /* where a path works, a session is agreed in time */
#endif

/* The worker between a check and the transmit. */
#ifdef SEVERAL_WORKERS
#define COMES(from, to) (beat_age[X(from, to)] > 0)
#define LET_BEATS_GO(i)
#define BEHIND(i, j) 0
#else
#define COMES(from, to) (beat_age[X(from, to)] > 0 && !beat_held[X(from, to)])
/* One that left before the check is still on its way: what is said now waits for the worker, and is said again. */
#define BEHIND(i, j) (checked[i] > 0 && COMES(i, j))
#define LET_BEATS_GO(i) for (j : 0 .. N - 1) { beat_held[X(i, j)] = 0 } j = 0;
#endif
/* It led, and nobody hears that it follows while a worker may have a packet of before. */
#ifdef YIELDS_AT_ONCE
#define STOPS(i) 0
#else
#define STOPS(i) (!CLAIMS(role[i]) && checked[i] > 0)
#endif
#ifdef LEASE_NOT_CHECKED
#define COVERED(i) (role[i] == ACTIVE)
#define LAST_INSTANT(i) true
#else
#define COVERED(i) (lease[i] > 0)
#define LAST_INSTANT(i) (lease[i] == 1 || TO_YIELD(i))
#endif
#ifdef IN_TURN
/* Rounds within a tick go by number, but for those who stand still. */
#define TURN_OVER(i) (role[i] == DOWN || gap[i] != 1)
#define TURN(i) (i == 0 || TURN_OVER(0) && (i == 1 || TURN_OVER(1)))
#else
#define TURN(i) true
#endif

/* Believes no longer to be in sync. */
#ifdef FLOW
#define DOUBT(i) believes[i] = 0; owed[i] = 0
#else
#define DOUBT(i) believes[i] = 0
#endif

/* It is about to hear that it is outranked. */
#define YIELDS_TO(i, j) (COMES(j, i) && beat_role[X(j, i)] == CLAIM && beat_term[X(j, i)] > term[i])
#if HANDOVERS > 0
#define TO_YIELD(i) true
#elif N > 2
#define TO_YIELD(i) (YIELDS_TO(i, 0) || YIELDS_TO(i, 1) || YIELDS_TO(i, 2))
#else
#define TO_YIELD(i) (YIELDS_TO(i, 0) || YIELDS_TO(i, 1))
#endif
#define me (_pid - 1)

/* What passes between the workers of i and those of j, by their session. */
#define MIRRORED(i, j) (i != j && role[i] != DOWN && CLAIMS(role[i]) && role[j] == STANDBY && session[X(i, j)] && \
    !new_boot[X(i, j)] && !diverged[X(j, i)])
#define MIRROR(i, j) \
    :: d_step { MIRRORED(i, j) && known[i] && !known[j] -> \
            known[j] = 1; \
            printf("%d knows the flow\n", j) } \
    :: d_step { MIRRORED(i, j) && known[i] && known[j] && !acked[X(i, j)] -> \
            acked[X(i, j)] = 1; \
            printf("%d has the acknowledgement of %d\n", i, j) } \
    :: d_step { MIRRORED(i, j) && !walked[X(i, j)] && (!known[i] || acked[X(i, j)]) -> \
            walked[X(i, j)] = 1; \
            printf("%d reports that %d has all\n", i, j) }

/* The witness hears a request: it grants, and the answer comes or is lost; or nothing is asked for. */
#ifdef WITNESS
#ifdef FLOW
#define RECORD(i) \
    if \
    :: CLAIMS(role[i]) -> witness_term = MAX(witness_term, asked_term[i]) \
    :: else \
    fi;
#define LEARN(i) \
    heard_it[i] = 1; \
    highest[i] = MAX(highest[i], COUNTER(witness_term)); \
    if \
    :: CLAIMS(role[i]) -> \
        witness_knows[i] = witness_knows[i] || asked_term[i] == term[i]; \
        vouches[i] = vouches[i] || role[i] == ACTIVE && asked_term[i] == term[i] \
    :: !CLAIMS(role[i]) && !VOUCHED(i) -> DOUBT(i) \
    :: else \
    fi;
#define VOUCHED(i) (COUNTER(witness_term) == COUNTER(asked_term[i]) || \
    COUNTER(witness_term) < COUNTER(asked_term[i]) && vouches[i])
#define HEAR_IT(i) heard_it[i] = 1;
#define NEWS_TO(i) || !heard_it[i]
/* It led, and nobody else did since. */
#define UNBROKEN(i) && vouches[i] && witness_term <= term[i]
#define OUTDATED(i) (COUNTER(witness_term) > COUNTER(term[i]) && grant[i] < L)
#else
#define RECORD(i)
#define LEARN(i)
#define HEAR_IT(i)
#define NEWS_TO(i)
#define UNBROKEN(i)
#define OUTDATED(i) false
#endif
/* What was asked for since the lapse is granted: nobody else may send by its word, and nobody by this one's. */
#define REASSURED(i) (grant[i] < since[i] UNBROKEN(i))
#define ASK(i) \
    ANSWER(i) \
    :: d_step { asked[i] > 0 && gives_back[i] -> \
            holds = (holder == i -> 0 : holds); \
            holder = (holder == i -> N : holder); \
            HEAR_IT(i) \
            asked[i] = 0; \
            printf("the witness hears that %d asks for nothing\n", i) } \
    :: d_step { asked[i] > 0 && !gives_back[i] && (holds == 0 || holder == i WITNESS_LAX) -> \
            holder = i; holds = T; RECORD(i) LEARN(i) \
            GRANT(i); \
            asked[i] = 0; \
            printf("the witness grants to %d\n", i) } \
    :: d_step { asked[i] > 0 && !gives_back[i] && (holds == 0 || holder == i WITNESS_LAX) && holds < T -> \
            holder = i; holds = T; RECORD(i) \
            asked[i] = 0; \
            printf("the witness grants to %d, but the answer is lost\n", i) }
#ifdef FLOW
#define FORGET() \
    witness_term = 0; \
    for (x : 0 .. N - 1) { \
        heard_it[x] = 0; \
        vouches[x] = 0 \
    } \
    x = 0;
#else
#define FORGET()
#endif
#ifdef FROM_ANSWER
/* The answer comes at any time, and counts from then. */
#define GRANT(i) answer[i] = 1
#define ANSWER(i) :: d_step { answer[i] && role[i] != DOWN -> answer[i] = 0; grant[i] = 0 }
#else
#define GRANT(i) grant[i] = MIN(grant[i], asked[i] - 1)
#define ANSWER(i)
#endif
#ifdef WITNESS_HASTY
#define START_WAIT 0            /* It grants at once after a start. */
#else
#define START_WAIT T
#endif
#ifdef WITNESS_GRANTS_TWICE
#define WITNESS_LAX || true
#else
#define WITNESS_LAX
#endif
#endif

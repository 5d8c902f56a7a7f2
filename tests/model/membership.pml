#ifdef FLOW
/* Who comes into the in-sync set, and who goes (membership.rs). */

/* removal_known, into go. */
inline removal_known(i) {
    go = 1;
    for (y : 0 .. N - 1) {
        if
        :: y != i && (y == whom[i] || told[i] & 1 << y) ->
            go = go && (y == whom[i] && (excused[i] || lost_peer[X(i, y)] FORGETS(i)) || KNOWS(i, y)
                UNTOLD(i, y) || change_age[i] >= 2 && IS_SILENT(i, y) WITNESSED(i, y))
        :: else
        fi
    }
    y = 0
}

inline remove(i, j) {
#ifndef TERM_NOT_RAISED
    take_term(i);
#endif
    told[i] = told[i] & ~(1 << j);
    printf("%d removes %d from the set, term %d\n", i, j, COUNTER(term[i]));
    change[i] = REMOVING;
    whom[i] = j;
    change_age[i] = 0;
    excused[i] = lost_peer[X(i, j)];
    lost_peer[X(i, j)] = 0;
    walked[X(i, j)] = 0;
#ifdef WITNESS
    witness_knows[i] = 0;
#endif
    end_removal(i)
}

inline end_removal(i) {
    removal_known(i);
    if
    :: go ->
        printf("%d holds no longer for %d\n", i, whom[i]);
        clear_change(i);
        holding[i] = told[i]
    :: else
    fi;
    go = 0
}

/* may: what is left to chance happens. */
inline membership(i) {
    if
    :: change[i] == NO_CHANGE ->
        for (y : 0 .. N - 1) {
            if
            :: y != i && change[i] == NO_CHANGE && told[i] & 1 << y && highest[i] < COUNTERS && RESERVED(i) &&
               (lost_peer[X(i, y)] || IS_SILENT(i, y) || may && slow > 0) ->
                slow = slow - (lost_peer[X(i, y)] || IS_SILENT(i, y) -> 0 : 1);
                x = y;
                remove(i, x);
                y = x;
                x = 0
            :: y != i && change[i] == NO_CHANGE && ADMISSIBLE(i, y) ->
                lost_peer[X(i, y)] = 0;
                change[i] = ADMITTING;
                whom[i] = y;
                older[i] = known[i];
                holding[i] = told[i] | 1 << y;
                printf("%d holds for %d\n", i, y)
            :: else
            fi
        }
        y = 0
    :: change[i] == ADMITTING ->
        if
        :: !ADMISSIBLE(i, whom[i]) ->
            clear_change(i);
            holding[i] = told[i]
        :: ADMISSIBLE(i, whom[i]) && may HAS_ALL(i, whom[i]) ->
            told[i] = told[i] | 1 << whom[i];
            printf("%d tells %d that it is in sync\n", i, whom[i]);
            clear_change(i)
        :: else
        fi
    :: change[i] == REMOVING -> end_removal(i)
    fi
}
#endif

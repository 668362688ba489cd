/* The throughput mode inside a node, as docs/protocol.md states it: RANKS ranks make CALLS calls, each a dispatch whose rows
 * go directly, one whose receivers answer, or a combine. A word is the number of its call, from 1; 0: never written. With
 * SKIPS as on the CPU engine: a rank may have no rows for another, then says nothing and is not waited for, and what opens a
 * call has two places. Without it as on the CUDA engine: all wait for all, and a warp besides reads counts.
 * ./dev model checks it: no deadlock (invalid end states), no stale or torn read (assertions), and that each of the seeded
 * bugs is found:
 *   BUG=1  a rank arrives while its publisher still reads what peers wrote into its control block
 *   BUG=2  a source does not wait for the arrival of all before its next call
 *   BUG=3  an announce may overtake the counts
 *   BUG=4  a receiver announces its block while its caller still reads the rows of the call before
 *   BUG=5  a rank changes its outputs before all have read them
 *   BUG=6  with SKIPS: what opens a call has one place
 */
#ifndef RANKS
#define RANKS 3
#endif
#ifndef CALLS
#define CALLS 3
#endif
#ifndef BUG
#define BUG 0
#endif

#define AT(owner, writer) ((owner) * RANKS + (writer))
#if defined(SKIPS) && BUG != 6
#define PLACES 2
#else
#define PLACES 1
#endif
#define OPENS(owner, writer, e) (AT(owner, writer) * PLACES + (e) % PLACES)

byte announced[RANKS * RANKS * PLACES]; /* OPENS(rank, source): DeviceAnnounce.epoch, or Announce.epoch */
byte counts[RANKS * RANKS * PLACES];    /* the same: counts and totals, of which call */
bool some[RANKS * RANKS * PLACES];      /* the same: whether the source has rows for the rank */
bool sends[RANKS * RANKS];              /* AT(source, receiver): what the source knows of that */
bool gets[RANKS * RANKS];               /* AT(receiver, source): what the receiver has read of it */
byte answered[RANKS * RANKS];  /* AT(source, receiver) */
byte rows[RANKS * RANKS];      /* AT(receiver, source): whose rows lie in the receiver's one block */
byte arrived[RANKS * RANKS];   /* AT(receiver, source) */
byte outputs[RANKS];           /* what a combine reads at a rank */
byte finished[RANKS * RANKS];      /* AT(rank, peer) */
byte to_publish[RANKS];        /* the call whose counts this rank's publisher is to read */
byte published[RANKS];         /* the last whose counts it has read */
byte unread[RANKS];            /* the call whose rows the caller has not read yet; 0: none */

/* In order of ranks: which of them comes first at a peer makes no difference to the others. */
#define EACH(peer, action)                        \
  peer = 0;                                       \
  do                                              \
  :: peer < RANKS -> action; peer++               \
  :: else -> break                                \
  od

/* A flag of each peer, as soon as it is there. */
#define WAIT(peer, flag, e)                       \
  peer = 0;                                       \
  do                                              \
  :: atomic { peer < RANKS && flag >= e -> peer++ } \
  :: peer == RANKS -> break                       \
  od

/* Counts, then the announce; with BUG 3 in either order. */
inline announce(e) {
  EACH(peer, put_announce(e))
}

inline put_counts(e) {
  atomic {
    counts[OPENS(peer, me, e)] = e;
#ifdef SKIPS
    if
    :: sends[AT(me, peer)] = true
    :: sends[AT(me, peer)] = false
    fi;
#else
    sends[AT(me, peer)] = true;
#endif
    some[OPENS(peer, me, e)] = sends[AT(me, peer)]
  }
}

inline put_announce(e) {
#if BUG == 3
  if
  :: put_counts(e); announced[OPENS(peer, me, e)] = e
  :: announced[OPENS(peer, me, e)] = e; put_counts(e)
  fi
#else
  put_counts(e);
  announced[OPENS(peer, me, e)] = e
#endif
}

inline read_counts(e) {
  EACH(peer, atomic { assert(counts[OPENS(me, peer, e)] == e); gets[AT(me, peer)] = some[OPENS(me, peer, e)] })
}

/* Something for each rank that this one has rows for. */
inline give(place, e) {
  EACH(peer, if :: sends[AT(me, peer)] -> place = e :: else fi)
}

/* Tensors of a result are read in the order of the stream: after the call, and before the next one begins. */
inline read_rows() {
  if
  :: unread[me] != 0 ->
     EACH(peer, assert(!gets[AT(me, peer)] || rows[AT(me, peer)] == unread[me]));
     unread[me] = 0
  :: else
  fi
}

inline dispatch(e, directly) {
#if BUG != 4
  read_rows();
#endif
  announce(e);
  WAIT(peer, announced[OPENS(me, peer, e)], e);
#if BUG == 4
  read_rows();
#endif
  read_counts(e);
  if
  :: directly ->
#ifndef SKIPS
     to_publish[me] = e
#endif
  :: else ->
     EACH(peer, answered[AT(peer, me)] = e);
     WAIT(peer, answered[AT(me, peer)], e)
  fi;
  give(rows[AT(peer, me)], e);
#if BUG != 1
  (published[me] == to_publish[me]);
#endif
  give(arrived[AT(peer, me)], e);
#if BUG != 2
  WAIT(peer, (gets[AT(me, peer)] -> arrived[AT(me, peer)] : e), e);
#endif
  unread[me] = e
}

inline combine(e) {
  read_rows();
  outputs[me] = e;
  EACH(peer, announced[OPENS(peer, me, e)] = e);
  WAIT(peer, announced[OPENS(me, peer, e)], e);
  EACH(peer, assert(!sends[AT(me, peer)] || outputs[peer] == e));
  give(finished[AT(peer, me)], e);
#if BUG != 5
  WAIT(peer, (gets[AT(me, peer)] -> finished[AT(me, peer)] : e), e)
#endif
}

/* Calls are collective: whoever comes first to one decides which it is. */
mtype = { direct, answers, sums };
mtype program[CALLS + 1]; /* 0: not decided yet */

active [RANKS] proctype rank_() {
  byte me = _pid;
  byte peer, call;
  do
  :: call < CALLS ->
     call++;
     atomic {
       if
       :: program[call] != 0
       :: program[call] == 0 -> program[call] = direct
       :: program[call] == 0 -> program[call] = answers
       :: program[call] == 0 -> program[call] = sums
       fi
     }
     if
     :: program[call] == direct -> dispatch(call, true)
     :: program[call] == answers -> dispatch(call, false)
     :: program[call] == sums -> combine(call)
     fi
  :: else -> break
  od
}

/* The warp that notes what its rank receives, while the others move rows. */
active [RANKS] proctype publisher() {
  byte me = _pid - RANKS;
  byte peer;
end:
  do
  :: to_publish[me] > published[me] ->
     EACH(peer, assert(counts[OPENS(me, peer, to_publish[me])] == to_publish[me]));
     published[me] = to_publish[me]
  od
}

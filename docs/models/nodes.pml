/* The throughput mode between nodes, as docs/protocol.md states it ("The model between nodes"): RANKS ranks make CALLS
 * calls, each a dispatch or a combine, over ports (src/scale_out/port.hpp). One rank a node; with UNEVEN a node of ranks
 * 0 and 1 and one of rank 2, where letters that open a call go one way only between ranks 1 and 2. Every write is an
 * event of its own that comes when it likes: nothing between writes is ordered, and a rank that is in no call takes
 * none. Memory changes when a write is posted, which is the earliest that it can. A write leaves at once; with SLOW only
 * when it is taken, which is the latest, and both ends must be in a call for that.
 * ./dev model checks it: no deadlock (invalid end states), nothing overwritten that is still to be read, nothing taken
 * for what it is not, no two ranks for which a call ends differently (assertions), and that each of the seeded bugs is
 * found:
 *   BUG=1   a slot is given back before its chunk has been placed
 *   BUG=2   what comes before its half of the call has begun is not parked
 *   BUG=3   arrivals carry no epoch: something has come
 *   BUG=4   letters have one place
 *   BUG=5   a rank that knows of a refusal leaves without the verdicts of all
 *   BUG=6   chunks that a refused call has left are not given back
 *   BUG=7   a chunk that comes when its call has ended is not given back
 *   BUG=8   letters have two places: one for those that open a call, one for verdicts
 *   BUG=9   with SLOW: a refused call waits until its chunks have left
 *   BUG=10  a dispatch does not wait for verdicts
 *   BUG=11  with SLOW: a call that a rank refuses to take part in ends before its letters have left
 */
#ifndef RANKS
#define RANKS 2
#endif
#ifndef CALLS
#define CALLS 3
#endif
#ifndef SLOTS
#define SLOTS 1
#endif
#ifndef CHUNKS
#define CHUNKS 1
#endif
#ifndef BUG
#define BUG 0
#endif

#if BUG == 4
#define PLACES 1
#elif BUG == 8
#define PLACES 2
#else
#define PLACES 4
#endif

/* Who serves whom: y is x's rail peer on y's node. */
#ifdef UNEVEN
#define NODES 2
#define NODE(r) ((r) / 2)
#define SERVES(y, x) (NODE(x) != NODE(y) && (y) != 1)
#else
#define NODES RANKS
#define NODE(r) (r)
#define SERVES(y, x) ((x) != (y))
#endif
#define NEIGHBOURS(x, y) (SERVES(x, y) || SERVES(y, x))

#define AT(owner, writer) ((owner) * RANKS + (writer))
#define LETTER(owner, writer, place) (AT(owner, writer) * PLACES + (place))
#define SLOT(owner, writer, s) (AT(owner, writer) * SLOTS + (s))

/* The halves of a call are the epochs of the port. */
#define OPENING(e) (2 * (e))
#define ROWS(e) (2 * (e) + 1)

byte epoch[RANKS];                   /* of the port */
bool polls[RANKS];                   /* the rank is in a call, and takes what comes */
byte letter[RANKS * RANKS * PLACES]; /* the letter of which epoch lies there, to be read; 0: none */
bool letter_flies[RANKS * RANKS * PLACES];
mtype = { flies, here, credit_flies, lost };
mtype slot[RANKS * RANKS * SLOTS];   /* 0: free */
byte chunk[RANKS * RANKS * SLOTS];   /* the chunk of which epoch lies there, to be placed; 0: none */
byte met[RANKS];                     /* how many meetings of its node the rank has come to */

/* What is said in a call, by its parity. Letters bring it: it is read by those only who have them. */
#define SAID(e, r) ((e) % 2 * RANKS + (r))
bool refuses[2 * RANKS]; /* the rank, to take part */
byte amount[2 * RANKS];  /* of the rank's chunks for each neighbour */
bool no_room[2 * RANKS]; /* on the node */

/* Everybody may say anything. With FEW one rank may refuse, another have no chunks, and one node have no room. With SHORT
 * besides rank 0 alone has chunks, and rank 1 refuses the last call. */
#ifdef FEW
#define MAY_REFUSE(r) ((r) == 1)
#define MAY_LACK_ROOM(node) ((node) == NODES - 1)
#else
#define MAY_REFUSE(r) true
#define MAY_LACK_ROOM(node) true
#endif
#ifdef SHORT
#define MAY_SEND(r) ((r) == 0)
#define MAY_BE_IDLE(r) ((r) == 2 || ((r) == 1 && call < CALLS))
#elif defined(FEW)
#define MAY_SEND(r) true
#define MAY_BE_IDLE(r) ((r) == 2)
#else
#define MAY_SEND(r) true
#define MAY_BE_IDLE(r) true
#endif

/* Calls are collective: whoever comes first to one decides which it is. It must end alike on all. */
mtype = { dispatch, combine };
mtype kind[2];
byte ended[2], outcome[2];

#define EACH(r, action)          \
  r = 0;                         \
  do                             \
  :: r < RANKS -> action; r++    \
  :: else -> r = 0; break        \
  od

inline give_back(at) {
  chunk[at] = 0;
  slot[at] = credit_flies
}

/* Chunks of earlier epochs that nobody has taken are given back; letters of before are nobody's any more. */
inline forget(n, r) {
  i = 0;
  do
  :: i < SLOTS ->
     if
     :: slot[SLOT(me, r, i)] == here && chunk[SLOT(me, r, i)] < n && BUG != 6 -> give_back(SLOT(me, r, i))
     :: else
     fi;
     i++
  :: else -> i = 0; break
  od;
  do
  :: i < PLACES ->
     if
     :: !letter_flies[LETTER(me, r, i)] && letter[LETTER(me, r, i)] < n -> letter[LETTER(me, r, i)] = 0
     :: else
     fi;
     i++
  :: else -> i = 0; break
  od
}

inline begin(n) {
  epoch[me] = n;
  EACH(peer, forget(n, peer))
}

inline put_letter(n, r) {
  assert(letter[LETTER(r, me, (n) % PLACES)] == 0);
  letter[LETTER(r, me, (n) % PLACES)] = n;
  letter_flies[LETTER(r, me, (n) % PLACES)] = true
}

inline take_letter(n, r) {
  assert(letter[LETTER(me, r, (n) % PLACES)] == n);
  letter[LETTER(me, r, (n) % PLACES)] = 0
}

#if BUG == 3
#define IS_OF(epoch, n) (epoch != 0)
#else
#define IS_OF(epoch, n) (epoch == (n))
#endif
#define LETTER_HERE(n, r) (IS_OF(letter[LETTER(me, r, (n) % PLACES)], n) && !letter_flies[LETTER(me, r, (n) % PLACES)])
#define CHUNK_HERE(n, r, s) (slot[SLOT(me, r, s)] == here && IS_OF(chunk[SLOT(me, r, s)], n))

/* Ranks of a node wait for one another. */
inline meet() {
#ifdef UNEVEN
  met[me]++;
  (NODE(me) == 1 || met[1 - me] >= met[me])
#else
  skip
#endif
}

/* Letters to those that serve this rank, and from those that it serves; then the announces of its node. */
inline open() {
  atomic {
    begin(OPENING(call));
    EACH(peer, if :: SERVES(peer, me) -> put_letter(OPENING(call), peer) :: else fi)
  };
  do
  :: atomic { peer < RANKS && SERVES(me, peer) && LETTER_HERE(OPENING(call), peer) ->
     take_letter(OPENING(call), peer);
     peer++ }
  :: atomic { peer < RANKS && !SERVES(me, peer) -> peer++ }
  :: atomic { peer == RANKS -> peer = 0; break }
  od;
  meet()
}

/* A dispatch: each node has room for what comes, or has not, and tells all neighbours. */
inline judge() {
  atomic {
    begin(ROWS(call));
    if
    :: me == 0 || NODE(me) != NODE(me - 1) ->
       if
       :: MAY_LACK_ROOM(NODE(me)) -> no_room[SAID(call, NODE(me))] = true
       :: skip
       fi
    :: else
    fi
  };
  meet();
  atomic {
    hear(me);
    EACH(peer, if :: NEIGHBOURS(me, peer) -> put_letter(ROWS(call), peer); awaits[peer] = true; awaited++ :: else fi)
  }
}

/* The first node without room is named, whoever is heard first. */
inline hear(r) {
  if
  :: no_room[SAID(call, NODE(r))] && NODE(r) < refused -> refused = NODE(r)
  :: else
  fi
}

/* Chunks of this rank's tokens go to those that serve it; in a combine they come back. */
inline count_chunks() {
  EACH(peer,
    left[peer] = ((what == dispatch -> SERVES(peer, me) : SERVES(me, peer)) -> amount[SAID(call, me)] : 0);
    due[peer] = ((what == dispatch -> SERVES(me, peer) : SERVES(peer, me)) -> amount[SAID(call, peer)] : 0);
    todo = todo + left[peer] + due[peer])
}

/* What can be done next with one neighbour and slot. */
#define SEND_CHUNK(n, r, s)                                        \
  atomic {                                                         \
    left[r] > 0 && slot[SLOT(r, me, s)] == 0 ->                    \
    assert(chunk[SLOT(r, me, s)] == 0);                            \
    chunk[SLOT(r, me, s)] = n;                                     \
    slot[SLOT(r, me, s)] = flies;                                  \
    left[r]--;                                                     \
    todo--                                                         \
  }
#if BUG == 1
#define PLACE_CHUNK(n, r, s)                                       \
  atomic { due[r] > 0 && CHUNK_HERE(n, r, s) -> slot[SLOT(me, r, s)] = credit_flies }; \
  atomic { assert(chunk[SLOT(me, r, s)] == n); chunk[SLOT(me, r, s)] = 0; due[r]--; todo-- }
#else
#define PLACE_CHUNK(n, r, s)                                       \
  atomic {                                                         \
    due[r] > 0 && CHUNK_HERE(n, r, s) ->                           \
    assert(chunk[SLOT(me, r, s)] == n);                            \
    give_back(SLOT(me, r, s));                                     \
    due[r]--;                                                      \
    todo--                                                         \
  }
#endif
#define READ_VERDICT(n, r)                                         \
  atomic {                                                         \
    awaits[r] && LETTER_HERE(n, r) ->                              \
    take_letter(n, r);                                             \
    awaits[r] = false;                                             \
    awaited--;                                                     \
    hear(r)                                                        \
  }
#if SLOTS > 1
#define WITH(n, r)                                                                                   \
  :: SEND_CHUNK(n, r, 0) :: SEND_CHUNK(n, r, 1) :: PLACE_CHUNK(n, r, 0) :: PLACE_CHUNK(n, r, 1)      \
  :: READ_VERDICT(n, r)
#else
#define WITH(n, r) :: SEND_CHUNK(n, r, 0) :: PLACE_CHUNK(n, r, 0) :: READ_VERDICT(n, r)
#endif

#if BUG == 5
#define DECIDED (awaited == 0 || refused < NODES)
#elif BUG == 10
#define DECIDED true
#else
#define DECIDED (awaited == 0)
#endif

/* In any order, until all is decided, and has moved. */
inline move(n) {
  do
  :: atomic { DECIDED && (refused < NODES || todo == 0) -> break }
  WITH(n, 0)
  WITH(n, 1)
#if RANKS > 2
  WITH(n, 2)
#endif
  od
}

/* What was sent in this call has left; letters alone when the call is refused. With BUG 9 chunks always, and those of a
 * refused call before, too. */
#if BUG == 9
#define LEAVES_NOW(at) (slot[at] == flies)
#else
#define LEAVES_NOW(at) (slot[at] == flies && chunk[at] == epoch[me])
#endif
#define FLIES(r, place) letter_flies[LETTER(r, me, (place) % PLACES)]
#define LETTER_LEAVES(r) (FLIES(r, 0) || FLIES(r, 1) || FLIES(r, 2) || FLIES(r, 3))
#if SLOTS > 1
#define CHUNK_LEAVES(r) (LEAVES_NOW(SLOT(r, me, 0)) || LEAVES_NOW(SLOT(r, me, 1)))
#else
#define CHUNK_LEAVES(r) LEAVES_NOW(SLOT(r, me, 0))
#endif
#define ANY_LEAVES(what) (what(0) || what(1) || what(RANKS - 1))
inline finish(is_refused) {
#ifdef SLOW
  !(ANY_LEAVES(LETTER_LEAVES) || ((!(is_refused) || BUG == 9) && ANY_LEAVES(CHUNK_LEAVES)))
#else
  skip
#endif
}

#define GOES_WELL 1
#define REFUSED_BY_RANK(r) (2 + (r))
#define REFUSED_BY_NODE(r) (2 + RANKS + (r))

/* Whoever ends a call last forgets what was said. */
inline conclude(how) {
  atomic {
    assert(outcome[call % 2] == 0 || outcome[call % 2] == how);
    outcome[call % 2] = how;
    ended[call % 2]++;
    if
    :: ended[call % 2] == RANKS ->
       ended[call % 2] = 0;
       outcome[call % 2] = 0;
       kind[call % 2] = 0;
       EACH(peer, refuses[SAID(call, peer)] = false; amount[SAID(call, peer)] = 0; no_room[SAID(call, peer)] = false)
    :: else
    fi;
    polls[me] = false;
    EACH(peer, awaits[peer] = false; left[peer] = 0; due[peer] = 0);
    awaited = 0;
    todo = 0;
    refused = NODES;
    what = 0
  }
}

proctype rank_(byte me) {
  byte call, peer, i, awaited, todo;
  byte refused = NODES;
  bool awaits[RANKS];
  byte left[RANKS];
  byte due[RANKS];
  mtype what;
  do
  :: call < CALLS ->
     atomic {
       call++;
       polls[me] = true;
       if
       :: kind[call % 2] != 0
       :: kind[call % 2] == 0 -> kind[call % 2] = dispatch
       :: kind[call % 2] == 0 -> kind[call % 2] = combine
       fi;
       what = kind[call % 2];
       if
       :: MAY_REFUSE(me) -> refuses[SAID(call, me)] = true
       :: MAY_BE_IDLE(me)
       :: MAY_SEND(me) -> amount[SAID(call, me)] = CHUNKS
       fi
     }
     open();
     atomic {
       do
       :: peer < RANKS && !refuses[SAID(call, peer)] -> peer++
       :: else -> break
       od;
       i = peer;
       peer = 0
     };
     if
     :: i < RANKS ->
#if BUG != 11
        finish(true);
#endif
        conclude(REFUSED_BY_RANK(i));
        i = 0
     :: i == RANKS && what == dispatch ->
        i = 0;
        judge();
        atomic { if :: !no_room[SAID(call, NODE(me))] -> count_chunks() :: else fi };
        move(ROWS(call));
        finish(refused < NODES);
        if
        :: refused < NODES -> conclude(REFUSED_BY_NODE(refused))
        :: else -> conclude(GOES_WELL)
        fi
     :: i == RANKS && what == combine ->
        i = 0;
        atomic { count_chunks() };
        move(OPENING(call));
        finish(false);
        conclude(GOES_WELL)
     fi
  :: else -> break
  od
}

/* What is under way from a writer to a reader, and its credits. */
#if BUG == 2
#define PARKED(n) (n <= epoch[reader])
#else
#define PARKED(n) true
#endif

#ifdef SLOW
#define MOVES (polls[reader] && polls[writer])
#else
#define MOVES polls[reader]
#endif
#define TAKE_LETTER(at)                                                                              \
  atomic {                                                                                           \
    MOVES && letter_flies[at] ->                                                                     \
    letter_flies[at] = false;                                                                        \
    if                                                                                               \
    :: BUG == 3 || (letter[at] >= epoch[reader] && PARKED(letter[at]))                               \
    :: else -> letter[at] = 0                                                                        \
    fi                                                                                               \
  }
#define TAKE_CHUNK(at)                                                                               \
  atomic {                                                                                           \
    MOVES && slot[at] == flies ->                                                                    \
    if                                                                                               \
    :: BUG == 3 || (chunk[at] >= epoch[reader] && PARKED(chunk[at])) -> slot[at] = here              \
    :: else -> chunk[at] = 0; slot[at] = (BUG == 7 -> lost : credit_flies)                           \
    fi                                                                                               \
  }
#ifdef SLOW
#define COMES_BACK (polls[reader] && polls[writer])
#else
#define COMES_BACK polls[writer]
#endif
#define TAKE_CREDIT(at) atomic { COMES_BACK && slot[at] == credit_flies -> slot[at] = 0 }

proctype wire(byte reader; byte writer) {
end:
  do
  :: TAKE_LETTER(LETTER(reader, writer, 0))
#if PLACES > 1
  :: TAKE_LETTER(LETTER(reader, writer, 1))
#endif
#if PLACES > 2
  :: TAKE_LETTER(LETTER(reader, writer, 2))
  :: TAKE_LETTER(LETTER(reader, writer, 3))
#endif
  :: TAKE_CHUNK(SLOT(reader, writer, 0))
  :: TAKE_CREDIT(SLOT(reader, writer, 0))
#if SLOTS > 1
  :: TAKE_CHUNK(SLOT(reader, writer, 1))
  :: TAKE_CREDIT(SLOT(reader, writer, 1))
#endif
  od
}

init {
  atomic {
    byte reader, writer;
    for (reader : 0 .. RANKS - 1) {
      run rank_(reader);
      for (writer : 0 .. RANKS - 1) {
        if
        :: NEIGHBOURS(reader, writer) -> run wire(reader, writer)
        :: else
        fi
      }
    }
  }
}

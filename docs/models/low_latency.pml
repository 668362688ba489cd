/* The epoch protocol of the low-latency mode, as docs/low-latency.md states it: RANKS ranks, FRAMES results that may be
 * outstanding, EPOCHS dispatches, COMBINES combines of each. A word is its epoch, or the number of its combine, plus 1; 0:
 * never written. ./dev model checks it: no deadlock (invalid
 * end states), no stale or torn read (assertions), and that each of the seeded bugs is found:
 *   BUG=1  a source does not wait for the receiver's credit
 *   BUG=2  the flag may overtake the rows
 *   BUG=3  a receiver gives its frame back while its owner still holds the result
 *   BUG=4  a flag says "something came", not which epoch
 *   BUG=5  a result is released, and its frame used again, before its combine is received
 *   BUG=6  with COMBINES above 1: outputs are written anew without waiting for those who read the ones before
 */
#ifndef RANKS
#define RANKS 3
#endif
#ifndef FRAMES
#define FRAMES 2
#endif
#ifndef EPOCHS
#define EPOCHS 4
#endif
#ifndef COMBINES
#define COMBINES 1
#endif
#ifndef BUG
#define BUG 0
#endif

#define FRAME(e) ((e) % FRAMES)
#define AT(a, b, f) (((a) * RANKS + (b)) * FRAMES + (f))

byte rows[RANKS * RANKS * FRAMES];     /* AT(receiver, source, frame): whose rows lie in the slots */
byte arrived[RANKS * RANKS * FRAMES];  /* the same: flag beside the rows */
byte credit[RANKS * RANKS * FRAMES];   /* AT(source, receiver, frame): epochs + FRAMES that may be written */
byte outputs[RANKS * FRAMES];          /* what the experts of a rank made of a frame's rows */
byte ready[RANKS * RANKS * FRAMES];    /* AT(owner of tokens, receiver, frame): these outputs can be read */
#if COMBINES > 1
byte read_before[RANKS * RANKS * FRAMES]; /* AT(receiver, owner of tokens, frame): it has read the outputs before these */
#endif

#if BUG == 4
#define HAS(flag, e) (flag != 0)
#else
#define HAS(flag, e) (flag == (e) + 1)
#endif

/* Rows, then their flag; with BUG 2 in either order. */
inline put(place, value) {
#if BUG == 2
  if
  :: rows[place] = value; arrived[place] = value
  :: arrived[place] = value; rows[place] = value
  fi
#else
  rows[place] = value;
  arrived[place] = value
#endif
}

/* Send half of a dispatch. The first FRAMES epochs find frames that nobody has used. */
inline send_rows(e) {
  do
  :: peer < RANKS ->
#if BUG != 1
     (e < FRAMES || credit[AT(me, peer, FRAME(e))] >= e + 1);
#endif
     put(AT(peer, me, FRAME(e)), e + 1);
     peer++
  :: else -> peer = 0; break
  od
}

/* Receive half: all sources are there, and their rows are of this epoch. */
inline receive_rows(e) {
  do
  :: atomic { peer < RANKS && HAS(arrived[AT(me, peer, FRAME(e))], e) ->
     assert(rows[AT(me, peer, FRAME(e))] == e + 1);
     peer++ }
  :: peer == RANKS -> peer = 0; break
  od
}

inline give_back(e) {
  do
  :: atomic { peer < RANKS -> credit[AT(peer, me, FRAME(e))] = e + FRAMES + 1; peer++ }
  :: peer == RANKS -> peer = 0; break
  od
}

/* Combine number c: of which dispatch. */
#define OF(c) ((c) / COMBINES)

/* In a combine that is not the first of its dispatch all ranks meet: each has read the outputs of the one before. */
inline meet_readers(c) {
#if COMBINES > 1 && BUG != 6
  if
  :: (c) % COMBINES != 0 ->
     do
     :: atomic { peer < RANKS -> read_before[AT(peer, me, FRAME(OF(c)))] = c + 1; peer++ }
     :: peer == RANKS -> peer = 0; break
     od;
     do
     :: atomic { peer < RANKS && HAS(read_before[AT(me, peer, FRAME(OF(c)))], c) -> peer++ }
     :: peer == RANKS -> peer = 0; break
     od
  :: else
  fi
#else
  skip
#endif
}

/* Send half of a combine: what the experts made of the rows lies in the frame, and all ranks learn of it. Outputs and flag in
 * one step: what the order of the two is for, the dispatch shows. */
inline send_outputs(c) {
#if BUG == 3
  give_back(OF(c));
#endif
  meet_readers(c);
  outputs[me * FRAMES + FRAME(OF(c))] = c + 1;
  do
  :: atomic { peer < RANKS ->
     assert(rows[AT(me, peer, FRAME(OF(c)))] == OF(c) + 1);
     ready[AT(peer, me, FRAME(OF(c)))] = c + 1;
     peer++ }
  :: peer == RANKS -> peer = 0; break
  od
}

/* The owner of a result releases it; until then the rows are whole. */
inline release(e) {
  do
  :: atomic { peer < RANKS -> assert(rows[AT(me, peer, FRAME(e))] == e + 1); peer++ }
  :: peer == RANKS -> peer = 0; break
  od;
#if BUG != 3
  give_back(e);
#endif
}

/* Receive half of a combine: outputs are read where they lie. The flag first, and then, others having moved on, the
 * outputs. */
inline receive_outputs(c) {
  do
  :: peer < RANKS && HAS(ready[AT(me, peer, FRAME(OF(c)))], c) ->
     assert(outputs[peer * FRAMES + FRAME(OF(c))] == c + 1);
     peer++
  :: peer == RANKS -> peer = 0; break
  od
}

/* Calls are collective: all ranks make the same halves in the same order. Which order, whoever comes first to a step
 * decides: any that the interface allows, that is each kind in order of epochs, a half after the one that it needs, and no
 * more results outstanding than there are frames. Without ANY_ORDER only sends run ahead, and a result is released before
 * the next is received: fewer states. (Ranks with orders of their own do end in a deadlock: -DFREE with ANY_ORDER.) */
mtype = { send, receive, combine, finish, release_result };
#define STEPS ((3 + 2 * COMBINES) * EPOCHS)
mtype program[STEPS]; /* 0: not decided yet */
/* Combines of a dispatch come one after another. */
#define MAY_COMBINE (combined < received * COMBINES && (combined % COMBINES == 0 || done == combined))

active [RANKS] proctype rank_() {
  byte me = _pid;
  byte peer, step;
  byte sent, received, combined, done, released;
  mtype next;
  do
  :: step < STEPS ->
     atomic {
#ifdef FREE
       next = 0;
#else
       next = program[step];
#endif
       if
       :: next != 0
       :: next == 0 && sent < EPOCHS && sent - released < FRAMES -> next = send
#ifdef ANY_ORDER
       :: next == 0 && received < sent -> next = receive
       :: next == 0 && MAY_COMBINE -> next = combine
       :: next == 0 && done < combined -> next = finish
#if BUG == 5
       :: next == 0 && (released + 1) * COMBINES <= combined -> next = release_result
#else
       :: next == 0 && (released + 1) * COMBINES <= done -> next = release_result
#endif
#else
       :: next == 0 && received < sent && received == released -> next = receive
       :: next == 0 && MAY_COMBINE -> next = combine
       :: next == 0 && done < combined -> next = finish
       :: next == 0 && (released + 1) * COMBINES <= done -> next = release_result
#endif
       fi;
       program[step] = next;
       step++
     }
     if
     :: next == send -> send_rows(sent); sent++
     :: next == receive -> receive_rows(received); received++
     :: next == combine -> send_outputs(combined); combined++
     :: next == finish -> receive_outputs(done); done++
     :: next == release_result -> release(released); released++
     fi;
     next = 0
  :: else -> break
  od
}

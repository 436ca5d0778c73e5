"""Mistakes in lanes over sockets: what is sent, what is believed, and how lanes come about."""

from __future__ import annotations

from tests.mutants import Mutant

_LANES = ("tests/unit/fabric/test_stream_lanes.py",)
_QUEUE = ("tests/unit/fabric/test_stream_queue.py",)
_WORDS = ("tests/unit/fabric/test_stream_words.py",)
_APART = ("tests/unit/service/test_apart.py",)
_PAIRS = ("tests/unit/fabric/test_stream_pairs.py",)
_FUZZED = ("tests/faults/test_fuzzed_stream.py::test_no_input_does_what_none_may",)
_STOPS = ("tests/faults/test_stops_reading.py",)
_SESSION = ("tests/unit/rpmemd/test_session_stream.py",)

MUTANTS = (
    Mutant(
        "any frame may name a processor",
        "begin",
        "(frame.processor and frame.kind != FRAME_MESSAGE)",
        "False",
        _LANES,
    ),
    Mutant(
        "any frame may ask",
        "begin",
        "(frame.flags and frame.kind != FRAME_WRITE)",
        "False",
        _LANES,
    ),
    Mutant(
        "a message may name a place",
        "begin",
        "elif frame.offset:",
        "elif False:",
        _LANES,
    ),
    Mutant(
        "a frame may reach across the end of the memory",
        "begin",
        "is_outside(frame.offset, frame.length, 0, own.exposed_size)",
        "frame.offset >= own.exposed_size",
        _LANES,
    ),
    Mutant(
        "a message may be longer than its buffer",
        "begin",
        "if frame.length > lane.receive_size:",
        "if False:",
        _LANES,
    ),
    Mutant(
        "the first byte behind the memory may be reached",
        "begin",
        "is_outside(frame.offset, frame.length, 0, own.exposed_size)",
        "is_outside(frame.offset, frame.length, 0, own.exposed_size + 1)",
        _FUZZED,
    ),
    Mutant(
        "a body takes more from the inbox than has come",
        "take_body",
        "min(own.left, <uint64_t> (own.inbox_end - own.inbox_begin))",
        "min(own.left, <uint64_t> INBOX - own.inbox_begin)",
        _FUZZED,
    ),
    Mutant(
        "data of any length answer a READ",
        "begin",
        "own.reads[own.reads_first].length != frame.length",
        "False",
        _LANES,
    ),
    Mutant(
        "what nobody asked for is confirmed",
        "begin",
        "if frame.length or not own.unconfirmed:",
        "if frame.length:",
        _LANES,
    ),
    Mutant(
        "whoever asks is not told that a WRITE is there",
        "finish",
        "own.confirms += 1",
        "pass",
        _LANES,
    ),
    Mutant(
        "what the socket has taken of a part is sent again",
        "keep",
        "iov_len = n - taken",
        "iov_len = n",
        _LANES,
    ),
    Mutant(
        "a sleep on many does not end when there is room",
        "stream_wait",
        "if own.full and not own.awaits_room:",
        "if False:",
        _QUEUE,
    ),
    Mutant(
        "a sleep on few does not end when there is room",
        "wait_for_few",
        "POLLIN | POLLOUT if queue.lanes[i].full else POLLIN",
        "POLLIN",
        _QUEUE,
    ),
    Mutant(
        "of few lanes only the first ends a sleep",
        "wait_for_few",
        "        which[count] = i\n        count += 1\n",
        "        which[count] = i\n        count += 1\n        break\n",
        _QUEUE,
    ),
    Mutant(
        "lanes that came first are not watched when they are many",
        "queue_add",
        "        for i in range(queue.count):\n",
        "        for i in range(0):\n",
        _QUEUE,
    ),
    Mutant(
        "a part of a word is stored before the rest is there",
        "take_words",
        "n = have - behind if have > behind else 0",
        "n = have",
        _WORDS,
    ),
    Mutant(
        "words are stored as other bytes are",
        "take",
        "take_words(own) if own.frame.flags & FRAME_WORDS else take_body(own)",
        "take_body(own)",
        _WORDS,
    ),
    Mutant(
        "a WRITE that was held back is sent twice",
        "post",
        "    own.held = False\n    own.rest_count = 0\n",
        "    own.held = False\n",
        _WORDS,
    ),
    Mutant(
        "a WRITE that was held back is left out",
        "post",
        "        header = own.rest_count\n",
        "        header = 0\n",
        _WORDS,
    ),
    Mutant(
        "a message is overwritten by what comes behind it",
        "take",
        "                if used or turns == AT_ONCE:\n",
        "                if turns == AT_ONCE:\n",
        _LANES,
    ),
    Mutant(
        "who has nothing to send is woken by room",
        "poll_lane",
        "own.full = False",
        "pass",
        _QUEUE,
    ),
    Mutant(
        "the last words of the other side are not heard",
        "refused",
        "return LANE_AGAIN",
        "return lost(own, rc)",
        _LANES,
    ),
    Mutant(
        "a sleep does not end when somebody rings",
        "stream_wake",
        "eventfd_write((<stream_queue_t *> base).bell, 1)",
        "pass",
        _QUEUE,
    ),
    Mutant(
        "who does not read is waited for without end",
        "FabricLane.accept",
        "prepare(connection, UNANSWERED_MS)",
        "prepare(connection)",
        _STOPS,
    ),
    Mutant(
        "pairs are passed one by one",
        "PairListener.__init__",
        "min(lanes - len(self._waiting), _TOGETHER)",
        "1",
        _PAIRS,
    ),
    Mutant(
        "anything that is passed is a lane",
        "Taker._take",
        "all(map(can_carry, found))",
        "True",
        _PAIRS,
    ),
    Mutant(
        "what is no lane stays open",
        "Taker._take",
        "            os.close(each)",
        "            pass",
        _PAIRS,
    ),
    Mutant(
        "what is not taken stays open",
        "Taker.close",
        "os.close(self._taken.pop())",
        "self._taken.pop()",
        _PAIRS,
    ),
    Mutant(
        "the service is awaited before it is stopped",
        "LaneServer.start",
        "self._threads.insert(0, thread)",
        "self._threads.append(thread)",
        _PAIRS,
    ),
    Mutant(
        "an initiator that has vanished keeps its session",
        "Session._take_reports",
        "self._ends_at = self._ends_at or time.monotonic() + GRACE_S",
        "pass",
        _SESSION,
    ),
    Mutant(
        "a processor of another machine is believed",
        "begin",
        "if own.near:",
        "if True:",
        _LANES,
    ),
    Mutant(
        "whoever connects is taken for near",
        "_is_near",
        "connection.getsockname()[0] == connection.getpeername()[0]",
        "True",
        _LANES,
    ),
    Mutant(
        "a thread leaves any processor",
        "keep_apart",
        "neighbour != 1 + <uint32_t> processor",
        "neighbour == 0",
        _APART,
    ),
    Mutant(
        "a thread moves all the time",
        "keep_apart",
        "t - moved[0] > STAY_NS",
        "True",
        _APART,
    ),
    Mutant(
        "of several replicas only the first is looked at",
        "engine_end",
        "idle % LOOK_AT_OTHERS",
        "True",
        ("tests/faults/test_simulation.py", "tests/integration/test_pool.py"),
    ),
)

"""Slips of a tired hand in the door, rpmemd's sessions and names, and what pools are moved with."""

from __future__ import annotations

from tests.mutants import Mutant

_DOOR = ("tests/unit/fabric/test_door.py",)
_LANES = ("tests/unit/session/test_lanes.py",)
_REPLICA = ("tests/integration/test_replica.py",)
_DATABASE = ("tests/unit/rpmemd/test_database.py",)
_HOSTILE = ("tests/faults/test_hostile_control.py",)
_LOG = ("tests/unit/base/test_logs.py", "tests/unit/rpmemd/test_config.py")
_WISHES = ("tests/unit/rpmemd/test_session_wishes.py",)
_STREAM = ("tests/unit/rpmemd/test_session_stream.py",)
_CONFIG = ("tests/unit/rpmemd/test_config.py",)
_SERVICE = ("tests/unit/service/test_service.py", "tests/unit/service/test_service_bounds.py")

MUTANTS = (
    # --- the door -----------------------------------------------------------------------------
    Mutant(
        "the type of a request is looked for in its version",
        "Caller.judge",
        "self.request[1] != _CONNECT",
        "self.request[0] != _CONNECT",
        _DOOR,
    ),
    Mutant(
        "a connection is accepted without looking whether one has come",
        "Door._accept",
        "if not self._knocks.poll(0):",
        "if False:",
        _DOOR,
    ),
    Mutant(
        "a range of one port is none",
        "_ports",
        "% (high - low + 1)",
        "% (high - low)",
        _DOOR,
    ),
    Mutant(
        "the last port of a range is never tried",
        "_ports",
        "range(low, high + 1)",
        "range(low, high)",
        _DOOR,
    ),
    Mutant(
        "every address of IPv6 is a source of its own",
        "Visitor.source",
        "[:_IPV6_NETWORK]",
        "",
        _DOOR,
    ),
    Mutant(
        "who has no descriptors is patient for ever",
        "Door._make_do",
        "self._starved_since = self._starved_since or now",
        "self._starved_since = now",
        _DOOR,
    ),
    Mutant(
        "the newest of the most tiresome has to go",
        "Door._most_tiresome",
        "key=len)[0]",
        "key=len)[-1]",
        _DOOR,
    ),
    Mutant(
        "all sources together have no limit at the door",
        "Door._make_room",
        "elif len(self._waiting) > self._most:",
        "elif len(alike) > self._most:",
        _DOOR,
    ),
    # --- lanes and sessions -------------------------------------------------------------------
    Mutant(
        "every lane is told where the first one's staging is",
        "LaneServer.reach",
        "memory.address + lane * self.staging",
        "memory.address",
        ("tests/integration/test_staging.py::test_each_lane_has_staging_of_its_own",),
    ),
    Mutant(
        "PMDK: a buffer has no room for the request",
        "Dialect.buffer_size",
        "(REQUEST_SIZE + message_size)",
        "message_size",
        (
            *_LANES,
            *_SERVICE,
            "tests/interop/test_surface_daemon.py",
            "tests/interop/test_librpmem_against_ours.py",
        ),
    ),
    Mutant(
        "the last provider that does not work says why",
        "_first_that_works",
        "problem = problem or error",
        "problem = error",
        _STREAM,
    ),
    Mutant(
        "more lanes are granted than the provider has",
        "LaneServer.__init__",
        "self.granted = min(lanes, self.fabric.lane_limit)",
        "self.granted = lanes",
        (*_REPLICA, *_LANES),
    ),
    Mutant(
        "the whole pool is served whatever was asked for",
        "Session._listen",
        "size = request.pool_size or pool.size",
        "size = pool.size",
        _WISHES,
    ),
    Mutant(
        "messages of the native protocol may write the header",
        "Session._floors",
        "else (HEADER_SIZE, 0)",
        "else (0, 0)",
        _WISHES,
    ),
    Mutant(
        "why a lane was given up is not told",
        "Session._take_reports",
        "                self._machine.failure(error)\n",
        "",
        _STREAM,
    ),
    Mutant(
        "microseconds of polling are milliseconds",
        "Session._listen",
        "self._config.spin_us * 1e-6",
        "self._config.spin_us * 1e-3",
        _WISHES,
    ),
    Mutant(
        "PMDK: an appliance without persistent memory",
        "Session._steps",
        'self._config.persist_apm and self._pool.region.medium == "pmem"',
        "self._config.persist_apm",
        (
            *_LANES,
            "tests/interop/test_surface_daemon.py",
            "tests/interop/test_librpmem_against_ours.py",
        ),
    ),
    Mutant(
        "a pool whose initiator closes it at once goes with it",
        "Session._stop",
        "never_came and not orderly)",
        "never_came)",
        ("tests/faults/test_creations.py",),
    ),
    Mutant(
        "a pool whose initiator died before the last lane was looked at goes with it",
        "LaneServer.complete",
        "self._accepted == self.granted",
        "self._service is not None",
        ("tests/faults/test_deaths.py",),
    ),
    Mutant(
        "who starts rpmemd with a socket that does not wait is gone",
        "Stream.read",
        "                _wait_for(self.source, select.POLLIN)\n",
        '                return b""\n',
        _STREAM,
    ),
    # --- names and files ----------------------------------------------------------------------
    Mutant(
        "a size that does not divide is cut off",
        "Database._text_for",
        "each = -(-needed // parts)",
        "each = needed // parts",
        _DATABASE,
    ),
    Mutant(
        "PMDK: every name that is refused is an absolute one",
        "removal_status",
        ' and name.startswith("/")',
        "",
        _DATABASE,
    ),
    Mutant(
        "the pool set file of a pool in use is removed",
        "Database._remove",
        "if set_file is not None and not in_use:",
        "if set_file is not None:",
        _DATABASE,
    ),
    Mutant(
        "a pool set file that was not written here goes with a failed creation",
        "Database.create",
        "                if set_file.made:\n                    with suppress",
        "                if set_file.reserve() is None:\n                    with suppress",
        _DATABASE,
    ),
    Mutant(
        "a log begins anew with every session",
        "_open_private",
        "os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC",
        "os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC",
        (*_LOG, *_REPLICA),
    ),
    Mutant(
        "a disk that is full ends the session that is logged",
        "Log.write",
        "except (OSError, ValueError):",
        "except ValueError:",
        (*_LOG, *_REPLICA),
    ),
    Mutant(
        "what is logged of a session is not stamped",
        "Log.configure",
        "        self._owned = True\n",
        "        self._owned = False\n",
        _CONFIG,
    ),
    # --- what was written down earlier --------------------------------------------------------
    Mutant(
        "a part that was removed comes back after a power cut",
        "unlink_or_give_up",
        "        unlink_durably(path, descriptor)\n",
        "        unlink(path, descriptor)\n",
        (
            "tests/unit/files/test_drafts.py",
            "tests/unit/files/test_partfile.py",
            "tests/unit/files/test_poolfiles.py",
        ),
    ),
    Mutant(
        "a replica that is withdrawn keeps what it created",
        "Copies.withdraw",
        "assembly.dismiss(joined, remove=remove)",
        "assembly.dismiss(joined, remove=False)",
        (
            "tests/integration/test_pool.py",
            "tests/unit/pool/test_pool_steps.py",
        ),
    ),
    Mutant(
        "the last piece of a copy is as long as all others",
        "into_place",
        "min(CHUNK, offset + length - begin)",
        "min(CHUNK, length)",
        ("tests/unit/pool/test_transfer.py",),
    ),
    Mutant(
        "the protocol that was asked for is not passed on",
        "SessionOptions.keywords",
        '"protocol": self.protocol,',
        '"protocol": None,',
        ("tests/unit/session/test_options.py",),
    ),
    Mutant(
        "the time-out that was asked for is not passed on",
        "SessionOptions.keywords",
        '"timeout": self.timeout,',
        '"timeout": None,',
        ("tests/unit/session/test_options.py",),
    ),
    Mutant(
        "noise before a removal is passed over",
        "_outcome",
        "    if printed:\n",
        "    if False:\n",
        ("tests/unit/launch/test_launch.py",),
    ),
    Mutant(
        "a longer name that begins with $HOME is the home",
        "_expand_home",
        "(?![A-Za-z0-9])",
        "",
        _CONFIG,
    ),
    Mutant(
        "a pool that is made has no room for its headers",
        "Database._text_for",
        "max(pool_size, 0) + HEADER_SIZE * max(headers - 1, 0)",
        "max(pool_size, 0)",
        _DATABASE,
    ),
    Mutant(
        "a pool set of any number of parts is made",
        "Database._text_for",
        "if not 0 < parts <= _MOST_PARTS:",
        "if not 0 < parts:",
        _DATABASE,
    ),
    Mutant(
        "the pool set file of a creation that failed stays",
        "Database.create",
        "                        set_file.remove()\n",
        "                        pass\n",
        _DATABASE,
    ),
    Mutant(
        "PMDK: a busy pool is told as another busy",
        "removal_status",
        "return errno.EWOULDBLOCK",
        "return errno.EBUSY",
        _DATABASE,
    ),
    Mutant(
        "lanes that never come are waited for for ever",
        "LaneServer._await_lanes",
        "if time.monotonic() > deadline:",
        "if False:",
        (*_HOSTILE, *_SERVICE, *_LANES),
    ),
    Mutant(
        "a session that broke off ends well",
        "Session.run",
        "return 0 if ended else 1",
        "return 0",
        _STREAM,
    ),
    Mutant(
        "providers that the administrator refused are used",
        "_allowed",
        "if name in allowed or (name == SOCKETPAIR and STREAM in allowed)",
        "if True",
        _WISHES,
    ),
    Mutant(
        "the rest of a write that was cut short is lost",
        "Stream.write",
        "view = view[os.write(self._sink, view) :]",
        "os.write(self._sink, view)\n                return",
        _STREAM,
    ),
    Mutant(
        "the umask decides who may read the log",
        "_open_private",
        "    os.fchmod(descriptor, mode)\n",
        "",
        (*_LOG, *_REPLICA),
    ),
    Mutant(
        "messages of the wanted level are dropped",
        "Log.write",
        "LEVELS.index(level) > LEVELS.index(self.level)",
        "LEVELS.index(level) >= LEVELS.index(self.level)",
        (*_LOG, *_REPLICA),
    ),
    Mutant(
        "a peer forges a line of the log",
        "Log.write",
        "line = printable(message, _LONGEST)",
        "line = message",
        (*_LOG, *_HOSTILE),
    ),
    Mutant(
        "PMDK: the log calls msync what is none",
        "policy_lines",
        '"pmem_persist" if answer.medium == "pmem" else "pmem_msync"',
        '"pmem_msync" if answer.medium == "pmem" else "pmem_persist"',
        (
            "tests/interop/test_surface_daemon.py",
            "tests/interop/test_librpmem_against_ours.py",
        ),
    ),
    Mutant(
        "flags that nobody knows are passed over",
        "native_handler",
        " or header.flags & ~(UPDATE_ANSWER | UPDATE_DEEP)",
        "",
        _SERVICE,
    ),
    Mutant(
        "messages of any size are granted",
        "LaneServer.__init__",
        "self.message_size = min(message_size, _PACED_MESSAGE if self.fabric.paces else _MESSAGE)",
        "self.message_size = message_size",
        ("tests/faults/test_inband_fuzz.py::test_messages_of_any_size_are_not_granted",),
    ),
    Mutant(
        "a pool without a pool set file is removed",
        "Database._remove",
        "if _is_whole_pool(found, path):",
        "if _is_whole_pool(found, path) and not force:",
        _DATABASE,
    ),
    Mutant(
        "who is not admitted is not turned down",
        "LaneServer._admit",
        "            request.reject()\n",
        "",
        ("tests/faults/test_inband_fuzz.py",),
    ),
)

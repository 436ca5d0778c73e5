"""Mistakes around records of copies: what rpmemd takes, keeps and says, and what is believed."""

from __future__ import annotations

from tests.mutants import Mutant

_RECORDS = ("tests/unit/rpmemd/test_records.py",)
_LOCAL = ("tests/faults/test_records_of_copies.py",)
_MACHINES = ("tests/unit/control/test_control_session.py",)
_MESSAGES = ("tests/unit/control/test_control_messages.py",)
_WISHES = ("tests/unit/rpmemd/test_session_wishes.py",)
_DIVERGED = ("tests/integration/test_diverged.py",)
_BOUNDS = ("tests/unit/service/test_service_bounds.py",)

MUTANTS = (
    # --- copies that come together ------------------------------------------------------------
    Mutant(
        "an older image of the local copy overwrites what was closed after it",
        "_rolled_back",
        "was_own and mine.mark",
        "not was_own and mine.mark",
        _DIVERGED,
    ),
    Mutant(
        "a copy of the same epoch that is discarded does not say that it is a mixture",
        "Members._admit",
        " or record.epoch != self.epoch or discard:",
        " or record.epoch != self.epoch:",
        ("tests/unit/epochs/test_world.py",),
    ),
    # --- rpmemd's record ----------------------------------------------------------------------
    Mutant(
        "a record is answered for before it is durable",
        "Records._store",
        "            self._region.persist(RECORD_OFFSET + offset, len(data))\n",
        "",
        (*_RECORDS, *_LOCAL),
    ),
    Mutant(
        "all of a record is flushed at once, at its end",
        "Records._store",
        "            self._region.persist(RECORD_OFFSET + offset, len(data))\n",
        "        self._region.persist(RECORD_OFFSET, RECORD_SIZE)\n",
        _RECORDS,
    ),
    Mutant(
        "a record is claimed although the medium refused it",
        "Records._write",
        "self._kept.record, self._kept.refused = None, CatalogueCorrupt(_CUT_OFF)",
        "self._kept.record = record",
        _RECORDS,
    ),
    Mutant(
        "a medium that has refused is written to again",
        "Records.set",
        "        self._check_medium()\n",
        "",
        _RECORDS,
    ),
    Mutant(
        "a damaged copy takes any record",
        "Records.set",
        "if self.damage is not None and not discard:",
        "if False:",
        (*_RECORDS, *_LOCAL),
    ),
    Mutant(
        "rpmemd takes whatever record it is sent",
        "Records.set",
        "        if why is not None:\n",
        "        if False:\n",
        (*_RECORDS, *_LOCAL),
    ),
    Mutant(
        "every record is taken as if a person had named the copy",
        "Records.set",
        "change.refusal(self.record, wanted, discard=discard)",
        "change.refusal(self.record, wanted, discard=True)",
        (*_RECORDS, *_LOCAL),
    ),
    Mutant(
        "a mixture leaves in order",
        "Records.leave",
        "if self.record.mark is Mark.JOINING:",
        "if False:",
        (*_RECORDS, *_LOCAL),
    ),
    Mutant(
        "a record that was cut off stays cut off",
        "Records.read",
        "        records._kept.settle()\n",
        "",
        (*_RECORDS, *_LOCAL),
    ),
    Mutant(
        "a record over damage may bring back what was before",
        "sequence_over",
        "highest + 2",
        "highest",
        _RECORDS,
    ),
    Mutant(
        "a sequence that no word holds is believed",
        "unpack",
        "if sequence > LARGEST_SEQUENCE:",
        "if False:",
        _RECORDS,
    ),
    Mutant(
        "a record shorter than its head is read",
        "unpack",
        "if len(image) < _HEAD.size:",
        "if False:",
        _RECORDS,
    ),
    Mutant(
        "a new pool inherits what its files held",
        "clear",
        "if has_any(region):",
        "if False:",
        (*_RECORDS, *_LOCAL),
    ),
    # --- rpmemd's session ---------------------------------------------------------------------
    Mutant(
        "a new pool is not cleared",
        "Session._find_record",
        "if self._created:",
        "if False:",
        _LOCAL,
    ),
    Mutant(
        "the key of a record may change",
        "Session._set_attributes",
        "if not kept or attributes.poolset_uuid != before.poolset_uuid:",
        "if False:",
        _LOCAL,
    ),
    Mutant(
        "a pool with a record may pass for another kind of pool",
        "Session._set_attributes",
        "if not kept or attributes",
        "if attributes",
        _LOCAL,
    ),
    Mutant(
        "messages reach the record of a copy",
        "Session._floors",
        "(POOL_FLOOR, POOL_FLOOR) if",
        "(HEADER_SIZE, POOL_FLOOR) if",
        (*_WISHES, *_LOCAL),
    ),
    Mutant(
        "the record of a copy is fetched",
        "Session._floors",
        "(POOL_FLOOR, POOL_FLOOR) if",
        "(POOL_FLOOR, 0) if",
        (*_WISHES, *_LOCAL),
    ),
    Mutant(
        "the record is told to an initiator that does not know it",
        "Session._standing",
        " or EPOCHS not in self._features",
        "",
        _LOCAL,
    ),
    Mutant(
        "pools of any major version have a record",
        "keeps_record",
        " and attributes.major == MAJOR",
        "",
        (*_WISHES, *_LOCAL),
    ),
    Mutant(
        "a FETCH has no floor",
        "fetch",
        "service.read_floor, service.size",
        "0, service.size",
        _BOUNDS,
    ),
    # --- the protocol -------------------------------------------------------------------------
    Mutant(
        "a target takes requests whose feature is not in force",
        "TargetSession._check_features",
        "if feature not in self.features:",
        "if False:",
        _MACHINES,
    ),
    Mutant(
        "an initiator asks for what the target does not know",
        "InitiatorMachine._need",
        " and feature not in self.features",
        " and False",
        _MACHINES,
    ),
    Mutant(
        "a refused record ends the session",
        "InitiatorMachine._refused",
        "SetAttributes | SetEpoch | Left",
        "SetAttributes",
        _MACHINES,
    ),
    Mutant(
        "a record is set while another request is carried out",
        "TargetMachine._accept",
        "            case SetEpoch(record=record, discard=discard):\n"
        "                self._expect(TargetState.OPEN, request)\n",
        "            case SetEpoch(record=record, discard=discard):\n",
        _MACHINES,
    ),
    Mutant(
        "a record of any length is taken",
        "Bytes.__init__",
        "range(low, high + 1)",
        "range(high * 9)",
        _MESSAGES,
    ),
    Mutant(
        "Ready has a record and says that it is damaged",
        "Ready.complaint",
        "if self.record is not None and self.damage is not None:",
        "if False:",
        _MESSAGES,
    ),
    # --- the initiator ------------------------------------------------------------------------
    Mutant(
        "the old record is believed although it may have been replaced",
        "TargetRecord._carry_out",
        "            self.record, self.damage = None, _NOT_KNOWN\n",
        "",
        _LOCAL,
    ),
    Mutant(
        "a refusal makes the record unknown",
        "TargetRecord._carry_out",
        "        except (EpochRefused, UsageError):\n            raise\n",
        "",
        _LOCAL,
    ),
    Mutant(
        "a record in Ready that makes no sense is no breach of the protocol",
        "TargetRecord._checked",
        "except CatalogueCorrupt as error:",
        "except KeyError as error:",
        _LOCAL,
    ),
    Mutant(
        "a replica persists below the floor of a pool with epochs",
        "TargetRecord.take",
        "self.floor = self.first = POOL_FLOOR",
        "self.first = POOL_FLOOR",
        _LOCAL,
    ),
    Mutant(
        "a replica asks for what no target sends",
        "Calls.read",
        "if start < self.first:",
        "if False:",
        _LOCAL,
    ),
)

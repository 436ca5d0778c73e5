"""The benchmark of two media: its floor, and its verdict."""

from __future__ import annotations

from benchmarks import durable
from benchmarks.backends.redis import DurableRedis
from benchmarks.backends.synced import Synced
from benchmarks.driver import Job
from benchmarks.room import Room, Setting


def found(**p50):
    """Return what a run leaves, by contestant; microseconds."""
    return {name: {"rounds": [{"p50": value * 1e3}] * 3} for name, value in p50.items()}


def test_who_is_behind_redis_is_told(capsys):
    rivals = {durable._REDIS: 500.0, durable._FLOOR: 200.0}
    assert durable.show(found(**rivals, **{"rpmem, TCP": 400.0})) == 0
    assert "0.80" in capsys.readouterr().out
    assert durable.show(found(**rivals, **{"rpmem, TCP": 600.0})) == 1


def test_the_floor_writes_both_files(tmp_path):
    with Room(pinned=False, parent=tmp_path) as room:
        opened = Synced().open(room, Setting(pool=1 << 20))
        try:
            samples = opened.driver.run(Job("send", 64, 3, 1))
        finally:
            opened.close()
        files = sorted(room.folder.glob("synced-*/*t")) + sorted(room.folder.glob("synced-*/*d"))
        assert [each.read_bytes()[4096:4160] for each in files] == [b"Z" * 64] * 2
    assert samples


def test_a_redis_of_another_system_sees_its_own_folders(tmp_path):
    redis = DurableRedis(tmp_path)
    with Room(parent=tmp_path) as room:
        assert "no redis-server" in str(redis.absent(room))
        assert redis.seen(tmp_path / "var" / "x") == "/var/x"
        assert redis.command() == ["chroot", str(tmp_path), "redis-server"]

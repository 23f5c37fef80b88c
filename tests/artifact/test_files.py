import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from onebase.artifact import disk, files, manifest
from onebase.artifact.files import (
    ArtifactWriter,
    check_fast,
    home,
    plain,
    read_manifest,
    sha256_bytes,
    sha256_file,
    verify,
    write_atomic,
)
from onebase.errors import ArtifactError

CHECKS = [verify, check_fast]


def make(folder: Path, text: str = "one", overwrite: bool = False) -> Path:
    with ArtifactWriter(folder, kind="base", facts={"fingerprint": text}, overwrite=overwrite) as w:
        w.path("a.txt").write_text(text)
        w.path("sub/b.bin").write_bytes(b"\0" * 100)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(ArtifactError) as e:
        act()
    assert e.value.remedy
    return e.value.cause


def test_round_trip(tmp_path: Path) -> None:
    folder = make(tmp_path / "deep" / "base")
    found = read_manifest(folder, "base")
    assert found["files"]["sub/b.bin"] == {"sha256": sha256_bytes(b"\0" * 100), "bytes": 100}
    assert found["facts"] == {"fingerprint": "one"}
    assert sha256_file(folder / "a.txt") == sha256_bytes(b"one")
    for check in CHECKS:
        check(folder)
    assert names(tmp_path / "deep") == ["base"]
    assert "is of kind 'base', not an adapter" in refused(lambda: read_manifest(folder, "adapter"))


def test_facts_may_be_filled_late(tmp_path: Path) -> None:
    with ArtifactWriter(tmp_path / "x", "run") as w:
        w.facts["loss"] = float("nan")
    assert read_manifest(tmp_path / "x")["facts"] == {"loss": "nan"}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", ["a.txt", "sub/b.bin", "manifest.json"])
def test_every_flipped_byte_is_seen(tmp_path: Path, check: Callable[[Path], None], name: str) -> None:
    folder = make(tmp_path / "base")
    whole = (folder / name).read_bytes()
    for i in range(0, len(whole), max(1, len(whole) // 60)):
        for bit in (0, 6):
            (folder / name).write_bytes(whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :])
            assert str(folder / name) in refused(lambda: check(folder))
    (folder / name).write_bytes(whole)
    check(folder)


@pytest.mark.parametrize("check", CHECKS)
def test_damage_is_named(tmp_path: Path, check: Callable[[Path], None]) -> None:
    folder = make(tmp_path / "base")
    (folder / "sub/b.bin").write_bytes(b"\0" * 99)
    assert refused(lambda: check(folder)) == f"{folder / 'sub/b.bin'} is truncated: 99 of 100 bytes"
    (folder / "sub/b.bin").unlink()
    assert refused(lambda: check(folder)) == f"{folder / 'sub/b.bin'} is missing"
    (folder / "sub/b.bin").write_bytes(b"\0" * 100)
    (folder / "sub/new").touch()
    assert f"{folder / 'sub/new'} is extra" in refused(lambda: check(folder))
    (folder / "sub/new").unlink()
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to("sub/b.bin")
    assert f"{folder / 'a.txt'} is a symbolic link" in refused(lambda: check(folder))
    (folder / "a.txt").unlink()
    os.mkfifo(folder / "a.txt")
    assert "not a regular file" in refused(lambda: check(folder))
    (folder / "manifest.json").unlink()
    assert "has no manifest.json" in refused(lambda: check(folder))
    assert "there is no folder" in refused(lambda: check(tmp_path / "none"))


@pytest.mark.parametrize(
    "name", ["../out", "/etc/passwd", "a/../../b", "a\\b", "", ".", "./a", "a//b", "C:/x", "a\0b"]
)
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "base")
    entry = {"sha256": sha256_bytes(b""), "bytes": 0}
    forged = {"schema": 1, "kind": "base", "files": {name: entry}, "facts": {}}
    (folder / "manifest.json").write_bytes(manifest.manifest_bytes(forged))  # its own hash is right
    assert "manifest.json" in refused(lambda: read_manifest(folder))
    with ArtifactWriter(tmp_path / "w", "base") as w:
        assert "not a valid file name in an artifact" in refused(lambda: w.path(name))


def test_unknown_schema(tmp_path: Path) -> None:
    folder = make(tmp_path / "base")
    new = {"schema": 2, "kind": "base", "files": {}, "facts": {}}
    (folder / "manifest.json").write_bytes(manifest.manifest_bytes(new))
    assert "schema 2" in refused(lambda: read_manifest(folder))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "\xff", '{"schema": 1}', "[" * 100_000])
def test_rubbish_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    assert "manifest.json was changed" in refused(lambda: read_manifest(tmp_path))


def test_check_fast_reads_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "base")
    for path in (folder / "a.txt", folder / "sub/b.bin"):
        os.utime(path, (1e9, 1e9))  # older than a tick of the clock
    read: list[str] = []
    monkeypatch.setattr(manifest, "sha256_file", lambda p: read.append(p.name) or sha256_file(p))
    check_fast(folder)
    check_fast(folder)
    assert read == ["a.txt", "b.bin"]
    info = (folder / "a.txt").stat()
    (folder / "a.txt").write_text("two")
    os.utime(folder / "a.txt", ns=(info.st_atime_ns, info.st_mtime_ns))  # same size, mtime set back
    assert "a.txt was changed" in refused(lambda: check_fast(folder))


def test_check_fast_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "base")
    (tmp_path / "file").touch()
    monkeypatch.setenv("ONEBASE_HOME", str(tmp_path / "file"))
    assert home() == tmp_path / "file"
    check_fast(folder)
    monkeypatch.setenv("ONEBASE_HOME", str(tmp_path / "home"))
    (tmp_path / "home/cache").mkdir(parents=True)
    (tmp_path / "home/cache/hashes.sqlite").write_bytes(b"not a database" * 100)
    check_fast(folder)
    (folder / "a.txt").write_text("two")
    assert "a.txt was changed" in refused(lambda: check_fast(folder))


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    make(tmp_path / "base", "old")
    for overwrite in (True, False):
        target = tmp_path / "base" if overwrite else tmp_path / "new"
        with pytest.raises(ZeroDivisionError), ArtifactWriter(target, "base", overwrite=overwrite) as w:
            w.path("a.txt").write_text("new")
            _ = 1 / 0
    assert names(tmp_path) == ["base"]
    assert (tmp_path / "base/a.txt").read_text() == "old"
    verify(tmp_path / "base")


def test_what_is_not_overwritten(tmp_path: Path) -> None:
    base = make(tmp_path / "base", "old")
    assert "already exists" in refused(lambda: make(base))
    other = tmp_path / "photos"
    other.mkdir()
    (other / "1.jpg").touch()
    assert "is not an artifact" in refused(lambda: make(other, overwrite=True))
    assert "is not an artifact" in refused(lambda: make(other / "1.jpg", overwrite=True))
    make(tmp_path / "empty")  # made by mkdir beforehand: no loss
    make(base, "new", overwrite=True)
    assert (base / "a.txt").read_text() == "new"
    (tmp_path / "link").symlink_to(base)
    make(tmp_path / "link", "newer", overwrite=True)
    assert (tmp_path / "link").is_symlink() and (base / "a.txt").read_text() == "newer"


def test_links_and_manifests_are_not_written(tmp_path: Path) -> None:
    def link() -> None:
        with ArtifactWriter(tmp_path / "x", "base") as w:
            w.path("a").symlink_to("/etc/passwd")

    def own() -> None:
        with ArtifactWriter(tmp_path / "x", "base") as w:
            (w.dir / "manifest.json").write_text("{}")

    assert "is a symbolic link" in refused(link)
    assert "written by the artifact writer itself" in refused(own)
    assert names(tmp_path) == []


def killed_at_line(n: int, act: Callable[[], Any]) -> bool:
    """Run `act` in a child that is killed (SIGKILL) before the n-th line it runs of the writer's code."""
    watched = {files.__file__, disk.__file__, manifest.__file__}
    pid = os.fork()
    if pid == 0:
        left = n

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in watched:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory where there is one: the disk's fsync would take most of a test's time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize("overwrite", [False, True])
def test_kill_at_every_line(quick: Path, overwrite: bool) -> None:
    saw = set()
    # The lines of a first writing are among those of an overwriting: there a sample of them will do.
    for n in range(1, 10_000, 1 if overwrite else 7):
        folder = quick / str(n)
        folder.mkdir()
        base = folder / "base"
        if overwrite:
            make(base, "old")
        died = killed_at_line(n, lambda base=base: make(base, "new", overwrite))
        if overwrite or base.exists():
            read_manifest(base)  # puts the old one back if the kill came between the two renames
            verify(base)
        saw.add((base / "a.txt").read_text() if base.exists() else None)
        assert all(name == "base" or name.startswith((".base.tmp-", ".base.old-")) for name in names(folder))
        make(base, "next", overwrite=True)
        assert names(folder) == ["base"]  # whatever was left is cleared
        verify(base)
        if not died:
            break
    assert n > 100
    assert saw == ({"old", "new"} if overwrite else {None, "new"})


def test_a_living_writer_is_not_cleared(tmp_path: Path) -> None:
    with ArtifactWriter(tmp_path / "base", "base") as first:
        first.path("a.txt").write_text("first")
        make(tmp_path / "base", "second")
        assert (first.dir / "a.txt").read_text() == "first"
        first.overwrite = True
    assert (tmp_path / "base/a.txt").read_text() == "first"
    assert names(tmp_path) == ["base"]


def test_a_swap_under_way_is_not_undone(tmp_path: Path) -> None:
    base, aside = make(tmp_path / "base", "old"), tmp_path / ".base.old-0"
    with ArtifactWriter(base, "base", overwrite=True) as w:
        w.path("a.txt").write_text("new")
        base.rename(aside)  # as the writer does for an instant
        assert "there is no folder" in refused(lambda: read_manifest(base))
        assert aside.exists()
    assert (base / "a.txt").read_text() == "new"
    make(base, "newer", overwrite=True)
    assert names(tmp_path) == ["base"]


def test_two_writers_one_wins(tmp_path: Path) -> None:
    def both() -> None:
        with ArtifactWriter(tmp_path / "base", "base"):
            make(tmp_path / "base", "second")

    assert "already exists" in refused(both)
    assert (tmp_path / "base/a.txt").read_text() == "second"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A real small file system of the test's own."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True, check=False)


def test_disk_full(mounted: Callable[[str], Path]) -> None:
    disk_ = mounted("size=64k")
    make(disk_ / "old", "old")

    def fill(overwrite: bool = False) -> None:
        with ArtifactWriter(disk_ / ("old" if overwrite else "new"), "base", overwrite=overwrite) as w:
            w.path("big").write_bytes(b"x" * 200_000)

    assert "the disk is full" in refused(fill)
    assert "the disk is full" in refused(lambda: fill(overwrite=True))
    assert "the disk is full" in refused(lambda: write_atomic(disk_ / "f", b"x" * 200_000))
    assert names(disk_) == ["old"]
    verify(disk_ / "old")
    assert (disk_ / "old/a.txt").read_text() == "old"


def test_read_only_disk(mounted: Callable[[str], Path]) -> None:
    disk_ = mounted("ro,size=64k")
    assert "read-only" in refused(lambda: make(disk_ / "new"))
    assert "read-only" in refused(lambda: make(disk_ / "deep/new"))
    assert "read-only" in refused(lambda: write_atomic(disk_ / "f", b""))


def test_file_size_limit(tmp_path: Path) -> None:
    code = """
import resource, sys
from onebase.artifact.files import ArtifactWriter
from onebase.errors import ArtifactError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with ArtifactWriter(sys.argv[1], "base") as w:
        w.path("big").write_bytes(b"x" * 2000)
except ArtifactError as e:
    print(e)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "new")], capture_output=True, text=True, check=True
    )
    assert "the file exceeds the size limit\n  raise the file size limit" in done.stdout
    assert names(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = f"{tmp_path / 'file'} is a file, not a folder"
    assert below in refused(lambda: make(tmp_path / "file" / "base"))
    assert below in refused(lambda: make(tmp_path / "file" / "deep" / "base"))
    assert "cannot write" in refused(lambda: make(Path("/proc/base")))
    assert "the name is too long" in refused(lambda: make(tmp_path / ("n" * 300)))
    assert "cannot write" in refused(lambda: write_atomic(tmp_path / "none" / "f", b""))


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), ArtifactWriter(tmp_path / "x", "base"):
        (tmp_path / "none").read_text()


def test_write_atomic(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", b"one")
    write_atomic(tmp_path / "f", b"two")
    assert (tmp_path / "f").read_bytes() == b"two" and names(tmp_path) == ["f"]


def test_plain() -> None:
    import numpy as np

    given = {
        1: (np.float32(0.5), np.arange(2)),
        "p": Path("a"),
        "n": [float("inf"), None, True],
        "s": {"b", "a"},
    }
    found = plain(given)
    assert found == {"1": [0.5, [0, 1]], "p": "a", "n": ["inf", None, True], "s": ["a", "b"]}
    json.dumps(found, allow_nan=False)

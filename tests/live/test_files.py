"""Watching files: every way in which they are replaced is noticed, and none is taken half done."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import pytest
import structlog
from support.gates import eventually

from gatekeeper.live import files
from gatekeeper.live.files import Cause, FileWatch, look_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Seen = list[tuple[Cause, str]]


def content(folder: Path) -> str:
    """Return all that the folder says, or why it says nothing."""
    try:
        return "".join(path.read_text() for path in sorted(folder.glob("*.yaml")))
    except OSError as error:
        return type(error).__name__


def over(folder: Path, **options: object) -> FileWatch:
    """Watch the YAML files of a folder."""
    return FileWatch(lambda: (folder,), lambda: list(folder.glob("*.yaml")), **options)  # type: ignore[arg-type]


class Running:
    """A watch at work, and what it reported."""

    def __init__(self, folder: Path, **options: object) -> None:
        """Start it."""
        self.seen: Seen = []
        self._folder = folder
        self.watch = over(folder, **options)
        self._task = asyncio.create_task(self.watch.run(self._read))

    async def _read(self, cause: Cause) -> None:
        self.seen.append((cause, content(self._folder)))

    async def tells(self, text: str) -> None:
        """Wait until the last report said ``text``."""

        async def told() -> bool:
            return bool(self.seen) and self.seen[-1][1] == text

        await eventually(told)

    async def stop(self) -> None:
        """Stop it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture(params=["kernel", "looks"])
async def running(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    """Watch a folder by the kernel's word (looks too rare to matter), or by looks alone."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "a.yaml").write_text("one")
    kernel = request.param == "kernel"
    options = {"listen": kernel, "rescan_s": 60.0 if kernel else 0.05}
    watching = Running(folder, **options)
    yield watching
    await watching.stop()


def replace(path: Path, text: str) -> None:
    """Replace a file by renaming another one over it."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text)
    os.replace(aside, path)  # noqa: PTH105 - the system call that is meant


async def heard(running: Running) -> None:
    """Wait until the kernel is listened to: a change before that is found by the next look."""
    running.watch.ask()
    await running.tells("one")
    running.seen.clear()


async def test_h36_three_renames_in_a_row(running: Running, tmp_path: Path) -> None:
    """A watch on the inode would go deaf after the first."""
    await heard(running)
    for text in ("two", "three", "four"):
        replace(tmp_path / "rules" / "a.yaml", text)
        await running.tells(text)
    assert [cause for cause, _ in running.seen] == [Cause.CHANGED] * 3


async def test_h36_written_in_place_deleted_and_made_anew(running: Running, tmp_path: Path) -> None:
    """As careless editors and copies do."""
    path = tmp_path / "rules" / "a.yaml"
    await heard(running)
    path.write_text("two")
    await running.tells("two")
    path.unlink()
    await running.tells("")
    path.write_text("three")
    (path.parent / "b.yaml").write_text("four")
    await running.tells("threefour")


async def test_h36_a_swapped_link_as_kubernetes_does_it(tmp_path: Path) -> None:
    """ConfigMaps are mounted as links through ``..data``, which is swapped by renaming."""
    folder = tmp_path / "rules"
    for version in ("v1", "v2", "v3"):
        (folder / f"..{version}").mkdir(parents=True)
        (folder / f"..{version}" / "a.yaml").write_text(version)
    (folder / "..data").symlink_to("..v1")
    (folder / "a.yaml").symlink_to("..data/a.yaml")
    running = Running(folder, rescan_s=60.0)
    running.watch.ask()
    await running.tells("v1")
    for version in ("v2", "v3"):
        (folder / "..data_tmp").symlink_to(f"..{version}")
        os.replace(folder / "..data_tmp", folder / "..data")  # noqa: PTH105
        await running.tells(version)
    await running.stop()


async def test_h36_the_folder_itself_replaced(tmp_path: Path) -> None:
    """A link to another release, or a folder deleted and made anew: looks find what events do not.

    After that the kernel is listened to again.
    """
    for release in ("r1", "r2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "a.yaml").write_text(release)
    folder = tmp_path / "rules"
    folder.symlink_to("r1")
    running = Running(folder, rescan_s=0.1)
    running.watch.ask()
    await running.tells("r1")
    (tmp_path / "next").symlink_to("r2")
    os.replace(tmp_path / "next", folder)  # noqa: PTH105
    await running.tells("r2")
    replace(tmp_path / "r2" / "a.yaml", "r2 again")
    await running.tells("r2 again")
    shutil.rmtree(tmp_path / "r2")
    await running.tells("")
    (tmp_path / "r2").mkdir()
    (tmp_path / "r2" / "a.yaml").write_text("back")
    await running.tells("back")
    await running.stop()


async def test_h36_permissions_are_a_change(running: Running, tmp_path: Path) -> None:
    """``chmod 000`` is noticed as such: the file may not be readable any more."""
    await heard(running)
    path = tmp_path / "rules" / "a.yaml"
    path.chmod(0o000)

    async def told() -> bool:
        return bool(running.seen)

    await eventually(told)
    path.chmod(0o600)


async def test_other_files_and_the_same_again_report_nothing(tmp_path: Path) -> None:
    """Backups of editors and a look at the same state wake nobody; who asks gets a report."""
    folder = tmp_path
    (folder / "a.yaml").write_text("one")
    watch = over(folder, pause=nothing)
    reported: list[Cause] = []
    (folder / "a.yaml.swp").write_text("x")
    await watch.look(into(reported))
    assert reported == []
    watch.ask()
    await watch.look(into(reported))
    await watch.look(into(reported))
    assert reported == [Cause.ASKED]


async def test_h35_nothing_is_reported_before_files_keep_still(tmp_path: Path) -> None:
    """While each pause brings another write, the report waits, and then it is one."""
    path = tmp_path / "a.yaml"
    path.write_text("")
    writes = iter("a policy in pieces")
    paused = 0

    async def pause() -> None:
        nonlocal paused
        paused += 1
        if piece := next(writes, ""):
            with path.open("a") as file:
                file.write(piece)

    watch = over(tmp_path, pause=pause)
    reported: list[str] = []

    async def read(_: Cause) -> None:
        reported.append(path.read_text())

    path.write_text("+")
    await watch.look(read)
    assert reported == ["+a policy in pieces"]
    assert paused == len("a policy in pieces") + 1


async def test_a_change_and_back_is_none(tmp_path: Path) -> None:
    """A file that is as it was once it keeps still (the very same inode) is not read."""
    path, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    path.write_text("one")

    async def pause() -> None:
        other.unlink(missing_ok=True)

    watch = over(tmp_path, pause=pause)
    other.write_text("two")
    reported: list[Cause] = []
    await watch.look(into(reported))
    assert reported == []


async def test_what_is_written_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    """The next look comes at once, not after the usual while."""
    folder = tmp_path / "rules"
    folder.mkdir()
    path = folder / "a.yaml"
    path.write_text("one")
    watch = over(folder, rescan_s=3_600.0, listen=False, pause=nothing)
    seen: list[str] = []

    async def read(_: Cause) -> None:
        seen.append(path.read_text())
        if len(seen) == 1:
            path.write_text("written meanwhile")

    task = asyncio.create_task(watch.run(read))
    watch.ask()

    async def told() -> bool:
        return seen[-1:] == ["written meanwhile"]

    await eventually(told)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_links_are_followed_and_missing_files_are_absent(tmp_path: Path) -> None:
    """What counts is the file at the end of the link."""
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "broken").symlink_to("nowhere")
    looked = look_at([tmp_path / "link", tmp_path / "broken", tmp_path / "missing"])
    assert [row[0] for row in looked] == [str(tmp_path / "link")]
    assert looked[0][2] == (tmp_path / "real").stat().st_ino


async def nothing() -> None:
    """Do not wait."""


def into(reported: list[Cause]) -> Callable[[Cause], Awaitable[None]]:
    """Return a reader that only notes why it was called."""

    async def read(cause: Cause) -> None:
        reported.append(cause)

    return read


async def test_h36_without_the_kernels_word_looks_must_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No inotify watches left is said once, and changes are found all the same."""

    async def no_watches(*_: object, **__: object) -> AsyncIterator[object]:
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(files, "awatch", no_watches)
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "a.yaml").write_text("one")
    with structlog.testing.capture_logs() as logs:
        running = Running(folder, rescan_s=0.05)
        for text in ("two", "three"):
            replace(folder / "a.yaml", text)
            await running.tells(text)
        await running.stop()
    assert [line["event"] for line in logs] == ["not_told_of_changes"]

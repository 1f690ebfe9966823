"""The rules in force: old or new and never a third, the same everywhere, and never worse unsaid."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import weakref
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import default_pack
from support.flaky import FlakyDatabase
from support.live import (
    keeper_of,
    limited,
    revision_of,
    write_rules,
)

from gatekeeper.live import rule_files as rules_module
from gatekeeper.live.files import Cause, FileWatch
from gatekeeper.live.outcome import Outcome, What
from gatekeeper.live.rule_files import RuleFiles, rule_files
from gatekeeper.storage.database import RecordsError
from gatekeeper.storage.rule_history import RuleHistory, Source
from gatekeeper.storage.rule_store import archived
from gatekeeper.telemetry import Metrics

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

ONE, TWO, THREE = limited(1), limited(2), limited(3)
R1, R2, R3 = map(revision_of, (ONE, TWO, THREE))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory with the first rules."""
    write_rules(tmp_path / "rules", ONE)
    return tmp_path / "rules"


async def test_a_first_start_activates_the_files(folder: Path, database: FlakyDatabase) -> None:
    """The history begins with them: by whom, from where, and with their text by name."""
    keeper, gate = await keeper_of(folder, database, name="gate-a")
    (made,) = await RuleHistory(database).page()
    assert keeper.active == made
    assert (made.revision, made.by, made.source) == (R1, "gate-a", Source.FILES)
    assert await RuleHistory(database).texts(R1) == {"rules.yaml": ONE}
    assert gate.revisions == [R1]


async def test_changed_files_are_in_force_everywhere(
    folder: Path, tmp_path: Path, database: FlakyDatabase
) -> None:
    """The gate that sees them activates them; the other one follows without having them."""
    keeper, gate = await keeper_of(folder, database)
    write_rules(tmp_path / "other", ONE)
    follower, followed = await keeper_of(tmp_path / "other", database, name="b")
    write_rules(folder, TWO)
    await keeper.reload(Cause.CHANGED)
    assert gate.revisions == [R1, R2]
    await follower.follow()
    assert followed.revisions == [R1, R2]
    assert follower.active == keeper.active
    kept = archived(tmp_path / "revisions-b", R2)
    assert kept is not None
    assert kept.revision == R2


async def test_files_that_say_the_same_change_nothing(
    folder: Path, database: FlakyDatabase
) -> None:
    """A comment, or a touch, is no new revision; what others activated stays in force."""
    metrics = Metrics()
    keeper, gate = await keeper_of(folder, database, metrics=metrics)
    await activate(database, TWO)
    await keeper.follow()
    write_rules(folder, "# a comment\n" + ONE)
    await keeper.reload(Cause.CHANGED)
    assert gate.revisions == [R1, R2]
    assert metrics.value("gatekeeper_reloads", What.RULES, Outcome.UNCHANGED) == 1


async def test_who_asks_gets_the_files_in_force(folder: Path, database: FlakyDatabase) -> None:
    """SIGHUP puts the files of a gate above what others activated."""
    keeper, gate = await keeper_of(folder, database)
    await activate(database, TWO)
    await keeper.follow()
    await keeper.reload(Cause.ASKED)
    assert gate.revisions == [R1, R2, R1]
    assert [each.revision for each in await RuleHistory(database).page()] == [R1, R2, R1]


async def test_a_start_with_files_that_were_in_force_before_gives_way(
    folder: Path, tmp_path: Path, database: FlakyDatabase
) -> None:
    """A gate that restarts with old files follows the others, and says that its files differ."""
    await keeper_of(folder, database)
    await activate(database, TWO)
    with structlog.testing.capture_logs() as logs:
        _, gate = await keeper_of(folder, database, name="restarted")
    assert gate.revisions == [R1, R2]
    (told,) = [line for line in logs if line["event"] == "rule_files_not_in_force"]
    assert (told["files"], told["serving"]) == (R1, R2)
    write_rules(tmp_path / "newer", THREE)
    _, newer = await keeper_of(tmp_path / "newer", database, name="newer")
    assert newer.revisions == [R3]
    assert [each.revision for each in await RuleHistory(database).page()] == [R3, R2, R1]


async def test_files_changed_while_a_gate_is_stopped_are_a_change(
    folder: Path, database: FlakyDatabase
) -> None:
    """Going back to old files and starting again serves them: the gate knows what it had."""
    await keeper_of(folder, database)
    write_rules(folder, TWO)
    _, gate = await keeper_of(folder, database)
    assert gate.revisions == [R2]
    write_rules(folder, ONE)
    _, gate = await keeper_of(folder, database)
    assert gate.revisions == [R1]
    latest = await RuleHistory(database).latest()
    assert latest is not None
    assert latest.revision == R1
    await activate(database, TWO)
    await activate(database, THREE)
    _, gate = await keeper_of(folder, database)
    assert gate.revisions == [R1, R3]
    write_rules(folder, TWO)  # which others activated since, and went on from
    _, gate = await keeper_of(folder, database)
    assert gate.revisions == [R2, R3]


async def test_a_memory_that_is_damaged_or_cannot_be_kept_is_none(
    folder: Path, tmp_path: Path, database: FlakyDatabase
) -> None:
    """The gate then follows the others, as one without any."""
    await keeper_of(folder, database)
    await activate(database, TWO)
    memory = tmp_path / "revisions-a" / "files.json"
    memory.write_text("{")
    _, gate = await keeper_of(folder, database)
    assert gate.revisions == [R1, R2]
    memory.unlink()
    memory.mkdir()
    with structlog.testing.capture_logs() as logs:
        _, gate = await keeper_of(folder, database)
    assert gate.revisions == [R1, R2]
    assert "rule_files_not_remembered" in {line["event"] for line in logs}


async def test_files_that_arrive_late_do_not_undo_what_came_after_them(
    folder: Path, tmp_path: Path, database: FlakyDatabase
) -> None:
    """A folder synchronised a minute later catches up; a change of mind is one all the same."""
    keeper, _ = await keeper_of(folder, database)
    late_folder = tmp_path / "late"
    write_rules(late_folder, ONE)
    late, followed = await keeper_of(late_folder, database, name="late")
    write_rules(folder, TWO)
    await keeper.reload(Cause.CHANGED)
    await activate(database, THREE)
    await late.follow()
    write_rules(late_folder, TWO)
    await late.reload(Cause.CHANGED)
    assert followed.revisions == [R1, R3]
    write_rules(late_folder, ONE)
    await late.reload(Cause.CHANGED)
    assert followed.revisions == [R1, R3, R1]


async def test_a_bad_file_is_refused_with_every_mistake(
    folder: Path, database: FlakyDatabase
) -> None:
    """File, line and place of each are logged, counted and kept; the last good rules serve on."""
    metrics = Metrics()
    keeper, gate = await keeper_of(folder, database, metrics=metrics)
    bad = TWO.replace("rate: 2/hour", "rate: often").replace('"demo-small"', "3")
    write_rules(folder, bad)
    with structlog.testing.capture_logs() as logs:
        await keeper.reload(Cause.CHANGED)
    assert gate.revisions == [R1]
    refused = [line["problem"] for line in logs if line["event"] == "rules_refused"]
    assert len(refused) == 2
    assert all(f"{folder}/rules.yaml:" in problem for problem in refused)
    assert "limits[0].rate" in "".join(refused)
    assert keeper.last_refused is not None
    assert str(keeper.last_refused).endswith("and 1 more")
    assert metrics.value("gatekeeper_reloads", What.RULES, Outcome.REFUSED) == 1
    write_rules(folder, TWO)
    await keeper.reload(Cause.CHANGED)
    assert (gate.revisions, keeper.last_refused) == ([R1, R2], None)


async def test_a_bad_file_that_is_mended_back_is_no_activation(
    folder: Path, database: FlakyDatabase
) -> None:
    """The files are what they were: nothing to tell the others."""
    keeper, _ = await keeper_of(folder, database)
    write_rules(folder, "version: 1\n")
    await keeper.reload(Cause.CHANGED)
    write_rules(folder, ONE)
    await keeper.reload(Cause.CHANGED)
    assert keeper.last_refused is None
    assert len(await RuleHistory(database).page()) == 1


async def test_h36_unreadable_and_deleted_files_are_refused(
    folder: Path, tmp_path: Path, database: FlakyDatabase
) -> None:
    """``chmod 000``, no file, no folder: the rules in memory serve on."""
    keeper, gate = await keeper_of(folder, database)
    file = folder / "rules.yaml"
    file.chmod(0o000)
    somebody = as_nobody() if os.geteuid() == 0 else None
    try:
        await keeper.reload(Cause.CHANGED)
    finally:
        if somebody is not None:
            somebody()
    assert keeper.last_refused is not None
    assert "cannot be" in str(keeper.last_refused)
    file.chmod(0o600)
    await keeper.reload(Cause.CHANGED)
    assert keeper.last_refused is None
    file.unlink()
    await keeper.reload(Cause.CHANGED)
    assert "`*`" in str(keeper.last_refused)
    os.rename(folder, tmp_path / "moved")  # noqa: PTH104 - not the name, the folder
    await keeper.reload(Cause.CHANGED)
    assert "no such directory" in str(keeper.last_refused)
    assert gate.revisions == [R1]


def as_nobody() -> Callable[[], None]:
    """Give up the right to read everything; returns what takes it back."""
    os.seteuid(65_534)
    return lambda: os.seteuid(0)


async def test_h35_every_prefix_of_a_rewritten_file_is_old_or_new(
    folder: Path, database: FlakyDatabase
) -> None:
    """Even one that stands still for ever, because its writer died, is never a third policy."""
    keeper, gate = await keeper_of(folder, database)
    new = limited(2, country="IR")
    for length in range(len(new) + 1):
        (folder / "rules.yaml").write_text(new[:length])
        await keeper.reload(Cause.CHANGED)
    assert gate.revisions == [R1, revision_of(new)]


def halves(per_hour: int, country: str) -> dict[str, str]:
    """Return rules in two files, so that each half alone would be another policy."""
    text = limited(per_hour, country)
    embargo = text[text.index("embargo:") : text.index("tiers:")]
    return {
        "a.yaml": f"version: 1\n{embargo}...\n",
        "b.yaml": text.replace(embargo, ""),
    }


OLD, NEW = halves(1, "CU"), halves(2, "IR")


@settings(max_examples=50, deadline=None)
@given(
    cuts=st.fixed_dictionaries(
        {name: st.lists(st.integers(0, len(NEW[name])), max_size=4).map(sorted) for name in NEW}
    ),
    order=st.randoms(use_true_random=False),
    by_renaming=st.booleans(),
)
def test_h35_every_interleaving_of_two_files_is_old_or_new(
    tmp_path_factory: pytest.TempPathFactory,
    cuts: dict[str, list[int]],
    order: random.Random,
    *,
    by_renaming: bool,
) -> None:
    """Two files rewritten piece by piece in any order, one piece in each pause, are one change.

    The gate takes what stands once both keep still, and nothing before.
    """
    folder = tmp_path_factory.mktemp("rules")
    for name, text in OLD.items():
        write_rules(folder, text, name)
    asyncio.run(interleaved(folder, pieces(cuts, order, by_renaming=by_renaming)))


def pieces(
    cuts: dict[str, list[int]], order: random.Random, *, by_renaming: bool
) -> list[tuple[str, str]]:
    """Return writes as file and content: growing prefixes of each, mixed in any order."""
    lengths = {
        name: [len(NEW[name])] if by_renaming else [0, *found, len(NEW[name])]
        for name, found in cuts.items()
    }
    turns = [name for name, found in lengths.items() for _ in found]
    order.shuffle(turns)
    return [(name, NEW[name][: lengths[name].pop(0)]) for name in turns]


async def interleaved(folder: Path, steps: list[tuple[str, str]]) -> None:
    """Play ``steps`` while a watch looks."""
    database = await FlakyDatabase.open(f"sqlite:///{folder}.db")
    try:
        keeper, gate = await keeper_of(folder, database)
        waiting = iter(steps)

        async def pause() -> None:
            step = next(waiting, None)
            if step is not None:
                (folder / step[0]).write_text(step[1])

        watch = FileWatch(lambda: (folder,), lambda: rule_files(folder), pause=pause)
        await pause()
        for _ in range(3):
            await watch.look(keeper.reload)
        assert next(waiting, None) is None
        assert gate.revisions == [both(OLD), both(NEW)]
    finally:
        await database.close()


def both(files: dict[str, str]) -> str:
    """Return the revision of two files."""
    parsed = RuleFiles.parse(files)
    assert isinstance(parsed, RuleFiles), parsed
    return parsed.rules.revision


async def test_h35_what_changes_while_it_is_read_is_not_taken(
    folder: Path, database: FlakyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was read before and one that was read after a change are no policy together."""
    keeper, gate = await keeper_of(folder, database)
    reading = rules_module.read_texts

    def slow(directory: Path) -> object:
        texts = reading(directory)
        write_rules(directory, THREE)
        return texts

    write_rules(folder, TWO)
    monkeypatch.setattr(rules_module, "read_texts", slow)
    await keeper.reload(Cause.ASKED)
    assert gate.revisions == [R1]
    monkeypatch.setattr(rules_module, "read_texts", reading)
    await keeper.watch.look(keeper.reload)  # which still knows that somebody asked
    assert gate.revisions == [R1, R3]


async def test_without_the_records_the_files_of_a_gate_serve(
    folder: Path, tmp_path: Path, database: FlakyDatabase
) -> None:
    """A change is in force here at once, and everywhere once the records answer again."""
    keeper, gate = await keeper_of(folder, database)
    write_rules(tmp_path / "other", ONE)
    other, followed = await keeper_of(tmp_path / "other", database, name="b")
    database.broken = True
    write_rules(folder, TWO)
    with structlog.testing.capture_logs() as logs:
        await keeper.reload(Cause.CHANGED)
    assert "rules_not_shared" in {line["event"] for line in logs}
    assert (gate.revisions, keeper.waiting) == ([R1, R2], True)
    with pytest.raises(RecordsError):
        await keeper.follow()
    assert keeper.waiting
    database.broken = False
    await keeper.follow()
    await other.follow()
    assert (followed.revisions, keeper.waiting) == ([R1, R2], False)


async def test_a_start_without_the_records_serves_the_files(
    folder: Path, database: FlakyDatabase
) -> None:
    """They are activated later, unless somebody else did something meanwhile."""
    database.broken = True
    keeper, gate = await keeper_of(folder, database)
    assert (gate.revisions, keeper.active) == ([R1], None)
    database.broken = False
    await activate(database, TWO)
    await keeper.follow()
    assert (gate.revisions, keeper.waiting) == ([R1, R2], False)


async def test_rules_of_another_release_are_refused_and_the_last_good_ones_serve(
    folder: Path, database: FlakyDatabase
) -> None:
    """A gate that does not understand an activation says so, once, and follows the next one."""
    keeper, gate = await keeper_of(folder, database)
    await RuleHistory(database).activate(
        "f" * 12,
        {"rules.yaml": "version: 9\n...\n"},
        at=1.0,
        by="newer",
        source=Source.API,
    )
    await keeper.follow()
    assert (gate.revisions, keeper.last_refused is not None) == ([R1], True)
    assert str(keeper.last_refused).startswith(f"{'f' * 12}/rules")
    await keeper.follow()
    await activate(database, TWO)
    await keeper.follow()
    assert (gate.revisions, keeper.last_refused) == ([R1, R2], None)


async def test_an_embargo_never_goes_in_silence(folder: Path, database: FlakyDatabase) -> None:
    """To weaken one takes no special right, but is said aloud, with what is lost and by whom."""
    keeper, _ = await keeper_of(folder, database)
    write_rules(folder, limited(1, country="IR"))
    with structlog.testing.capture_logs() as logs:
        await keeper.reload(Cause.CHANGED)
    (told,) = [line for line in logs if line["event"] == "embargo_weakened"]
    assert told["embargo"] == "embargo-cuba: no longer countries CU"
    assert (told["by"], told["log_level"]) == ("a", "warning")


async def test_a_full_disk_does_not_hold_back_new_rules(
    folder: Path, tmp_path: Path, database: FlakyDatabase
) -> None:
    """The records have their text; that this gate cannot archive them is logged."""
    keeper, gate = await keeper_of(folder, database)
    shutil.rmtree(tmp_path / "revisions-a")
    (tmp_path / "revisions-a").write_text("in the way")
    write_rules(folder, TWO)
    with structlog.testing.capture_logs() as logs:
        await keeper.reload(Cause.CHANGED)
    assert gate.revisions == [R1, R2]
    assert "rules_not_archived" in {line["event"] for line in logs}


async def activate(database: FlakyDatabase, text: str) -> None:
    """Activate rules as another gate or a person does."""
    await RuleHistory(database).activate(
        revision_of(text), {"rules.yaml": text}, at=2.0, by="ops", source=Source.API
    )


def test_h41_rules_that_were_replaced_leave_no_cycle() -> None:
    """Reloads must not pile up until the next full collection."""
    gc.collect()
    gc.disable()
    try:
        rules = default_pack()
        gone = weakref.ref(rules.signals[0].when.evaluate)
        del rules
        assert gone() is None
    finally:
        gc.enable()

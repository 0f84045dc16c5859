"""The reader's copies of the lessons, against the table of `copies.py`, on lessons of a few bytes."""

import hashlib
import json
import os
import random

import pytest

from dhp_lab.notebook.copies import STATE, refresh_copies

LESSON = "00_start.ipynb"
NEWER = "00_start.newer.ipynb"
LINE = f"{LESSON}: you changed it, so it stays; today's lesson is {NEWER}"


@pytest.fixture
def lessons(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / LESSON).write_bytes(b"v1")
    (folder / "01_next.ipynb").write_bytes(b"next")
    (folder / "notes.txt").write_bytes(b"no lesson")
    return folder


@pytest.fixture
def mine(tmp_path):
    """The folder of copies, which is not there at first."""
    return tmp_path / "mine"


def held(folder) -> dict[str, bytes]:
    """What the reader sees in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != STATE}


def test_copies_are_the_lessons_and_remembered_by_their_hashes(lessons, mine):
    assert refresh_copies(lessons, mine) == []
    assert held(mine) == {LESSON: b"v1", "01_next.ipynb": b"next"}
    state = {name: hashlib.sha256(data).hexdigest() for name, data in held(mine).items()}
    assert json.loads((mine / STATE).read_text()) == state
    assert refresh_copies(lessons, mine) == [] and len(held(lessons)) == 3


def test_an_untouched_copy_follows_the_lesson_without_a_word(lessons, mine):
    refresh_copies(lessons, mine)
    (lessons / LESSON).write_bytes(b"v2")
    assert refresh_copies(lessons, mine) == []
    assert held(mine) == {LESSON: b"v2", "01_next.ipynb": b"next"}


def test_a_changed_copy_stays(lessons, mine):
    refresh_copies(lessons, mine)
    (mine / LESSON).write_bytes(b"mine")
    assert refresh_copies(lessons, mine) == []
    assert held(mine) == {LESSON: b"mine", "01_next.ipynb": b"next"}


def test_a_newer_lesson_comes_beside_a_changed_copy(lessons, mine):
    refresh_copies(lessons, mine)
    (mine / LESSON).write_bytes(b"mine")
    for version in (b"v2", b"v2", b"v3"):  # said each time; untouched, it is refreshed
        (lessons / LESSON).write_bytes(version)
        assert refresh_copies(lessons, mine) == [LINE]
        assert held(mine) == {LESSON: b"mine", NEWER: version, "01_next.ipynb": b"next"}


def test_a_newer_lesson_that_was_changed_too_stays_as_well(lessons, mine):
    refresh_copies(lessons, mine)
    (mine / LESSON).write_bytes(b"mine")
    (lessons / LESSON).write_bytes(b"v2")
    refresh_copies(lessons, mine)
    (mine / NEWER).write_bytes(b"mine too")
    assert refresh_copies(lessons, mine) == []  # it is today's, and the reader works in it
    (lessons / LESSON).write_bytes(b"v3")
    (line,) = refresh_copies(lessons, mine)
    third = "00_start.newer2.ipynb"
    assert line.endswith(f"today's lesson is {third}")
    kept = {LESSON: b"mine", NEWER: b"mine too", "01_next.ipynb": b"next"}
    assert held(mine) == {**kept, third: b"v3"}


def test_deleted_copies_come_back(lessons, mine):
    refresh_copies(lessons, mine)
    (mine / LESSON).unlink()
    assert refresh_copies(lessons, mine) == [] and held(mine)[LESSON] == b"v1"
    (mine / LESSON).write_bytes(b"mine")
    refresh_copies(lessons, mine)
    (mine / LESSON).unlink()  # to begin anew
    assert refresh_copies(lessons, mine) == [] and held(mine)[LESSON] == b"v1"


def test_a_newer_lesson_that_was_deleted_was_seen(lessons, mine):
    refresh_copies(lessons, mine)
    (mine / LESSON).write_bytes(b"mine")
    (lessons / LESSON).write_bytes(b"v2")
    refresh_copies(lessons, mine)
    (mine / NEWER).unlink()
    assert refresh_copies(lessons, mine) == [] and NEWER not in held(mine)
    (lessons / LESSON).write_bytes(b"v3")
    assert refresh_copies(lessons, mine) == [LINE] and held(mine)[NEWER] == b"v3"


@pytest.mark.parametrize("take", [os.remove, lambda own: os.replace(own.with_name(NEWER), own)])
def test_a_newer_lesson_takes_the_place_of_the_old_one(lessons, mine, take):
    refresh_copies(lessons, mine)
    (mine / LESSON).write_bytes(b"mine")
    (lessons / LESSON).write_bytes(b"v2")
    refresh_copies(lessons, mine)
    take(mine / LESSON)  # deletes the old copy, or moves the new one over it
    assert refresh_copies(lessons, mine) == []
    assert held(mine) == {LESSON: b"v2", "01_next.ipynb": b"next"}
    (lessons / LESSON).write_bytes(b"v3")
    assert refresh_copies(lessons, mine) == [] and held(mine)[LESSON] == b"v3"


def test_a_lesson_that_is_no_more_goes_unless_it_was_changed(lessons, mine):
    refresh_copies(lessons, mine)
    (mine / LESSON).write_bytes(b"mine")
    (mine / "own.ipynb").write_bytes(b"made by the reader")
    for name in (LESSON, "01_next.ipynb"):
        (lessons / name).unlink()
    (lessons / "02_last.ipynb").write_bytes(b"last")
    assert refresh_copies(lessons, mine) == []
    assert held(mine) == {LESSON: b"mine", "own.ipynb": b"made by the reader", "02_last.ipynb": b"last"}


@pytest.mark.parametrize("state", [None, b"", b"\xff", b"[1]"])
def test_without_its_memory_every_other_file_is_the_readers(lessons, mine, state):
    refresh_copies(lessons, mine)
    (mine / LESSON).write_bytes(b"mine")
    (mine / STATE).unlink() if state is None else (mine / STATE).write_bytes(state)
    assert refresh_copies(lessons, mine) == [LINE]
    assert held(mine) == {LESSON: b"mine", NEWER: b"v1", "01_next.ipynb": b"next"}


def test_folders_and_broken_links_are_not_replaced(lessons, mine):
    mine.mkdir()
    (mine / LESSON).mkdir()
    (mine / "01_next.ipynb").symlink_to(mine / "nothing")
    lines = refresh_copies(lessons, mine)
    assert [line.rpartition(" ")[2] for line in lines] == [NEWER, "01_next.newer.ipynb"]
    assert (mine / LESSON).is_dir() and (mine / "01_next.ipynb").is_symlink()


def test_what_was_copied_before_an_error_is_remembered(lessons, mine):
    refresh_copies(lessons, mine)
    (lessons / LESSON).write_bytes(b"v2")
    (lessons / "01_next.ipynb").unlink()
    (lessons / "01_next.ipynb").symlink_to(lessons / "nothing")
    with pytest.raises(FileNotFoundError, match="01_next"):
        refresh_copies(lessons, mine)
    (lessons / "01_next.ipynb").unlink()
    (lessons / LESSON).write_bytes(b"v3")
    assert refresh_copies(lessons, mine) == [] and held(mine)[LESSON] == b"v3"


def test_no_lessons(tmp_path, mine):
    with pytest.raises(ValueError, match="there are no lessons at .*; work in a full clone"):
        refresh_copies(tmp_path / "nowhere", mine)
    assert not mine.exists()


@pytest.mark.parametrize("seed", range(8))
def test_nothing_that_the_reader_wrote_is_ever_lost(lessons, mine, seed):
    """Any order of edits, deletions, new lessons and refreshes: only readers remove what they wrote."""
    draw = random.Random(seed)
    written, wrote = {}, 0
    for step in range(60):
        match draw.choice(["edit", "delete", "lesson", "forget", "refresh", "refresh"]):
            case "edit" if mine.exists():
                name = draw.choice([*held(mine), LESSON])
                wrote += 1
                written[name] = f"mine {wrote}".encode()
                (mine / name).write_bytes(written[name])
            case "delete" if mine.exists() and held(mine):
                name = draw.choice([*held(mine)])
                (mine / name).unlink()
                written.pop(name, None)
            case "lesson":
                (lessons / LESSON).write_bytes(f"v{step}".encode())
            case "forget" if draw.random() < 0.2:
                (mine / STATE).unlink(missing_ok=True)
            case "refresh":
                refresh_copies(lessons, mine)
                now = held(mine)
                assert {name: now.get(name) for name in written} == written
                assert now.keys() >= {LESSON, "01_next.ipynb"}

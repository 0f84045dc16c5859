"""Which files below a folder count as pictures, and what is said of the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dhp_lab.data.images import load_pictures
from dhp_lab.data.listing import SUFFIXES, ImageError, list_images, list_names


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listed(folder: Path, **options) -> tuple[list[str], str]:
    """The pictures' names, and the line on what was passed over, "" if there is none."""
    lines: list[str] = []
    files = list_images(folder, log=lines.append, **options)
    assert len(lines) <= 1 and files == sorted(files)
    return [path.relative_to(folder).as_posix() for path in files], "".join(lines)


def test_a_folder_is_listed_in_order_with_what_lies_below(tmp_path):
    touch(tmp_path, "b.png", "a.JPG", "below/c.webp", "notes.txt", "below/deeper/d.tif", "README")
    (tmp_path / "folder.png").mkdir()
    assert listed(tmp_path) == (
        ["a.JPG", "b.png", "below/c.webp", "below/deeper/d.tif"],
        f"passed over in {tmp_path.name}: 1 .txt, 1 without a suffix",
    )


def test_names_are_sorted_as_paths_are(tmp_path):
    """By folders first: as text, a hyphen or a dot comes before the slash."""
    touch(tmp_path, "a/z.png", "a-b/c.png", "a.png", "a.b/d.png", "Z.png", "é/1.png")
    names = list_names(tmp_path)
    assert [tmp_path / name for name in names] == sorted(tmp_path.rglob("*.png"))


def test_a_file_is_asked_for_nothing_beyond_its_folders_entry(tmp_path, monkeypatch):
    """A million calls of stat take minutes on a disk of the network."""
    touch(tmp_path, *(f"{number}.png" for number in range(50)), "below/a.png")
    asked, stat = [], os.stat

    def counted(path, *arguments, **options):
        asked.append(path)
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", counted)
    assert len(list_names(tmp_path)) == 51
    assert len(asked) < 20 and not any(str(path).endswith(".png") for path in asked)


def test_a_folder_of_pictures_alone_needs_no_line(tmp_path):
    names = sorted(f"picture{suffix}" for suffix in SUFFIXES)
    touch(tmp_path, *names)
    assert listed(tmp_path) == (names, "")
    assert {".jfif", ".gif"} <= SUFFIXES


def test_a_folder_without_pictures_is_refused(tmp_path):
    touch(tmp_path, "a.heic", "b.heic", ".c.png")
    message = r"holds no picture \(looked for .*\.png.*\); passed over: 2 \.heic, 1 hidden$"
    with pytest.raises(ImageError, match=message):
        list_images(tmp_path)
    with pytest.raises(ImageError, match="nowhere is not a folder"):
        list_images(tmp_path / "nowhere")


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    names = (".ipynb_checkpoints/a-checkpoint.png", "._a.png", ".DS_Store", ".thumbnails/large/a.png")
    touch(tmp_path, "a.png", *names, "@eaDir/a.png", "__MACOSX/._a.png")
    assert listed(tmp_path) == (["a.png"], f"passed over in {tmp_path.name}: 6 hidden")


def test_a_hidden_folder_is_searched_if_it_is_named(tmp_path):
    touch(tmp_path, ".photos/a.png")
    assert listed(tmp_path / ".photos") == (["a.png"], "")


# links


def test_linked_folders_and_files_are_followed(tmp_path):
    touch(tmp_path, "store/a.png", "store/below/b.png", "c.png", "photos/d.png")
    (tmp_path / "photos" / "more").symlink_to("../store")
    (tmp_path / "photos" / "e.png").symlink_to("../c.png")
    assert listed(tmp_path / "photos")[0] == ["d.png", "e.png", "more/a.png", "more/below/b.png"]


def test_links_never_loop_and_nothing_counts_twice(tmp_path):
    photos = tmp_path / "photos"
    touch(tmp_path, "private.png", "store/a.png", "photos/own/b.png")
    (tmp_path / "store" / "back").symlink_to(photos)
    for name, target in (("1", "own"), ("2", "../store"), ("3", "../store"), ("self", "."), ("up", "..")):
        (photos / name).symlink_to(target)
    (photos / "nothing.png").symlink_to("nowhere")
    (photos / "circle.png").symlink_to("circle.png")
    assert listed(photos) == (
        ["2/a.png", "own/b.png"],
        "passed over in photos: 5 links to what is searched anyway, 2 broken links",
    )


def test_a_closed_folder_is_said(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    line = f"passed over in {tmp_path.name}: 1 folders without permission"
    assert listed(tmp_path) == (["a.png"], line)


def test_a_disk_that_fails_is_an_error(tmp_path, monkeypatch):
    touch(tmp_path, "a.png")

    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match="Input/output error"):
        list_images(tmp_path)


# results of this program


def test_the_folder_of_results_is_passed_over(tmp_path):
    touch(tmp_path, "a.png", "outputs/samples/step_1.png", "outputs/b.png")
    line = f"passed over in {tmp_path.name}: 1 folders of results"
    assert listed(tmp_path, output_dir=tmp_path / "outputs") == (["a.png"], line)
    assert len(listed(tmp_path)[0]) == 3
    (tmp_path / "linked").symlink_to("outputs")
    assert listed(tmp_path, output_dir=tmp_path / "linked")[0] == ["a.png"]


def test_a_relative_folder_of_results_is_found(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "outputs/samples/step_1.png")
    monkeypatch.chdir(tmp_path)
    assert [str(path) for path in list_images(".", output_dir="outputs")] == ["a.png"]


@pytest.mark.parametrize("mark", ["training.log", "evaluation.json"])
def test_samples_of_earlier_runs_are_passed_over_and_photos_beside_them_are_not(tmp_path, mark):
    touch(tmp_path, "trip/a.png", "trip/samples/x.png", f"trip/{mark}", "samples/mine.png")
    line = f"passed over in {tmp_path.name}: 1 {Path(mark).suffix}, 1 folders of results"
    assert listed(tmp_path, output_dir=tmp_path / "new") == (["samples/mine.png", "trip/a.png"], line)


def test_results_among_the_photos_themselves(tmp_path):
    touch(tmp_path, "a.png", "samples/x.png")
    assert listed(tmp_path, output_dir=tmp_path)[0] == ["a.png"]
    assert listed(tmp_path / "samples", output_dir=tmp_path)[0] == ["x.png"]  # named, so it is wanted


def test_what_is_passed_over_stands_in_the_notes(tmp_path):
    touch(tmp_path, "a.png", "b.heic")
    notes, lines = [], []
    load_pictures(tmp_path, notes, lines.append)
    assert notes == [f"passed over in {tmp_path.name}: 1 .heic"] and lines == [f"warning: {notes[0]}"]

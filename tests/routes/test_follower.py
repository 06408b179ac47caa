"""What becomes of a routes file that changes: looked at by hand, with no clock."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway import routes
from gateway.routes import Table
from gateway.routes.follower import RoutesFollower, stamp_of
from gateway.settings import Settings
from tests.routes.texts import entry


@dataclass
class Followed:
    """A file, its follower, and what that has done.

    Attributes:
        taken: the names of each table that was put to use.
        counted: the results.
    """

    path: Path
    taken: list[list[str]] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    aside: Callable[[Callable[[], Table | list[str]]], Table | list[str]] = lambda work: work()

    def __post_init__(self) -> None:
        settings = Settings.load({"GATEWAY_CONFIG": str(self.path)})
        self.follower = RoutesFollower(
            self.path,
            stamp_of(self.path),
            routes.read(settings).revision,
            lambda: routes.read(settings),
            lambda table: self.taken.append(list(table.aliases)),
            self.counted.append,
            lambda work: self.aside(work),
        )

    def look(self, times: int = 2) -> None:
        for _ in range(times):
            self.follower.look()


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    path = tmp_path / "gateway.yaml"
    path.write_text(entry("one"))
    return Followed(path)


def test_a_file_that_stays_as_it_is_is_not_read_again(followed: Followed) -> None:
    followed.aside = lambda _work: pytest.fail("it was read")
    followed.look(5)


def test_a_change_is_taken_when_the_file_looks_the_same_twice(followed: Followed) -> None:
    followed.path.write_text(entry("two!"))
    followed.look(1)
    assert followed.taken == []
    followed.look(1)
    assert followed.taken == [["two!"]]
    followed.look(3)
    assert (followed.taken, followed.counted) == ([["two!"]], ["ok"])


def test_a_file_that_is_being_written_is_left_alone(followed: Followed) -> None:
    for length in range(1, 5):
        followed.path.write_text(entry("grows" * length))
        followed.look(1)
    assert followed.taken == []
    followed.look(1)
    assert followed.taken == [["grows" * 4]]


def test_what_was_written_while_it_was_read_is_not_taken(followed: Followed) -> None:
    def read_slowly(work: Callable[[], Table | list[str]]) -> Table | list[str]:
        found = work()
        followed.path.write_text(entry("later-and-longer"))
        followed.aside = lambda work: work()
        return found

    followed.aside = read_slowly
    followed.path.write_text(entry("two!"))
    followed.look(2)
    assert followed.taken == []
    followed.look(2)
    assert followed.taken == [["later-and-longer"]]


def test_another_file_in_its_place_is_seen_though_its_size_and_time_are_the_same(followed: Followed) -> None:
    was = followed.path.stat()
    other = followed.path.with_name("other")
    other.write_text(entry("two"))
    os.utime(other, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert other.stat().st_size == was.st_size
    other.rename(followed.path)
    followed.look()
    assert followed.taken == [["two"]]


def test_a_link_that_leads_elsewhere_is_seen_as_in_a_configmap(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gateway.yaml").write_text(entry(name))
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "gateway.yaml").symlink_to("..data/gateway.yaml")
    followed = Followed(tmp_path / "gateway.yaml")
    (tmp_path / "..new").symlink_to("second")
    (tmp_path / "..new").rename(tmp_path / "..data")
    followed.look()
    assert followed.taken == [["second"]]


def test_what_means_the_same_is_no_change(followed: Followed) -> None:
    followed.path.write_text("# a comment\n" + entry("one"))
    followed.look()
    assert (followed.taken, followed.counted, followed.follower.faults) == ([], [], ())


def test_a_file_with_faults_changes_nothing_and_its_faults_are_told_once(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("model_lst: []", "# again\nmodel_list: ["):
        followed.path.write_text(text)
        followed.look(4)
        assert followed.follower.faults
    assert followed.taken == []
    assert followed.counted == ["refused", "refused"], "each time that the faults are others"
    told = [record for record in caplog.records if "cannot be used" in record.message]
    assert [len(record.fields["faults"]) for record in told] == [2, 1]  # type: ignore[attr-defined]


def test_the_same_faults_are_told_once(followed: Followed) -> None:
    for text in ("model_lst: []", "model_lst: [] # still"):
        followed.path.write_text(text)
        followed.look()
    assert followed.counted == ["refused"]


def test_a_good_file_after_a_bad_one_is_taken(followed: Followed) -> None:
    followed.path.write_text("model_list:")
    followed.look()
    followed.path.write_text(entry("three"))
    followed.look()
    assert (followed.taken, followed.counted, followed.follower.faults) == ([["three"]], ["refused", "ok"], ())


def test_the_file_in_use_may_come_back(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway")
    good = followed.path.read_text()
    followed.path.write_text("model_list:")
    followed.look()
    followed.path.write_text(good)
    followed.look()
    assert (followed.taken, followed.follower.faults) == ([], ())
    assert "the routes file is again what is in use" in caplog.text


def test_a_file_that_is_gone_is_a_fault_and_what_it_said_stays(followed: Followed) -> None:
    followed.path.unlink()
    followed.look()
    [fault] = followed.follower.faults
    assert "cannot be read: No such file or directory" in fault
    assert followed.taken == []
    followed.path.write_text(entry("two!"))
    followed.look()
    assert followed.taken == [["two!"]]


def test_a_process_that_starts_later_looks_at_once(followed: Followed) -> None:
    followed.path.write_text(entry("two!"))
    followed.follower.open()
    try:
        assert followed.taken == [["two!"]]
    finally:
        followed.follower.close()


def test_a_failure_of_ours_ends_no_following(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_work: object) -> Table:
        followed.aside = lambda work: work()
        raise RuntimeError("a fault of ours")

    followed.aside = fails
    followed.path.write_text(entry("two!"))
    followed.follower.open()
    try:
        assert (followed.taken, followed.counted) == ([], ["refused"])
        assert followed.follower.faults
        assert "a fault of ours" in caplog.text
        followed.path.write_text(entry("three"))
        followed.look()
        assert (followed.taken[-1], followed.follower.faults) == (["three"], ())
    finally:
        followed.follower.close()

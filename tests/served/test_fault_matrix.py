"""Whatever a deployment does wrong before its first content, the other one answers; after it, nobody else does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.served.faults import FAULTS, Fault, Matrix

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with Matrix(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_each_fault_is_met_as_it_should_be(matrix: Matrix, fault: Fault, stream: bool) -> None:
    assert matrix.see(fault, stream=stream).unmet() == []


def test_no_redirect_was_followed(matrix: Matrix) -> None:
    fault = next(one for one in FAULTS if one.name == "redirect")
    assert matrix.see(fault, stream=False).told_by == "good"
    assert matrix.trap.requests() == []

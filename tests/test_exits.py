import pytest
from hypothesis import given
from hypothesis import strategies as st

from layeralign import LayeralignError
from layeralign.vlm.exits import Exits

CLIP_L = Exits(24, 23)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("18", (18,)),
        ("-2", (23,)),
        ("-25", (0,)),
        ("default", (23,)),
        ("embedding", (0,)),
        ("early", tuple(range(1, 9))),
        ("middle", tuple(range(9, 17))),
        ("late", tuple(range(17, 25))),
        ("all", tuple(range(25))),
        ("20, 1-3", (1, 2, 3, 20)),
        (0, (0,)),
        (-1, (24,)),
        ([5, 1], (1, 5)),
    ],
)
def test_what_a_spec_names(spec, found):
    assert CLIP_L.parse(spec) == found


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("25", "out of range"),
        ("-26", "out of range"),
        (25, "out of range"),
        (True, "true or false"),
        ([True], "true or false"),
        ([1.5], "whole number"),
        ("", "cannot read ''"),
        ([], "no exit is named"),
        ("1,1", "named twice"),
        ("default,23", "named twice"),
        ("all,-1", "named twice"),
        ("8-1", "backwards"),
        ("1-25", "out of range"),
        ("last", "cannot read 'last'"),
        ("1,", "cannot read ''"),
    ],
)
def test_what_is_refused(spec, says):
    with pytest.raises(LayeralignError, match=says):
        CLIP_L.parse(spec)


def test_groups_of_eight_blocks():
    exits = Exits(8, 7)
    assert [exits.group(i) for i in exits.all] == [
        "embedding",
        *["early"] * 3,
        *["middle"] * 3,
        *["late"] * 2,
    ]


@given(st.integers(1, 80), st.data())
def test_indices_and_their_negatives_name_the_same_exit(layers, data):
    exits = Exits(layers, layers)
    exit = data.draw(st.integers(0, layers))
    assert exits.resolve(exit - layers - 1) == exits.resolve(exit) == exit
    assert exits.parse(str(exit)) == exits.parse(exit) == (exit,)


@given(st.integers(3, 80))
def test_groups_partition_the_exits(layers):
    exits = Exits(layers, layers - 1)
    parts = [exits.parse(group) for group in ("embedding", "early", "middle", "late")]
    assert tuple(exit for part in parts for exit in part) == exits.all


@given(st.text(max_size=12))
def test_any_text_is_either_exits_or_one_sentence(text):
    try:
        assert set(CLIP_L.parse(text)) <= set(CLIP_L.all)
    except LayeralignError as error:
        assert "\n" not in str(error).replace(repr(text), "")

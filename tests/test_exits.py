import pytest
from hypothesis import given
from hypothesis import strategies as st

from layeralign import LayeralignError
from layeralign.exits import Exits, Track

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
        ([], "has no exit"),
        ("1,1", "appears twice"),
        ("default,23", "appears twice"),
        ("all,-1", "appears twice"),
        ("8-1", "reversed"),
        ("1-25", "out of range"),
        ("last", "cannot read 'last'"),
        ("1,", "cannot read ''"),
    ],
)
def test_what_is_refused(spec, says):
    with pytest.raises(LayeralignError, match=says):
        CLIP_L.parse(spec)


def test_a_policy_that_names_an_exit_very_often_is_refused_at_once():
    with pytest.raises(LayeralignError, match="exit 0 appears twice") as error:
        CLIP_L.parse("0," * 100_000 + "0")  # a minute, when each one was counted
    assert len(str(error.value)) < 200


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


# --- encoders of several stages

LLAMA = Exits(32, 32, "local", (Track("global", 8), Track("intermediate", 32, swept=False)))


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("local:18", (18,)),
        ("18", (18,)),
        ("global:3", (36,)),
        ("global:0-2, local:30-32", (30, 31, 32, 33, 34, 35)),
        ("global", tuple(range(33, 41))),
        ("local", tuple(range(33))),
        ("all", tuple(range(41))),
        ("intermediate:31", (72,)),
        ("early", tuple(range(1, 12))),
        ("default", (32,)),
        ("-1", (32,)),
    ],
)
def test_tracks(spec, found):
    assert LLAMA.parse(spec) == found


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("global:8", "no exit global:8; .*global:0 to global:7"),
        ("global:-1", "no exit global:-1"),
        ("local:33", "no exit local:33"),
        ("lokal:3", "no exit lokal:3"),
        ("global:", "cannot read ''"),
        ("global,33", "exit global:0 appears twice"),
        ("-34", "out of range"),
        ("73", "out of range"),
    ],
)
def test_tracks_that_are_not(spec, says):
    with pytest.raises(LayeralignError, match=says):
        LLAMA.parse(spec)


def test_a_track_is_unknown_where_there_is_one_stage():
    with pytest.raises(LayeralignError, match="no exit local:3"):
        CLIP_L.parse("local:3")


@given(st.integers(1, 40), st.lists(st.integers(1, 20), max_size=3), st.data())
def test_names_and_numbers_say_the_same(layers, sizes, data):
    tracks = tuple(Track(f"t{i}", n, swept=bool(i % 2)) for i, n in enumerate(sizes))
    exits = Exits(layers, layers, "main" if tracks else "", tracks)
    assert Exits.from_json(exits.to_json()) == exits
    exit = data.draw(st.integers(0, layers + sum(sizes)))
    assert exits.parse(exits.name(exit)) == (exit,) == exits.parse(str(exit))
    parts = [
        exits.parse(group) for group in exits.groups if group in ("embedding", *(t.name for t in tracks))
    ]
    assert len({exit for part in parts for exit in part}) == 1 + sum(sizes)


@given(st.text(alphabet="localg:,-0123 ", max_size=12))
def test_any_text_is_exits_of_a_track_or_one_sentence(text):
    try:
        assert all(LLAMA.name(exit) for exit in LLAMA.parse(text))
    except LayeralignError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "name", ["", "\x1b[31m", "a|b", "[x](http://y)", "<script>", "local", "A", "a" * 21, 3, None]
)
def test_tracks_of_a_strangers_run_have_plain_names(name):
    """They were shown as they are, in terminals and in Markdown."""
    made = LLAMA.to_json()
    made["tracks"][0] = made["tracks"][0] | {"name": name}
    changed = [made]
    if name != "local":
        changed.append(LLAMA.to_json() | {"main": name})
    if name not in ("", "local"):
        changed.append({"layers": 3, "default": 2, "main": name})
    for one in changed:
        with pytest.raises(LayeralignError, match="expected lower-case words"):
            Exits.from_json(one)

import json
import unicodedata

import pytest

from shards.splits import file_split, hash_split, parse_fractions, spelling

FRACTIONS = {"train": 0.7, "val": 0.2, "test": 0.1}
SUBJECTS = [f"person{index}" for index in range(3000)]


def test_shares_are_those_asked_for():
    assign = hash_split(FRACTIONS, seed=3)
    held = [assign(subject) for subject in SUBJECTS]
    for name, share in FRACTIONS.items():
        assert held.count(name) / len(held) == pytest.approx(share, abs=0.03)


def test_a_subject_keeps_its_split_whoever_else_there_is():
    alone = hash_split(FRACTIONS, seed=3)("person7")
    assign = hash_split(FRACTIONS, seed=3)
    assert {subject: assign(subject) for subject in reversed(SUBJECTS)}["person7"] == alone


def test_another_seed_makes_another_split():
    first, second = hash_split(FRACTIONS, seed=0), hash_split(FRACTIONS, seed=1)
    assert any(first(subject) != second(subject) for subject in SUBJECTS)


def test_the_order_in_which_fractions_are_written_does_not_matter():
    turned = dict(reversed(FRACTIONS.items()))
    first, second = hash_split(FRACTIONS), hash_split(turned)
    assert all(first(subject) == second(subject) for subject in SUBJECTS)


def test_the_test_set_stays_when_the_border_of_validation_moves():
    first = hash_split({"train": 0.8, "val": 0.1, "test": 0.1})
    second = hash_split({"train": 0.6, "val": 0.3, "test": 0.1})
    tested = {subject for subject in SUBJECTS if first(subject) == "test"}
    assert tested == {subject for subject in SUBJECTS if second(subject) == "test"}


def test_a_split_of_fraction_zero_gets_nobody():
    assign = hash_split({"train": 0.5, "val": 0.5, "test": 0.0})
    assert {assign(subject) for subject in SUBJECTS} == {"train", "val"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train=0.8,val=0.1", "sum to 0.9"),
        ("train=0.8,val=0.3,test=0.1", "sum to 1.2"),
        ("train=1.5,val=-0.5", "0 to 1 needed"),
        ("train=nan", "0 to 1 needed"),
        ("train=0.9,dev=0.1", "'dev' is unknown"),
        ("train", "NAME=FRACTION"),
        ("train=most", "NAME=FRACTION"),
        ("train=0.5,train=0.5", "twice"),
    ],
)
def test_impossible_fractions_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_fractions(text)


def test_fractions_are_read_as_written():
    assert parse_fractions("train=0.7, val=0.2, test=0.1") == FRACTIONS


def write_json(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_file_gives_each_subject_its_split(tmp_path):
    content = {"about": ["any", "text"], "train": ["a", "b"], "val": ["c"], "test": ["d"]}
    assign = file_split(write_json(tmp_path / "split.json", content))
    assert [assign(subject) for subject in "abcd"] == ["train", "train", "val", "test"]


def test_a_subject_that_the_file_lacks_is_refused_with_the_nearest_name(tmp_path):
    assign = file_split(write_json(tmp_path / "split.json", {"train": ["yaleB11"], "val": ["x"]}))
    with pytest.raises(ValueError, match=r"'yaleB17'.*did you mean 'yaleB11'"):
        assign("yaleB17")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ["a"], "test": ["a"]}, "listed twice"),
        ({"train": ["a", "a"]}, "listed twice"),
        ({"train": "abc"}, "not a list"),
        ({"train": [1, 2]}, "not a list"),
        ({"about": "nothing"}, "no subjects"),
        (["a"], "no subjects"),
        ("{", "not JSON"),
    ],
)
def test_a_broken_file_is_refused_by_its_name(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"split\.json.*{message}"):
        file_split(write_json(tmp_path / "split.json", content))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json.*cannot be read"):
        file_split(tmp_path / "none.json")


@pytest.mark.parametrize(
    "other",
    [
        "anna b",
        "ANNA B",
        "anna_b",
        " anna  b ",
        "Anna-B.",
        "anna\t_ b",
        "ａｎｎａ b",
        "an\u200bna b",
    ],
)
def test_one_name_has_one_spelling(other):
    assert spelling(other) == spelling("Anna B") == "anna b"


@pytest.mark.parametrize(
    ("one", "other"),
    [("anna1", "anna2"), ("anna1", "anna 1"), ("a+1", "a-1"), ("rené", "rene"), ("1.2", "12")],
)
def test_different_names_keep_different_spellings(one, other):
    assert spelling(one) != spelling(other)


@pytest.mark.parametrize("name", ["rené", "ΣΊΣΥΦΟΣ", "Straße", "ǅ", "ﬁn_", "İ", "a\u0345"])
def test_a_spelling_is_its_own_spelling_whatever_the_form_of_its_accents(name):
    assert spelling(spelling(name)) == spelling(name)
    assert spelling(unicodedata.normalize("NFD", name)) == spelling(name)


def test_a_name_of_marks_alone_has_no_spelling():
    assert spelling(" _-. ") == spelling("") == ""

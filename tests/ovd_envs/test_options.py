"""``KEY=VALUE`` on the command line."""

import pytest

from ovd_envs.errors import OVDError
from ovd_envs.options import parse_options


def test_a_value_is_json_where_it_reads_as_json():
    pairs = ["a=1", "b=true", "c=word-1", "d=[1]", "e=x=y", "f=", 'g={"turns": 2}', "h=null"]
    assert parse_options(pairs, "--env-option") == {
        "a": 1,
        "b": True,
        "c": "word-1",
        "d": [1],
        "e": "x=y",
        "f": "",
        "g": {"turns": 2},
        "h": None,
    }


@pytest.mark.parametrize("wrong", ["attempts", "=2"])
def test_what_is_no_pair_is_refused_by_the_name_of_the_flag(wrong):
    with pytest.raises(OVDError, match=f"--env-option: expected KEY=VALUE, got '{wrong}'"):
        parse_options([wrong], "--env-option")

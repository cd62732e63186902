"""slurm/site.env: read without executing anything, and refused line by line."""

import re
from pathlib import Path

import pytest

from slurm.site import Site, limit_s, options_of, read_site

EXAMPLE = Path(__file__).parent.parent.parent / "slurm" / "site.env.example"


def site(tmp_path: Path, text: str, *overrides: str) -> Site:
    (tmp_path / "site.env").write_text(text)
    return read_site(tmp_path / "site.env", overrides)


def test_the_example_shows_the_defaults_and_every_key() -> None:
    assert read_site(EXAMPLE) == Site()
    shown = [line[1:].split()[0] for line in EXAMPLE.read_text().splitlines() if re.match("#[A-Z_]+=", line)]
    keys = {line.partition("=")[0].lower() for line in shown}
    assert set(vars(Site())) <= keys
    for line in shown:
        key, _, value = line.partition("=")
        if key.lower() not in ("sbatch_options", "setup", "container", "python"):
            assert str(getattr(Site(), key.lower())).removesuffix(".0") == value, line


def test_values_are_quoted_as_in_a_shell_and_overridden(tmp_path: Path) -> None:
    text = "# a comment\n\nACCOUNT=lab-7\nCONTAINER='apptainer exec --nv a.sif'  # why\nSETUP='one x'\nSETUP='two y'\n"
    found = site(tmp_path, text, "ACCOUNT=lab-8", "NODES=4")
    assert (found.account, found.container, found.nodes) == ("lab-8", "apptainer exec --nv a.sif", 4)
    assert found.setup == ("one x", "two y")
    assert found.world_size == 32


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ACOUNT=x", "did you mean 'ACCOUNT'"),
        ("account=x", "ACCOUNT"),
        ("export ACCOUNT=x", "KEY=VALUE"),
        ("ACCOUNT=a b", "2 words"),
        ("ACCOUNT='a b'", "a word"),
        ("ACCOUNT=$(touch pwned)", "2 words"),
        ("PARTITION='$(id)'", "a word"),
        ("NODES=two", "whole number"),
        ("NODES=0", "at least one"),
        ("NODES=-1", "0 or more"),
        ("SETUP='unclosed", "quot"),
        ("TIME=soon", "time limit"),
        ("TIME=0:05:00", "WARNING_S=300"),
        ("GPUS_PER_NODE=0", "RANKS_PER_NODE"),
        ("GPU_OPTION=gpus", "gres"),
        ("SBATCH_OPTIONS='-p x'", "long options"),
        ("MOST_FRUITLESS_STARTS=0", "at least 1"),
        ("NODES=1\nNODES=2", "twice"),
    ],
)
def test_a_bad_line_is_refused(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        site(tmp_path, line + "\n")
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("5:30", 330),
        ("24:00:00", 86400),
        ("2-0", 172800),
        ("1-12", 129600),
        ("1-1:30", 91800),
        ("1-0:0:5", 86405),
    ],
)
def test_time_limits(text: str, seconds: int) -> None:
    assert limit_s(text) == seconds


def test_a_constraint_has_a_syntax_of_its_own(tmp_path: Path) -> None:
    assert site(tmp_path, "CONSTRAINT='[a100|h100]&ib'\n").constraint == "[a100|h100]&ib"


def test_options_for_all_jobs(tmp_path: Path) -> None:
    assert options_of(site(tmp_path, "SBATCH_OPTIONS='--exclusive --comment=\"a b\"'\n")) == ["--exclusive", "--comment=a b"]

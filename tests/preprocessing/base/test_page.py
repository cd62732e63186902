"""Pages and pictures: what is put in is escaped, what is missing is an error, pictures do not disturb each other."""

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from preprocessing.base.page import render
from preprocessing.base.plots import draw_svg, pictures, write_png

PAGE = """\
{% extends "shell.html" %}
{% from "parts.html" import pictures, tiles %}
{% block title %}{{ name }}{% endblock %}
{% block main %}<h1>{{ name }}</h1>{{ tiles([(name, name)]) }}{{ pictures(drawn) }}{% endblock %}
"""
EVIL = "</style><script>alert('x')</script>&$x"


def line(ax: Axes) -> None:
    ax.plot([0, 1, 2], [3, 1, 2], clip_on=True)
    ax.set(title=EVIL, ylim=(1.5, 2.5))


def nothing(ax: Axes) -> bool:
    return False


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "one.html"
    path.write_text(PAGE, encoding="utf-8")
    return path


def test_everything_that_is_put_in_is_escaped(template: Path) -> None:
    html = render(template, name=EVIL, drawn=pictures([("a", line, EVIL), ("b", nothing, "not there")]))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 6, "title, heading, both of a tile, the picture's title and its caption"
    assert EVIL not in html
    assert html.count("<svg") == 1, "a panel with nothing to show is left out"
    assert "not there" not in html


def test_what_is_missing_is_an_error(template: Path) -> None:
    with pytest.raises(UndefinedError, match="name"):
        render(template, drawn=[])


def test_pictures_of_one_page_share_no_id_and_follow_its_colours() -> None:
    first, second = draw_svg("first", line), draw_svg("second", line)
    assert first is not None
    assert second is not None
    ids = [re.findall(r'\bid="([^"]*)"', svg) for svg in (first, second)]
    assert ids[0], "a clipped line has a path to be clipped by"
    assert not set(ids[0]) & set(ids[1])
    assert draw_svg("first", line) == first, "the same picture every time"
    assert "currentColor" in first
    assert "#010203" not in first
    assert not re.search(r"<svg[^>]*(width|height)=", first)
    assert draw_svg("empty", nothing) is None


class Broken(Artist):
    """Fails when the picture is half written."""

    def draw(self, renderer: object) -> None:
        raise ValueError("no")


def test_a_png_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, (2, 1), lambda figure: line(figure.subplots()))
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no"):
        write_png(path, (2, 1), lambda figure: figure.add_artist(Broken()))
    assert [(left, left.read_bytes()) for left in tmp_path.iterdir()] == [(path, before)]

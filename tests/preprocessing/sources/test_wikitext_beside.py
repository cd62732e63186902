"""Wiki markup: what stands beside something removed, digits beside digits, words of other languages beside a wiki's own."""

import pytest

from preprocessing.sources.wiki.names import Site
from preprocessing.sources.wikitext import plain_text


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("It was fun, {{foo}} :-) and {{foo}}, ;-) then", "It was fun, :-) and, ;-) then"),
        ("He is mayor (2004–{{foo}}) of [[Bath]] (1990-{{foo}}; {{foo}})", "He is mayor (2004–) of Bath (1990-)"),
    ],
)
def test_beside_a_gap_what_closes_no_bracket_is_the_authors(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("10<sup>6</sup> of 3 × 10<SUP>−3</SUP>, 101<sub>2</sub>, 10{{sup|6}}", "10⁶ of 3 × 10⁻³, 101₂, 10⁶"),
        ("1<sup>st</sup> m<sup>2</sup> H<sub>2</sub>O x{{sup|2}} 3<sup>''n''</sup> 7<sup>8", "1st m2 H2O x2 3n 78"),
    ],
)
def test_a_number_above_or_below_another_is_no_part_of_it(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


@pytest.mark.parametrize(
    ("language", "wikitext", "plain"),
    [
        ("ru", "Башня (англ. {{lang-en|tower}}) {{RUS}} от {{дата|3|5|1990}}", "Башня (англ. tower) от 1990-05-03"),
        ("ja", "{{JPN}}の{{zh|c=北京|p=Běijīng}}", "の北京; Běijīng"),
        ("de", "{{langx|fr|mot}} {{Date|3|Mai|1990}}", "mot 3 Mai 1990"),
        ("en-GB", "{{lang-fr|mot}} {{FRA}}", "French: mot France"),
    ],
)
def test_wikis_in_other_languages_get_no_english_words(language: str, wikitext: str, plain: str) -> None:
    assert plain_text(wikitext, Site(language)) == plain

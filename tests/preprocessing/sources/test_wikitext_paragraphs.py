"""Where a paragraph of wiki markup ends: at an empty line and at markup, not where its author's line does."""

import pytest

from preprocessing.sources.wikitext import plain_text


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("The ratio of two\nvariances. The test\nis old.", "The ratio of two variances. The test is old."),
        ("As '''Ronald''' \n[[Ronald Fisher|Fisher]] said,{{efn|a\nb}}\n\"it is\".", 'As Ronald Fisher said, "it is".'),
        ("One.\n\nTwo.\n \nThree.", "One.\nTwo.\nThree."),
        ("Intro\n* one\n* two\nafter it\n# three\n: four\n; five: six", "Intro\none\ntwo\nafter it\nthree\nfour\nfive\nsix"),
        ("Before\n== Head ==\nBehind\n----\nrule", "Before\nHead\nBehind\nrule"),
        ("a first<br>\nsecond<br />third\n<div>fourth</div>\nfifth", "a first\nsecond\nthird\nfourth\nfifth"),
        ("<poem>\nRoses are red,\nviolets blue\n</poem>\nsaid\nhe", "Roses are red,\nviolets blue\nsaid he"),
        ("{{poemquote|Roses are red,\nviolets blue}}\nsaid he", "Roses are red,\nviolets blue\nsaid he"),
        ("{{plainlist|\n* Ada\n* Bob\n}}\n{{ubl|cat|dog}}\nother", "Ada\nBob\ncat\ndog\nother"),
        ("{{Infobox person\n| name = A}}\n'''A''' is a\nletter.\n{{stub}}\nB is another.", "A is a letter.\nB is another."),
        ("Text\n{| class=x\n| cell\n|}\nbelow\nit", "Text\nbelow it"),
        ("A code:\n as it is set\nand on", "A code:\nas it is set\nand on"),
        ("Steps:\n1. go\n2. come\n– stay", "Steps:\n1. go\n2. come\n– stay"),
    ],
)
def test_lines_of_a_paragraph_are_one(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain

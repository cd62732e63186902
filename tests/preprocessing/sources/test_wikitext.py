"""Wiki markup as prose: MediaWiki's grammar, unbalanced markup, the author's own characters, templates, time."""

import time
from collections import Counter

import pytest

from preprocessing.sources.wiki.names import Site, is_redirect
from preprocessing.sources.wiki.removed import Removed
from preprocessing.sources.wiki.tags import end_of_gallery
from preprocessing.sources.wikitext import plain_text


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("The ''Argo'''s mast", "The Argo's mast"),  # a lone 3 behind an open 2
        ("''a'''b''' c''''d'''' e'''''f'''''", "ab c'd' ef"),
        ("''''''six", "'six"),
        ("l'''eau''", "l'eau"),
        ("x '''b''' ''i'''s", "x b' is"),  # the run behind a word of one letter gives way
        (
            "''x''<nowiki/>'s and it{{'s}} and rock {{'}}n{{'}} roll, the boys{{-'}}",
            "x's and it's and rock 'n' roll, the boys'",
        ),
        ("''open\n'''next", "open next"),  # balanced line by line
    ],
)
def test_apostrophes(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("In [[Mission: Away]] and [[Star Log: Two|it]].", "In Mission: Away and it."),
        ("[[Bild:Haus.png|mini|links|Ein [[Haus]]]]Das Haus.", "Das Haus."),
        ("[[Fichier:a.svg|vignette]][[Categoría:X]][[Категория:Y]][[ファイル:b.jpg]][[תמונה:c.png|ממוזער]]Text.", "Text."),
        ("[[Bild: The Story]] of a paper", "Bild: The Story of a paper"),  # no file is called so
        ("a [[fr:Titre]]b [[:fr:Titre]] [[wikt:word|word]] [[xy: Title]]", "a b fr:Titre word xy: Title"),
        ("[[File:a.jpg|thumb|see [http://x.org here]]] stays", "stays"),
        ("[[a|b]]s [[c]]d [[Town (Kent)|]] [[#Part]]", "bs cd Town #Part"),
    ],
)
def test_links(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


def test_namespaces_are_those_of_the_export() -> None:
    site = Site("xx", {"kuvo": 6, "aro": 14, "wikipedia": 4})
    assert plain_text("[[Kuvo:a b|c]][[Aro:d]]e [[Wikipedia:f]]", site) == "e Wikipedia:f"
    assert plain_text("[[Kuvo:a b|c]] [[Aro:d]] e") == "c Aro:d e"


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ('<div class="x">He left.\n\nHe <b>came.</span>', "He left.\nHe came."),
        ('He <ref name="a left. She <small>stayed.', "He left. She stayed."),
        ("One.<!-- a note that\nnever ends\n\nTwo.", "One.\nTwo."),
        ("One.<!-- a --> Two.<!---->", "One. Two."),
        ("<gallery>\nFile:a.jpg|A\n\nb.png|B\nThe town is old.", "The town is old."),
        ("A.<ref>Smith 1990. B.<ref>Jones</ref> C.", "A.Smith 1990. B. C."),
        ("{| class=x\n|-\n! a !! b\n| c\n\nThe war ended.\n== Peace ==\nIt came.", "The war ended.\nPeace\nIt came."),
        ("{{Infobox town\n| name = X\n| area = 5\n\n'''X''' is a town.", "X is a town."),
        ("a [[link\n\nb [[c]] d]] e", "a link\nb c d e"),
        ("[[File:a.jpg|thumb|caption\n\nThe text.", "caption\nThe text."),
        ("a }} b ]] c {{d|e]]}} f", "a b c f"),
        ("text <math>x</ math> y", "text y"),
        ("{{a|{{b}} c", "c"),
    ],
)
def test_unbalanced_markup_leaves_none_and_loses_no_prose(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


@pytest.mark.parametrize(
    "text",
    [
        "He was mayor (1999–) and editor (anti-).",
        "It is :-) or ;-) in f() and list[] , as in x [ ] y.",
        "!Xóõ is spoken there.",
        "| a bar of one's own",
        "C# and #hashtag, a * b, 5 ' x",
        "map {a: {b: 1}} and t[b[0]]",
        "AT&T &copy 2000 &nosuch; R&D",
        "a < b <unknown> c > d <3",
        "snake__case__name __init__ -- end",
        "x :) (;) [,]",
    ],
)
def test_the_authors_own_characters_stay(text: str) -> None:
    assert plain_text(text) == text


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("a (<ref>x</ref>) b, <ref>y</ref>, c <ref>z</ref>.", "a b, c."),
        ("X ({{IPA|x}}; born 1950; {{foo}}) (–{{foo}}) [{{foo}}]", "X (born 1950)"),
        ("{{foo}}, he said", "he said"),
        ("“{{foo}}” said <math>a</math>, <math>b</math> or", "said, or"),
        ("a<ref>x</ref>b <ref>y</ref> c", "ab c"),
        ("the sounds {{foo}}, {{foo}}, {{foo}}, {{foo}} and {{foo}}", "the sounds, and"),
        ("the letters {{vr|ai}} and {{angbr|ay}}", "the letters ⟨ai⟩ and ⟨ay⟩"),
        ("* {{foo}}. First of a series.\n* {{foo}} – a database\n* {{foo}} −5 m", "First of a series.\na database\n−5 m"),
        ("She wrote: “{{foo}}” «{{foo}}».", "She wrote."),
        ("Read http://x.org/a_(b). It (at http://x.org/a_(b)) is <http://x.org> new (http://x.org/).", "Read. It (at) is new."),
    ],
)
def test_repairs_stand_beside_what_was_removed(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("&amp;lt;i&amp;gt; &lt;i&gt; &#91;&#91;a&#93;&#93; &#x41;&mdash;&#0;", "&lt;i&gt; <i> [[a]] A—&#0;"),
        ("<nowiki>''a'' [[b]] {{c}} &amp; <ref></nowiki> d", "''a'' [[b]] {{c}} & <ref> d"),
        ("call <code>f(''x'')</code> or <syntaxhighlight inline lang=c>a[[1]]</syntaxhighlight>.", "call f(x) or a[[1]]."),
        ("a\n<pre>b</pre>\n<syntaxhighlight lang=c>\nd;\n</syntaxhighlight>\n<math>e</math>", "a"),
        ("; term : meaning\n:: said\n----rule", "term\nmeaning\nsaid\nrule"),
        ("-{zh-hans:软件; zh-hant:軟體;}- -{甲}- -{H|zh-cn:a;zh-tw:b}-c", "软件 甲 c"),
        ("-{zh-hans:甲&amp;乙;zh-hant:丙}- -{A|丁=>zh-cn:戊}- -{zh-hant:己; 庚;zh-hans:辛}-", "甲&乙 戊 己; 庚"),
        ("a __KEIN_INHALTSVERZEICHNIS__ __БЕЗ_ОГЛАВЛЕНИЯ__ __目次強制__ b", "a b"),
    ],
)
def test_entities_literal_text_and_variants(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("{{convert|3|to|7|mi|km}} {{convert|2|and|4|m|ft}} {{cvt|1|-|2|kg}}", "3 to 7 mi 2 and 4 m 1–2 kg"),
        ("{{convert|6|ft|2|in|m}} {{convert|9|lb|4|oz|kg}}", "6 ft 2 in 9 lb 4 oz"),
        ("{{convert|10|in|x|20|in|cm}} {{cvt|5|ft|6|in|to|6|ft|2|in}} {{convert|3|(-)|4|m}} {{cvt|5|km|mi}}",
         "10 in × 20 in 5 ft 6 in to 6 ft 2 in 3–4 m 5 km"),
        ("{{convert|-4|C|F}} {{convert|2+1/2|x|3|in}} {{convert|8|+/-|1|sqmi}}", "−4 °C 2 1/2 × 3 in 8 ± 1 sq mi"),
        ("{{val|1.5|0.2|e=-6|u=m}} {{frac|3|4}} 2{{frac|1|2}} {{sfrac|1|3}}", "1.5 ± 0.2 × 10⁻⁶ m 3/4 2 1/2 1/3"),
        ("{{As of|2011|3}} {{as of|2011|3|4|lc=y|df=US}}", "As of March 2011 as of March 4, 2011"),
        ("{{birth date|1900|2|3|df=yes}}", "3 February 1900"),
        ("{{death date and age|1970|1|1|1900|2|3}}", "January 1, 1970 (aged 69)"),
        ("{{flag|Peru}} {{flagcountry|BRA}} {{JPN}}", "Peru Brazil Japan"),
        ("{{HMS|Ajax}} {{USS|Ohio|SSGN-726}} {{ship|MV|Aurora}} {{sclass|Ohio|submarine}}",
         "HMS Ajax USS Ohio (SSGN-726) MV Aurora Ohio-class submarine"),
        ("{{lang|de|Haus}} {{transl|ru|dom}} {{transl|ar|ALA|bayt}} {{lang-fr|maison}} {{langx|es|casa}}",
         "Haus dom bayt French: maison Spanish: casa"),
        ("{{ill|Some One|fr|Quelqu'un}} {{abbr|UN|United Nations}} {{small|s}} {{nowrap|a b}}", "Some One UN s a b"),
        ("{{US$|5 million}} {{€|3}} {{currency|7|GBP}} {{INR|9}}", "US$5 million €3 £7 ₹9"),
        ("1{{nbsp}}m 2{{snd}}3 a{{spaced ndash}}b {{nihongo|Cat|猫|neko}}", "1 m 2 – 3 a – b Cat (猫, neko)"),
        ("{{quote|text=To be = not to be.|author=S}}", "To be = not to be."),
        ("{{nowrap|{{convert|5|km}} of {{lang|la|via}}}} {{ nowrap \n| 1=x=y }}", "5 km of via x=y"),
        ("{{formatnum:1234}} {{lc:ABC}} {{{1|default}}}", "1234 abc default"),
    ],
)  # fmt: skip
def test_templates_that_show_text(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


def test_what_is_left_out_is_counted() -> None:
    removed = Removed()
    text = (
        "{{Odd one|a}} x {{odd_one}} {{#if:a|b}} {{Infobox y|z={{inner}}}} {{lang|fr|{{second}}u}}<ref>r</ref>\n"
        "{| \n|{{in a table}}\n|}\n== Empty ==\n* 1990\n<math>a</math> {{tag}}\n|-\n| a || b\n[[Category:C]]<!-- c"
    )
    assert plain_text(text, Site(), removed) == "x u"
    assert removed.templates == {"odd one": 2, "#if:": 1, "second": 1, "tag": 1}
    assert removed.lines == {"no letter": 1, "row of a broken table": 2, "heading of an empty section": 1}
    kinds = ("reference", "table", "formula", "category", "comment without an end", "unknown template")
    assert [removed.markup[kind] for kind in kinds] == [1, 1, 1, 1, 1, 5]


def test_redirects_of_all_languages() -> None:
    yes = [
        "#REDIRECT [[A]]",
        " #redirect: [[A]]",
        "#WEITERLEITUNG[[A]]",
        "#перенаправление [[А]]",
        "#重定向 [[甲]]",
        "# تحويل [[ا]]",
    ]
    no = ["# first [[item]]", "#REDIRECTED [[A]]", "REDIRECT [[A]]", "#REDIRECT"]
    assert [is_redirect(text) for text in yes + no] == [True] * len(yes) + [False] * len(no)


PILES = (
    '<ref name="a word ', "{{", "{{a|", "[[a|", "{|\n", "<!-- ", "<nowiki>", "''' ", "({{x}} ", "<table><tr>", "[http://a ", "http://,",
    " \n", "&amp;", "{{a [[b -{c <ref>", "|\n", "}} ", "]]", "'", "==", "<gallery>\n", "(", "-{zh:", "{{nowrap|",
    "http://a(b)) ",
)  # fmt: skip


@pytest.mark.parametrize("pile", PILES)
def test_time_grows_with_the_size(pile: str) -> None:
    def seconds(characters: int) -> float:
        start = time.process_time()
        plain_text(pile * (characters // len(pile)) + "\nThe end. {{x}}")
        return time.process_time() - start

    small = min(seconds(10_000) for _ in range(3))
    bound = max(24 * small, 0.05)  # eight times; quadratic: 64 times
    assert any(seconds(80_000) < bound for _ in range(3)), "a busy machine may slow one of them, hardly all three"


def test_deep_nesting_and_many_closings() -> None:
    assert plain_text("{{nowrap|" * 60 + "deep" + "}}" * 60) == "deep"
    assert "}" not in plain_text("{{nowrap|" * 20_000 + "too deep" + "}}" * 20_000)
    assert plain_text("{{" * 50_000 + "\ntext") == "text"
    assert plain_text("[[" * 50_000 + "\ntext").endswith("text")


def test_counts_add_up_over_pages() -> None:
    removed = Removed()
    for _ in range(3):
        plain_text("{{q}} a", Site(), removed)
    assert removed.templates == Counter({"q": 3})


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        (
            "She reigned (1702–<ref>a</ref>), (1703–<!-- now -->) and (post-{{sfn|b}}).",
            "She reigned (1702–), (1703–) and (post-).",
        ),
        ("So ;-<!-- x -->) and g(<!-- x -->) and rows[<!-- x -->]", "So ;-) and g() and rows[]"),
        (
            '"One."<ref>a</ref> "Two." (<ref>b</ref>) Fin <ref>c</ref>. Le fait<ref>d</ref> ; donc',
            '"One." "Two." Fin. Le fait ; donc',
        ),
        ("== Life ==<ref>a</ref>\nA {{ipa|x}}<ref>b</ref> c (<ref>d</ref>{{ipa|x}}; born 1900)", "Life\nA c (born 1900)"),
        ("<!-- note -->* item\n<!-- note -->{| class=x\n| cell\n|}\nProse.", "item\nProse."),
    ],
)
def test_beside_notes_and_comments_punctuation_is_the_authors(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("{{nowrap|{{math|1=F = ma}}}} holds", "F = ma holds"),
        ("{{small|[[x|p = q]]}} and {{quote|See {{math|a {{=}} b}} there.}}", "p = q and\nSee a = b there."),
        ("The ''Ark''{{'}}s mast, ''Boat''{{'s}} oar", "The Ark's mast, Boat's oar"),
        ("{{tlit|ar|kitab}} {{script/Hebr|שלום}} {{lang-zza|text}} {{langnf|de|German|Haus}}", "kitab שלום text German: Haus"),
        ("{{lang|sr-Latn|a}} {{langue|it|ciao}} {{date|3|mai|1901}} {{dts|1901|5|3}}", "a ciao 3 mai 1901 3 May 1901"),
        (
            "{{unité|7|km|2}}, {{XVIIIe siècle}}, {{1er}}, {{citation|mot}} {{citation|title=no}}",
            "7 km², XVIIIe siècle, 1er, « mot »",
        ),
        ('{{"|Satz}} und {{"}}x{{"}}', '„Satz“ und "x"'),
        (
            "{{link-en|甲|A}} {{link-en|甲|A|乙}} {{tsl|en|A|甲}} {{読み仮名|漢字|かな}} {{仮リンク|甲|en|A|label=乙}}",
            "甲 乙 甲 漢字（かな） 乙",
        ),
        (
            "{{ill|de|Haus|Haus (x)}} {{ill|Haus|de}} {{as of|1990|pre=early}} {{inrconvert|5|c}}",
            "Haus Haus As of early 1990 ₹5 crore",
        ),
        ("{{val|2|x|3|x|4|u=m}} {{val|5|u=%}} {{convert|5|/|6|km}} {{±|1|2}}", "2 × 3 × 4 m 5% 5/6 km +1 −2"),
        ("{{nihongo|A|B|C|extra=D}} {{korean|hangul=한|rr=han}}", "A (B, C, D) 한; han"),
        ("{{script|Goth|𐌰}} {{script|Hebr}} {{flag+link|History of|Fiji}} {{red|hot}} {{mya|5|7}} {{MYA}}",
         "𐌰 Hebr Fiji hot 5–7 million years ago Myanmar"),
        ("{{нп5|Статья|текст|en|Article}} {{нп5|Статья||en|Article}} {{s|10 км}}", "текст Статья 10 км"),
        ("{{s2|XIX|e|XX|e}} {{s-|XV|e}} {{refnec|phrase}}", "XIXe et XXe siècles XVe siècle phrase"),
        ("{{music|time|3|4}} B{{music|b}}", "3/4 B♭"),
        ("{{convert|9|Tcuft}} {{convert|2|e6cuyd}} {{convert|3|oilbbl/d}} {{convert|4|W/m2}} {{cvt|6|e3USgal}}",
         "9 trillion cu ft 2 million cu yd 3 bbl/d 4 W/m² 6 thousand US gal"),
    ],
)  # fmt: skip
def test_templates_that_show_their_text(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


def test_a_line_without_dropped_text_counts_nothing() -> None:
    removed = Removed()
    plain_text("One line.", removed=removed)
    assert removed == Removed()
    assert not removed.lines.keys()


def test_of_a_page_that_is_one_line_each_gallery_looks_at_a_stretch() -> None:
    """Else a row of galleries takes quadratic time."""
    assert end_of_gallery("File:a.jpg|b\nText", 0) == 12
    assert end_of_gallery("a" * 5000 + ".jpg|b", 0) == 0

"""Templates: what the commonest of them show. Without their pages nobody can expand them all, so this is a table.

A template is (1) shown as this table says, (2) known to show nothing that belongs to the prose: infoboxes, references,
maintenance, navigation; or (3) unknown: dropped, and counted by name. Names are folded: case and underscores do not count.
"""

# ruff: noqa: E501 (tables are best read as tables)
from preprocessing.sources.wiki import dates, languages, shown, units
from preprocessing.sources.wiki.codes import COUNTRIES, CURRENCIES, LANGUAGES
from preprocessing.sources.wiki.marks import BREAK
from preprocessing.sources.wiki.shown import Show


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.replace("\n", " ").split(";") if name.strip()]


# Zero-width or a character: name -> what it shows.
_CHARACTERS = {
    **dict.fromkeys(_names("nbsp; space; spaces; pad; thinsp; thin space; hairsp; hair space; ensp; emsp; indent; 0ws; nnbsp; px2; figure space"), " "),
    **dict.fromkeys(_names("snd; snds; spnd; sndash; spaced ndash; spaced en dash; spaced endash; dash; –; en dash spaced; nbsndash; nbspndash"), " – "),
    **dict.fromkeys(_names("ndash; endash; en dash; nsndns"), "–"),
    **dict.fromkeys(_names("mdash; emdash; em dash; mdashb; —; mdash2; nsmdns"), "—"),
    **dict.fromkeys(_names("spaced em dash; smd; smds; spaced mdash"), " — "),
    **dict.fromkeys(_names("shy; zwsp; wbr; wj; lrm; rlm; zwnbsp; nowrap begin; nowrap end; nobr begin; nobr end; nwb; wrap; nowrap start; ns; nwe; j end; noindent"), ""),
    **dict.fromkeys(_names("br; crlf; break; crlf2; clear line; newline; -break"), BREAK),
    **dict.fromkeys(_names("'; apostrophe; apos; ’"), "'"),
    **dict.fromkeys(_names("dot; middot; ·; •; bull; bullet; ,; sdot; \\; •w; ·w"), " · "),
    **dict.fromkeys(_names("ellipsis; ...; …"), "..."),
    "minus": "−",
    "'s": "'s", "-'": "'", "-'s": "'s", "' \"": "' \"", "\" '": "\" '", "-\"": "\"", "'-": "'", "\"'": "\"'", "' '": "' '",
    "hyphen": "-", "long dash": "——", "times": "×", "divide": "÷", "pm": "±", "degree": "°", "deg": "°", "pi": "π",
    "=": "&#61;", "!": "&#124;", "pipe": "&#124;", "(": "&#123;", ")": "&#125;", "((": "&#123;&#123;", "))": "&#125;&#125;",
    "!(": "&#91;", ")!": "&#93;", "bracket": "&#91;", "*": "*", "dagger": "†", "double-dagger": "‡", "dagger2": "‡", "zwj": "\u200d",
    "zwnj": "\u200c", "tilde": "~", "colon": ":", "slash": "/", "okina": "ʻ", "'okina": "ʻ", "ʻokina": "ʻ", "hamza": "ʼ", "ayin": "ʽ",
    "ohm": "Ω", "micro": "μ", "mu": "μ", "euro": "€", "euro sign": "€", "pound sterling": "£", "rupee": "₹", "inr sign": "₹", "sharp": "♯",
    "flat": "♭", "natural": "♮", "male": "♂", "female": "♀", "check mark": "✓", "gal": "US gal", "zodiac": "", "numero": "№", "no.": "No.",
    "number sign": "#", "hash": "#", "backslash": "&#92;", "ndash s": " – ",
}  # fmt: skip

# An argument is shown where the template stands: the first, or the one of that number (-1: the last).
_FIRST = _names(
    "nowrap; nobr; nobreak; no wrap; nowr; j; small; smaller; small2; big; larger; large; huge; midsize; em; strong; strike; bold; italic; italics; "
    "noitalic; nobold; nonbold; roman; unbold; underline; overline; uline; ins; del; abbr; abbrv; abbreviation; tooltip; tool tip; abbrlink; "
    "tt; mono; monospace; code; samp; kbd; var; varserif; mvar; math; bigmath; mathcal; smallcaps; sc; sc1; sc2; smallcaps all; allcaps; "
    "unicode; iast; iso 15919; pie; not a typo; typo; as written; notatypo; proper name; linktext; angbr2; as is; "
    "hebrew; nastaliq; nastaleeq; urdu; ruby; ruby-ja; furigana; nihongo2; nihongo foot; kanji; kana; hiragana; katakana; zh-lang; "
    "red link; "
    "visible anchor; vanchor; visibleanchor; va; no redirect; nrd; format link; "
    "clarify span; citation needed span; cns; cn span; citation needed lead; disputed span; which span; who span; better source needed span; "
    "flag; flagu; flagg; flag country name; flagtext; flaglink; flagicon text; flagd; flag unsorted; "
    "birth-date; death-date; start-date; end-date; birth-date and age; death-date and age; "
    "stn; rws; stnlnk; station; sta; station link; railway station; metro; lrt; "
    "marriage; chem name; sub; sup; superscript; subscript; resize2; vulgar; overset; "
    "strong text; highlight; key press; key; button; black; white; mark; font; kerned; ссылка; comment; "
    "film; mset; set; tqq; tq; xt; mxt; nq; pq; qi; wikt; wiktionary pipe; w; wp; "
    "fmtn; fmt; num; number; formatnum; nts; number table sorting; sort key; "
    "nobr text; nowrap text; mono text; page numbers; rtl text; sm; smd text; keep; "
    "s+; nobr2; red; green; blue; gray; grey; orange; purple; brown; yellow; maroon; navy; teal; silver; gold; pink; strikethrough; "
    "italics correction; annotated link; refnec; référence nécessaire; référence souhaitée; citation nécessaire; passage non neutre; "
    "pas clair; nb; 要出典範囲; jis2004フォント; jis90フォント; 補助漢字フォント; "
    "esd; nihongo title; small caps; plain text; text; ssub; ssup; su; lk; lx; literal; proto; reconstruction; wikt-link; wtl"
)
_OTHERS: dict[str, int] = {
    **dict.fromkeys(_names("lang; langr; language text; lang2; wikt-lang; rtl-lang; rtl lang; color; colour; colored text; fontcolor; font color; colorbox text; "
        "textcolor; hover title; hovertitle; url2; plainlink; sort; sortkey; hs2; align; text align; flag2; colors text; audio; audio2; transl3; colored link; flagathlete2; langue; lengua; "
        "script; flaglink; flag+link; highlight round; background color; bg; bgcolor; ref-lang; citar lang"), 2),
    **dict.fromkeys(_names("transl; transliteration; translit; tlit; transl.; romanization; resize; font size; fontsize; fs; size; sans-serif; serif; transliteración; bgc"), -1),
    **dict.fromkeys(_names("columns-list; column-list; columns list; col-list"), -1), "colors": 3, "colour2": 3, "sortdate": 2,
}  # fmt: skip
# Blocks: their text stands in paragraphs of its own.
_BLOCKS = _names(
    "quote; blockquote; quotation; cquote; bquote; quote without source; centered quote; long quotation; poemquote; poem quote; poem; verse; "
    "block indent; blockindent; bi; center; centre; centered; left; right; float; plainlist; plain list; flatlist; flat list; smalldiv; div; nowrap block; "
    "term; defn; glossary term; glossary definition; ghat; block quotation; quote text; cita; citation bloc; début citation; zitat; citazione; citação; cytat; цитата; citat; cite quote"
)
_LISTS = _names(
    "ubl; unbulleted list; ublist; vunblist; bulleted list; ordered list; bulletlist; blist; olist; unbullet; ul; ol"
)
_INLINE_LISTS = {
    **dict.fromkeys(_names("hlist; horizontal list; flowlist; hlist-comma"), " · "),
    **dict.fromkeys(_names("post-nominals; postnominals; postnom; enum; comma separated entries; cslist; clist; comma list"), ", "),
    **dict.fromkeys(_names("keypress; key combination; keys"), "+"),
    **dict.fromkeys(_names("chem; chem2; ce; linktext; codes; ruby text; hieroglyphs text; concat; nuclide text; s-text"), ""),
    **dict.fromkeys(_names("gaps; gapnum; spaced; sortname; sort name"), " "),
}  # fmt: skip
_LABELLED = {
    "isbn": "ISBN ", "isbnt": "", "issn": "ISSN ", "oclc": "OCLC ", "oeis": "OEIS ", "doi": "doi:", "pmid": "PMID ", "arxiv": "arXiv:", "lccn": "LCCN ",
    "circa": "c. ", "c.": "c. ", "ca": "c. ", "ca.": "c. ", "n°": "n° ", "nº": "nº ", "p.": "p. ", "mme": "Mme ", "floruit": "fl. ", "fl": "fl. ", "fl.": "fl. ", "born": "b. ", "died": "d. ", "reign": "r. ", "r.": "r. ", "b.": "b. ", "d.": "d. ",
    "sqrt": "√", "radic": "√", "lit": "lit. ", "literal translation": "lit. ", "see below": "see ", "see above": "see ", "approx": "approx. ",
    "awol": "", "section link1": "§ ", "sect": "§ ", "section": "§ ", "abt": "about ",
}  # fmt: skip
_AROUND = {
    "angbr": ("⟨", "⟩"), "vr": ("⟨", "⟩"), "angle bracket": ("⟨", "⟩"), "angle brackets": ("⟨", "⟩"), "gloss": ("‘", "’"), "brackets": ("[", "]"), "bracket": ("[", "]"), "interp": ("[", "]"),
    "notatemplate": ("", ""), "parentheses": ("(", ")"), "abs": ("|", "|"), "floor": ("⌊", "⌋"), "ceil": ("⌈", "⌉"), "norm": ("‖", "‖"), "quote inline": ("“", "”"),
    "orthography": ("⟨", "⟩"), "grapheme": ("⟨", "⟩"), "sqbrackets": ("[", "]"), "dquote": ("“", "”"), "squote": ("‘", "’"), "bra": ("⟨", "|"), "ket": ("|", "⟩"), "set braces": ("{", "}"),
}  # fmt: skip
_SHIP_PREFIXES = _names(
    "uss; hms; ss; ms; mv; rms; hmas; hmcs; hmnzs; hmt; hmm; ins; usns; uscgc; usrc; css; sms; hdms; hnlms; hnoms; hswms; jds; js; rfa; rv; mt; mts; gts; pt; usat; "
    "uscg; usav; usrcs; hmis; hmps; hmsas; pns; roks; brp; lé; tcg; orp; arа; ara; bap; tss; st; ps; sv; pss; rmms; hms submarine; cs; fv; mf; mtb; psv; nms; usc&gs; noaas; cscl; gmv; ts; my"
)


def _table() -> dict[str, Show]:
    table: dict[str, Show] = {}
    # An apostrophe as an entity: beside those of bold and italic it is none of theirs.
    table.update({name: shown.always(text.replace("'", "&#39;")) for name, text in _CHARACTERS.items()})
    table.update(dict.fromkeys(_FIRST, shown.first_of))
    table.update({name: shown.numbered(number) for name, number in _OTHERS.items()})
    table.update(dict.fromkeys(_BLOCKS, shown.block))
    table.update(dict.fromkeys(_LISTS, shown.lines_of))
    table.update({name: shown.joined(separator) for name, separator in _INLINE_LISTS.items()})
    table.update({name: shown.labelled(label) for name, label in _LABELLED.items()})
    table.update({name: shown.around(*pair) for name, pair in _AROUND.items()})
    table.update({name: shown.currency(symbol) for name, symbol in CURRENCIES.items()})
    table.update({f"lang-{code}": languages.language(code) for code in LANGUAGES})
    table.update({code: shown.always(name) for code, name in COUNTRIES.items() if len(code) == 3})
    table.update({name: shown.prefixed_ship(name.upper() if name.isascii() else name) for name in _SHIP_PREFIXES})
    functions: dict[Show, str] = {
        shown.convert: "convert; cvt; conv; convinfobox; convert/spell; km to mi; convertabbr; unità; unitat; yksikkö; км; konvertigu",
        shown.val: "val; value",
        shown.fraction: "frac; sfrac; fraction; fract; sfrac2; vulgar fraction; frac2; fr; fracción; frazione; fraktion",
        shown.power: "pow; 10^; power; exp",
        shown.exponent: "e; x10^; esp; exponent; sn; scientific notation; x10",
        shown.height: "height; weight; hgt",
        dates.MONTH_FIRST: "birth date; start date; end date; birth date and age; start date and age; dob; bda; film date; release date; launch date; birth year and age; date of birth; birth year",
        dates.DAY_FIRST: "dts; date table sorting; dtsh; date; date-; dmy; birth date df; datum; fecha; data; дата; date de naissance; date de décès",
        dates.dated_age: "death date and age; death date; dda; death year and age",
        dates.age: "age; age in years; age as of date; ayd; years old",
        dates.as_of: "as of; asof; as of?; as of now",
        shown.any_currency: "currency; money; cur; formatprice; format price",
        shown.pounds: "£sd; lsd; pounds, shillings, and pence",
        shown.ship: "ship; ship/sandbox; navire; schiff",
        shown.ship_class: "sclass; sclass2; sclass-; ship class; sclass3; sclass/core",
        languages.langx: "langx; lang-x",
        languages.named_language: "langnf; lang with name; language with name/for",
        languages.korean: "korean; ko-hhrm; korean/auto",
        languages.reading: "読み仮名; ふりがな; yomigana; 読み仮名 ruby不使用",
        languages.quoted: "\"",
        languages.guillemets: "guil; guillemets; citation; citation étrangère",
        shown.measured: "unité; unidad; nombre; unidade",
        languages.foreign_link: "lien; le; link-en; link-de; link-fr; link-ja; link-ru; link-es; link-it; link-ko",
        languages.missing_link: "нп; нп1; нп2; нп3; нп4; нп5; не переведено; не переведено 1; не переведено 2; не переведено 3; не переведено 4; не переведено 5",
        languages.translated_link: "tsl; translink; ilh",
        shown.rupees: "inrconvert; inr convert",
        shown.plus_minus: "±; plusminus; plus minus",
        languages.interlanguage: "ill; interlanguage link; ill2; iw; iw2; interlanguage link multi; illm; ilm; interwiki link; link-interwiki; 仮リンク",
        languages.zh: "zh; zh-full; chinese inline; lang-zh; linktext-zh; zh-cp; zh-tp",
        languages.nihongo: "nihongo; nihongo core; nihongo-s; japanese; ja-n",
        languages.nihongo3: "nihongo3; nihongo krt; nihongo4",
        shown.sic: "sic; sic2; as-is; [sic]",
        shown.country: "flagcountry; flag country; fb; fbw; cr; crw; cr19; nft; ru; rut; hb; hbw; vb; vbw; ih; ihw; fh; fhw; fut; wp-flag; country; flagnation; flag-country; fbu",
        shown.athlete: "flagathlete; flag athlete; flagioc2athlete; flagiocathlete; flagmedalist; flagiocmedalist; sportname",
        shown.flag: "flag; flagioc; flagioc2; flagteam; flagcgf; flagipc; flagsport; flaglist; flag deco text; flag+name; flagbig; flagc",
        shown.gauge: "railgauge; track gauge; rail gauge; trackgauge; gauge; railgauge3",
        shown.music: "music; musical note; note symbol",
        shown.ordinal: "ordinal; ord; ordinal number; nth",
        shown.roads: "jct; road; junction",
        dates.old_style: "oldstyledate; old style date; osd; oldstyledatedy; osdy",
        shown.section_link: "section link; slink; seclink; sectionlink; link section",
        shown.percentage: "percentage; pct; percent; percent done text",
        shown.years_ago: "mya",
        shown.megayears: "ma",
        shown.verse: "bibleverse; bibleref; bibleref2; bibleref2c; bible; bibleverse with invisible space; bibleverse-nb; quran; cite quran",
        shown.nuclide: "nuclide; nuclide2; simplenuclide; simplenuclide2; nuclide link; isotope",
        dates.century: "s-; s; -s; -s-; s2; s2-; -s2-; s mini-; siècle",
        shown.harvard: "harvtxt; harvard citation text; harvcoltxt",
        shown.link_url: "url; web link; link url; email; weblink; external link",
    }  # fmt: skip
    for function, names in functions.items():
        table.update(dict.fromkeys(_names(names), function))
    return table


_FRACTIONS = frozenset(["frac", "sfrac", "fraction", "fract", "sfrac2", "vulgar fraction", "frac2"])
_RAISED, _LOWERED = frozenset(["sup", "superscript", "ssup"]), frozenset(["sub", "subscript", "ssub"])
_SHOWN = _table()
# The same on a wiki in another language than English: without English words among its own.
_ELSEWHERE: dict[Show, Show] = {
    shown.country: shown.first_of,
    languages.langx: shown.numbered(2),
    languages.zh: languages.zh_without_labels,
    dates.dated_age: dates.in_figures,
    dates.DAY_FIRST: dates.in_figures,
    dates.MONTH_FIRST: dates.in_figures,
}


def behind_digit(name: str, text: str) -> str:
    """What a template shows that stands behind a digit: 1{{frac|1|4}} is 1 1/4, 10{{sup|6}} is 10⁶."""
    if name in _FRACTIONS:
        return f" {text}"
    if not text.strip().lstrip("-−–+").isdecimal():
        return text
    return units.power(text) if name in _RAISED else units.lowered(text) if name in _LOWERED else text


def shown_by(name: str, english: bool = True) -> Show | None:
    """What a template of this folded name shows for its arguments; None: unknown, or known to show nothing.

    english: whether the wiki is in English; no English names of countries, languages and months in others.
    """
    if not english and name.startswith("lang-"):
        return shown.first_of
    if not english and len(name) == 3 and name in COUNTRIES:
        return None
    if show := _SHOWN.get(name):
        return show if english else _ELSEWHERE.get(show, show)
    family, _, code = name.partition("-" if name.startswith("lang-") else "/")
    if family == "lang" and code.replace("-", "").isalpha():  # of a language without a name here
        return languages.language(code)
    if family == "script" and code:
        return shown.first_of
    return shown.always(dates.french_number(name)) if name[:1] in "ivxlc123456789" and dates.french_number(name) else None


# Footnotes and the like, which stand behind a word and show a mark.
_NOTES = frozenset(
    _names(
        "efn; efn-ua; efn-lr; refn; note; notetag; ref; ref label; rp; r; sfn; sfnp; sfnm; cn; fact; citation needed; dead link; deadlink; webarchive; wayback; clarify; when; who; which; where; why; "
        "by whom; according to whom; page needed; vague; dubious; better source; failed verification; original research inline; update inline; pov-statement; verify source; unreliable source?; "
        "unreliable source; self-published inline; relevance inline; by whom?; who?; when?; which?; why?; where?; refnest; efn2"
    )
)
_NOTES_END = (" needed", "-inline", " inline")
_SILENT = frozenset(
    _names(
        "main; see also; further; about; for; for2; other uses; otheruses; other people; other places; hatnote; redirect; redirect2; redirects here; distinguish; details; see; seealso; main article; "
        "further information; broader; hatnote group; selfref; reflist; references; refbegin; refend; notelist; sfnref; harv; "
        "harvnb; harvp; harvid; harvc; ref-en; citation; citations; cref; "
        "update after; peacock; full; "
        "refimprove; more citations needed; unreferenced; unreferenced section; expand section; "
        "multiple issues; cleanup; copy edit; orphan; update; globalize; pov; notability; coi; tone; more footnotes; no footnotes; stub; good article; featured article; featured list; short description; "
        "authority control; coord; italic title; italictitle; lowercase title; displaytitle; toc; toc right; toc left; toc limit; tocleft; tocright; clear; clr; clear left; clear right; -; "
        "portal; portal bar; portal-inline; commons; commons category; commonscat; commons category-inline; wikiquote; wikisource; wiktionary; wikibooks; wikispecies; wikivoyage; wikinews; wikiversity; "
        "sister project links; sisterlinks; sister project; official website; official; imdb name; imdb title; dmoz; curlie; gutenberg author; internet archive author; librivox author; "
        "flagicon; flag icon; flagdeco; flagicon image; fbicon; cricon; country flag; legend; legend inline; increase; decrease; steady; up; down; gain; loss; nochange; profit; "
        "ipa; ipa-all; ipac; pronunciation; respell; usdict; pron; audio ipa; listen; multi-listen item; multiple image; multiple images; double image; wide image; css image crop; image frame; gallery; annotated image; "
        "quote box; quotebox; rquote; pull quote; cquote box; sidebar; navboxes; navbox; succession box; s-start; s-bef; s-ttl; s-aft; s-end; s-off; s-par; s-hon; s-break; start box; end box; "
        "div col; div col end; colbegin; colend; col-begin; col-end; col-break; col-2; col-3; col-4; col-5; col div; col div end; columns-start; column; columns-end; top; bottom; mid; "
        "hidden begin; hidden end; collapse top; collapse bottom; cot; cob; engvarb; engvar; bots; anchor; anchors; shortcut; spoken wikipedia; sortkey hidden; hs; hidden sort key; ntsh; "
        "chart; chart/start; chart/end; chart top; chart bottom; clade; cladogram; tree chart; bartable; bar percent; bar box; historical populations; us census population; weather box; largest cities; "
        "geographic location; railway line header; bs-header; infobox; taxobox; taxonbar; speciesbox; automatic taxobox; medalgold; medalsilver; medalbronze; medalcompetition; unbulleted list end; "
        "plainlist end; endplainlist; flatlist end; endflatlist; endplainlist; div end; end div; disambiguation; disambig; disamb; dab; hndis; geodis; surname; given name; set index article; r from camelcase; "
        "wikidata; interlanguage links; link fa; link ga; persondata; defaultsort; lifetime; normdaten; personendaten; reflist2; портал; примечания; ébauche; portail; palette; références; autorité; 参考文献"
    )
)
_SILENT_START = (
    "cite ", "cite-", "infobox", "taxobox", "navbox", "use ", "pp-", "defaultsort:", "displaytitle:", "r from ", "r to ", "ipa-", "ipac-", "ipa ", "citar ", "ouvrage", "lien web", "article ",
    "commons", "wikisource", "harvnb", "vcite", "campaignbox", "redirect-", "distinguish", "details", "medal", "template:infobox", "cite_", "flagicon", "mergefrom", "merge", "refimprove", "expand ",
    "unreferenced", "contains ", "lacking ", "geobox", "chembox", "drugbox", "starbox", "ficha ", "info/", "картк", "карточка", "s-", "editnotice", "refn ", "library resources", "#tag:ref", "multiple issues", "citation/",
)  # fmt: skip
_SILENT_END = (
    " icon",
    "-stub",
    " stub",
    " sidebar",
    " infobox",
    " navbox",
    " hatnote",
    "needed section",
    " topics",
    " weatherbox",
    "succession",
    " footer",
)


def is_note(name: str) -> bool:
    """Whether a template of this folded name shows a footnote's mark, or an editor's remark in its place."""
    return name in _NOTES or name.endswith(_NOTES_END)


def is_silent(name: str) -> bool:
    """Whether a template of this folded name is known to show no prose."""
    return name in _SILENT or name.startswith(_SILENT_START) or name.endswith(_SILENT_END)

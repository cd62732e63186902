"""What short codes in templates stand for: languages, countries, units, currencies."""

# ruff: noqa: E501 (tables are best read as tables)


def _table(text: str) -> dict[str, str]:
    """ "code name; code name" as a dictionary; a code holds no space."""
    pairs = (entry.strip().partition(" ") for entry in text.replace("\n", " ").split(";") if entry.strip())
    return {code: name.strip() for code, _, name in pairs}


LANGUAGES = _table(
    "aa Afar; ab Abkhazian; af Afrikaans; ain Ainu; akk Akkadian; als Alemannic German; am Amharic; an Aragonese; ang Old English; "
    "ar Arabic; arc Aramaic; arz Egyptian Arabic; as Assamese; ast Asturian; ay Aymara; az Azerbaijani; ba Bashkir; bar Bavarian; "
    "be Belarusian; ber Berber; bg Bulgarian; bh Bihari; bn Bengali; bo Standard Tibetan; br Breton; bs Bosnian; ca Catalan; ce "
    "Chechen; ceb Cebuano; chr Cherokee; ckb Central Kurdish; co Corsican; cop Coptic; cr Cree; crh Crimean Tatar; cs Czech; csb "
    "Kashubian; cu Church Slavonic; cv Chuvash; cy Welsh; da Danish; de German; dsb Lower Sorbian; dv Divehi; dz Dzongkha; egy "
    "Egyptian; el Greek; en English; enm Middle English; eo Esperanto; es Spanish; et Estonian; eu Basque; fa Persian; fi Finnish; "
    "fil Filipino; fj Fijian; fo Faroese; fr French; fro Old French; frr North Frisian; fur Friulian; fy West Frisian; ga Irish; "
    "gd Scottish Gaelic; gl Galician; gn Guarani; goh Old High German; got Gothic; grc Ancient Greek; grc-gre Ancient Greek; gsw "
    "Swiss German; gu Gujarati; gv Manx; ha Hausa; haw Hawaiian; he Hebrew; hi Hindi; hr Croatian; hsb Upper Sorbian; ht Haitian "
    "Creole; hu Hungarian; hy Armenian; ia Interlingua; id Indonesian; ie Interlingue; ig Igbo; io Ido; is Icelandic; it Italian; "
    "iu Inuktitut; ja Japanese; jv Javanese; ka Georgian; kab Kabyle; kk Kazakh; kl Greenlandic; km Khmer; kn Kannada; ko Korean; "
    "ks Kashmiri; ku Kurdish; kw Cornish; ky Kyrgyz; la Latin; lad Ladino; lb Luxembourgish; li Limburgish; lij Ligurian; lmo "
    "Lombard; lo Lao; lt Lithuanian; lv Latvian; mg Malagasy; mi Māori; mk Macedonian; ml Malayalam; mn Mongolian; mr Marathi; ms "
    "Malay; mt Maltese; my Burmese; nah Nahuatl; nap Neapolitan; nds Low German; ne Nepali; nl Dutch; nn Norwegian Nynorsk; no "
    "Norwegian; nb Norwegian; non Old Norse; nv Navajo; oc Occitan; om Oromo; or Odia; os Ossetian; ota Ottoman Turkish; pa "
    "Punjabi; pal Middle Persian; peo Old Persian; pi Pali; pl Polish; pms Piedmontese; ps Pashto; pt Portuguese; qu Quechua; rm "
    "Romansh; ro Romanian; ru Russian; rue Rusyn; rw Kinyarwanda; sa Sanskrit; sah Yakut; sc Sardinian; scn Sicilian; sco Scots; "
    "sd Sindhi; se Northern Sami; sga Old Irish; sh Serbo-Croatian; si Sinhala; sk Slovak; sl Slovene; sm Samoan; sn Shona; so "
    "Somali; sq Albanian; sr Serbian; sr-cyrl Serbian Cyrillic; sr-latn Serbian Latin; su Sundanese; sux Sumerian; sv Swedish; sw "
    "Swahili; syc Classical Syriac; szl Silesian; ta Tamil; te Telugu; tg Tajik; th Thai; ti Tigrinya; tk Turkmen; tl Tagalog; to "
    "Tongan; tr Turkish; tt Tatar; ty Tahitian; ug Uyghur; uk Ukrainian; ur Urdu; uz Uzbek; vec Venetian; vi Vietnamese; vo Volapük; "
    "wa Walloon; wo Wolof; xh Xhosa; xcl Classical Armenian; yi Yiddish; yo Yoruba; za Zhuang; zh Chinese; zu Zulu"
)
COUNTRIES = _table(
    "afg Afghanistan; alb Albania; alg Algeria; dza Algeria; and Andorra; ang Angola; ago Angola; arg Argentina; arm Armenia; aus "
    "Australia; aut Austria; aze Azerbaijan; bah Bahamas; ban Bangladesh; bgd Bangladesh; bar Barbados; bel Belgium; ben Benin; blr "
    "Belarus; bol Bolivia; bih Bosnia and Herzegovina; bot Botswana; bra Brazil; brn Bahrain; bul Bulgaria; bgr Bulgaria; bur Burkina "
    "Faso; cam Cambodia; cmr Cameroon; can Canada; chi Chile; chl Chile; chn China; col Colombia; cod DR Congo; cgo Congo; crc Costa "
    "Rica; civ Ivory Coast; cro Croatia; hrv Croatia; cub Cuba; cyp Cyprus; cze Czech Republic; den Denmark; dnk Denmark; dom Dominican "
    "Republic; ecu Ecuador; egy Egypt; eng England; esa El Salvador; esp Spain; est Estonia; eth Ethiopia; eu European Union; fij Fiji; "
    "fin Finland; fra France; frg West Germany; gab Gabon; gam Gambia; gbr United Kingdom; gdr East Germany; geo Georgia; ger Germany; "
    "deu Germany; gha Ghana; gre Greece; grc Greece; gua Guatemala; gui Guinea; guy Guyana; hai Haiti; hkg Hong Kong; hon Honduras; "
    "hun Hungary; ina Indonesia; idn Indonesia; ind India; iri Iran; irn Iran; irl Ireland; irq Iraq; isl Iceland; isr Israel; ita "
    "Italy; jam Jamaica; jor Jordan; jpn Japan; kaz Kazakhstan; ken Kenya; kgz Kyrgyzstan; kor South Korea; prk North Korea; kos "
    "Kosovo; ksa Saudi Arabia; sau Saudi Arabia; kuw Kuwait; lao Laos; lat Latvia; lva Latvia; lba Libya; lib Lebanon; lbn Lebanon; "
    "lie Liechtenstein; ltu Lithuania; lux Luxembourg; mad Madagascar; mar Morocco; mas Malaysia; mys Malaysia; mda Moldova; mex Mexico; "
    "mgl Mongolia; mng Mongolia; mkd North Macedonia; mli Mali; mlt Malta; mne Montenegro; mon Monaco; moz Mozambique; mri Mauritius; "
    "mya Myanmar; nam Namibia; nca Nicaragua; ned Netherlands; nld Netherlands; nep Nepal; ngr Nigeria; nga Nigeria; nir Northern "
    "Ireland; nor Norway; nzl New Zealand; oma Oman; pak Pakistan; pan Panama; par Paraguay; per Peru; phi Philippines; phl "
    "Philippines; ple Palestine; pol Poland; por Portugal; prt Portugal; pur Puerto Rico; qat Qatar; rou Romania; rom Romania; rsa "
    "South Africa; zaf South Africa; rus Russia; rwa Rwanda; sam Samoa; sco Scotland; sen Senegal; sgp Singapore; sin Singapore; slo "
    "Slovenia; svn Slovenia; smr San Marino; srb Serbia; sri Sri Lanka; lka Sri Lanka; sud Sudan; sui Switzerland; che Switzerland; "
    "sur Suriname; svk Slovakia; swe Sweden; syr Syria; tan Tanzania; tch Czechoslovakia; tha Thailand; tjk Tajikistan; tkm "
    "Turkmenistan; tpe Chinese Taipei; tri Trinidad and Tobago; tun Tunisia; tur Turkey; uae United Arab Emirates; uga Uganda; uk "
    "United Kingdom; ukr Ukraine; urs Soviet Union; ussr Soviet Union; uru Uruguay; ury Uruguay; us United States; usa United States; "
    "uzb Uzbekistan; ven Venezuela; vie Vietnam; vnm Vietnam; wal Wales; win West Indies; yem Yemen; yug Yugoslavia; zam Zambia; zim "
    "Zimbabwe"
)
# Unit codes of {{convert}} that are not shown as they are written.
UNITS = _table(
    "C °C; F °F; K K; R °R; km2 km²; m2 m²; cm2 cm²; mm2 mm²; m3 m³; cm3 cm³; km3 km³; dm3 dm³; mm3 mm³; sqmi sq mi; mi2 sq mi; sqft sq ft; ft2 sq ft; sqin "
    "sq in; sqyd sq yd; cuft cu ft; cufoot cu ft; ft3 cu ft; cuin cu in; in3 cu in; cuyd cu yd; yd3 cu yd; cumi cu mi; kph km/h; km/h km/h; kn knots; kt "
    "knots; nmi nmi; foot ft; inch in; mile mi; miles mi; feet ft; inches in; metre m; meter m; usgal US gal; USgal US gal; impgal imp gal; U.S.gal US gal; "
    "USqt US qt; usoz US oz; impoz imp fl oz; USoz US fl oz; impfloz imp fl oz; USfloz US fl oz; lb lb; lbs lb; st st; LT long tons; ST short tons; t t; MT "
    "t; tonne t; tonnes t; LTf long tons-force; oz oz; ozt troy oz; acre acres; ha ha; bhp bhp; hp hp; PS PS; kW kW; MW MW; degC °C; degF °F; C-change °C; "
    "F-change °F; km/s km/s; m/s m/s; ft/s ft/s; mi/h mph; mpg mpg; mpgus mpg; mpgUS mpg; mpgimp mpg; L/100 L/100 km; m3/s m³/s; cuft/s cu ft/s; L/s L/s; "
    "/km2 per km²; /sqkm per km²; /sqmi per square mile; PD/km2 inhabitants per km²; PD/sqmi inhabitants per square mile; ftin ft; lbft lb⋅ft; lb.ft lb⋅ft; "
    "Nm N⋅m; N.m N⋅m; kPa kPa; psi psi; atm atm; ly light-years; AU AU; au AU; pc parsecs; µm μm; um μm; angstrom Å; oilbbl bbl; USbbl US bbl; cid cu in; "
    "cc cc; kWh kWh; kcal kcal; kgCO2 kg CO₂; kg/m3 kg/m³; g/cm3 g/cm³; g/cc g/cm³; Mcuft thousand cu ft; MMcuft million cu ft; Gcuft billion cu ft; Tcuft "
    "trillion cu ft; Goilbbl billion bbl; acre.ft acre-feet; acreft acre-feet; acre·ft acre-feet; acre.foot acre-feet; ft.lbf ft⋅lbf; ftlbf ft⋅lbf; ft.lb "
    "ft⋅lb; lbf.ft lbf⋅ft; lb/sqin psi; lb/sqft lb/sq ft; kg.m kg⋅m; mpg-US mpg; mpg-imp mpg; mpg‑US mpg; mpg‑imp mpg; L/100km L/100 km; PD/ha inhabitants "
    "per hectare; PD/acre inhabitants per acre; /ha per hectare; /acre per acre; /m2 per m²; /mi per mile; /km per km; sqnmi sq nmi; nmi2 sq nmi; lb/ft3 "
    "lb/cu ft; ft/min ft/min; m/s2 m/s²; ft/s2 ft/s²; g0 g; pint pints; USpt US pt; imppt imp pt; furlong furlongs; chain chains; fathom fathoms; rod rods; "
    "hand hands; stlb st; lboz lb; long-ton long tons; short-ton short tons; sqkm km²; sqm m²; Mach Mach; deg °; kgf kgf; tf tonnes-force; kN kN; GeV GeV; "
    "bar bar; inHg inHg; mmHg mmHg; solar-mass solar masses; Jmass MJ"
)
CURRENCIES = _table(
    "us$ US$; usd US$; $ $; a$ A$; aud A$; au$ A$; c$ C$; ca$ C$; cad CA$; cad$ C$; nz$ NZ$; nzd NZ$; hk$ HK$; hkd HK$; s$ S$; sgd S$; nt$ NT$; twd NT$; "
    "£ £; gbp £; pound £; € €; eur €; euro €; ¥ ¥; jpy ¥; jp¥ ¥; yen ¥; cny CN¥; cn¥ CN¥; cny¥ CN¥; rmb RMB¥; ₹ ₹; inr ₹; indian rupee ₹; indianrupee ₹; rs ₹; "
    "pkr ₨; lkr Rs.; bdt ৳; ₩ ₩; krw ₩; ₽ ₽; rub ₽; ₺ ₺; try ₺; php ₱; ₱ ₱; philippine peso ₱; ils ₪; nis ₪; ₪ ₪; ngn ₦; naira ₦; r$ R$; brl R$; "
    "mxn MX$; mxn$ MX$; ars AR$; clp CLP$; cop COL$; zar R; sek SEK ; nok NOK ; dkk DKK ; chf CHF ; pln PLN ; czk CZK ; huf HUF ; idr Rp; "
    "myr RM; rm RM; thb ฿; ฿ ฿; vnd ₫; uah ₴; ghs GH₵; kes KSh; egp E£; aed AED ; sar SAR ; dm DM ; itl ₤; frf F; esp ₧"
)

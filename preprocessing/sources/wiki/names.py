"""Names that MediaWiki's markup knows, in the languages of Wikipedia: closed lists, and what an export says of its own wiki.

The words are those of MediaWiki's message files. Names are compared by `folded`: case and underscores do not count.
"""

# ruff: noqa: SIM905, E501 (lists of words are best read as words)
from dataclasses import dataclass, field

FILE, CATEGORY, MEDIA, MAIN = 6, 14, -2, 0


def folded(name: str) -> str:
    """A name as it is compared: without case, underscores and repeated spaces."""
    return " ".join(name.replace("_", " ").split()).lower()


def _names(text: str) -> frozenset[str]:
    return frozenset(folded(name) for name in text.replace("\n", " ").split(";") if name.strip())


# Titles begin with a word of another language's namespace too seldom to matter, but for a file's an extension is asked for.
FILE_NAMES = _names(
    "file; image; datei; bild; fichier; archivo; imagen; immagine; ficheiro; imagem; arquivo; bestand; afbeelding; plik; "
    "grafika; файл; изображение; зображення; выява; картинка; датотека; слика; datoteka; slika; податотека; soubor; súbor; "
    "obrázok; fájl; kép; fișier; fişier; imagine; tiedosto; kuva; fil; bilde; billede; mynd; pilt; fail; attēls; vaizdas; "
    "αρχείο; εικόνα; dosya; resim; şəkil; fayl; ملف; صورة; پرونده; تصویر; קובץ; תמונה; चित्र; फ़ाइल; চিত্র; ফাইল; படிமம்; "
    "దస్త్రం; బొమ్మ; പ്രമാണം; ചിത്രം; ಚಿತ್ರ; ચિત્ર; ਤਸਵੀਰ; ไฟล์; ภาพ; tập tin; hình; berkas; gambar; imej; ファイル; 画像; 파일; 그림; "
    "文件; 檔案; 档案; 图像; 圖像; 图片; 圖片; ფაილი; სურათი; պատկեր; ֆայլ; сурет; swret; dosiero; fitxer; imatge; fitxategi; irudi; "
    "imaxe; delwedd; íomhá; restr; skeudenn; fichièr; skeda; figura; зураг; picha; faili; lêer; beeld; טעקע; בילד; fasciculus; "
    "imago; ficheru; tasvir; рәсем; ӳкерчĕк; triem; ofbyld; archivi; talaksan; larawan; payl; ဖိုင်; រូបភាព; ឯកសារ; ຮູບ; ගොනුව; "
    "රූපය; ስዕል; ፋይል; wêne; پەڕگە; وێنە; فایل; دوتنه; انځور; فائل; акс; arkivo; faidhle; dataja; rikcha; mmàggini; vaizdas; "
    "obraz; obrázek; stampa; fitxèr; hình ảnh; imagi; fichèr"
)
CATEGORY_NAMES = _names(
    "category; kategorie; catégorie; categoría; categoria; categorie; kategoria; категория; категорія; катэгорыя; категорија; "
    "kategorija; kategória; luokka; kategori; flokkur; bólkur; kategooria; κατηγορία; kateqoriya; تصنيف; رده; קטגוריה; زمرہ; "
    "श्रेणी; বিষয়শ্রেণী; பகுப்பு; వర్గం; വർഗ്ഗം; ವರ್ಗ; वर्ग; શ્રેણી; ਸ਼੍ਰੇਣੀ; หมวดหมู่; thể loại; カテゴリ; 분류; 分类; 分類; კატეგორია; "
    "կատեգորիա; санат; sanat; kategorio; categori; catagóir; rummad; kategorî; jamii; קאַטעגאָריע; turkum; төркем; kategorya; ကဏ္ဍ; "
    "ចំណាត់ថ្នាក់ក្រុម; ප්‍රවර්ගය; መደብ; پۆل; وېشنيزه; гурӯҳ; ангилал; roinn-seòrsa; kategory; категори; kategurì; catigurìa; catègorie; "
    "kategorii; kaarangay; kategoriija; kategorja; categurìa"
)
MEDIA_NAMES = _names(
    "media; médium; medio; medium; медиа; медіа; وسائط; מדיה; 媒体; 媒體; メディア; 미디어; mídia; multimédia; méedia; मीडिया; phương tiện"
)
# The other canonical names, for an export that does not name its namespaces.
OTHER_NAMES = _names(
    "talk; user; user talk; wikipedia; wikipedia talk; project; project talk; file talk; image talk; mediawiki; mediawiki talk; "
    "template; template talk; help; help talk; category talk; portal; portal talk; book; book talk; draft; draft talk; "
    "education program; timedtext; timedtext talk; module; module talk; gadget; special; wiktionary; wikibooks; wikiquote"
)

# The languages that Wikipedia has had, as prefixes of links: [[fr:Titre]] is a link of the margin, [[:fr:Titre]] of the text.
INTERLANGUAGE = frozenset(
    "aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar bat-smg bbc bcl "
    "bdr be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs btm bug bxr ca cbk-zam cdo ce ceb ch cho chr chy ckb co cr "
    "crh cs csb cu cv cy da dag de dga din diq dsb dtp dty dv dz ee el eml en eo es et eu ext fa fat ff fi fiu-vro fj fo fon fr "
    "frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu guc gur guw gv ha hak haw he hi hif ho hr hsb ht hu hy "
    "hyw hz ia iba id ie ig igl ii ik ilo inh io is it iu ja jam jbo jv ka kaa kab kbd kbp kcg kg kge ki kj kk kl km kn knc ko "
    "koi kr krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg li lij lld lmo ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh "
    "mhr mi min mk ml mn mni mnw mo mos mr mrj ms mt mus mwl my myv mzn na nah nan nap nb nds nds-nl ne new ng nia nl nn no nov "
    "nqo nr nrm nso nv ny oc olo om or os pa pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps pt pwn qu rki rm rmy rn ro "
    "roa-rup roa-tara rsk ru rue rup rw sa sah sat sc scn sco sd se sg sgs sh shi shn shy si simple sk skr sl sm smn sn so sq "
    "sr srn ss st stq su sv sw syl szl szy ta tay tcy tdd te tet tg th ti tig tk tl tly tn to tok tpi tr trv ts tt tum tw ty "
    "tyv udm ug uk ur uz ve vec vep vi vls vo vro wa war wo wuu xal xh xmf yi yo yue za zea zgh zh zh-classical zh-cn zh-min-nan "
    "zh-tw zh-yue zu".split()
)

REDIRECT_WORDS = _names(
    "redirect; weiterleitung; redirection; redirección; redireccion; rinvia; rinvio; rimando; redirecionamento; redirecionar; "
    "doorverwijzing; patrz; przekieruj; tam; перенаправление; перенапр; перенаправлення; перанакіраванне; перанакіраваньне; "
    "пренасочване; виж; преусмери; преусмјери; preusmeri; preusmjeri; preusmeritev; пренасочување; види; přesměruj; presmeruj; "
    "átirányítás; redirecteaza; ohjaus; uudelleenohjaus; omdirigering; omdiriger; tilvísun; suuna; ümbersuuna; pāradresēt; "
    "peradresavimas; ανακατευθυνση; yönlendirme; yönlendir; yönlendi̇rme; yönləndirmə; istiqamətləndirmə; تحويل; تغییر مسیر; "
    "تغییرمسیر; הפניה; رجوع مکرر; अनुप्रेषित; पुनर्प्रेषित; पुनर्निर्देशन; পুনর্নির্দেশ; পুনঃনির্দেশনা; வழிமாற்று; దారిమార్పు; "
    "തിരിച്ചുവിടുക; ಪುನರ್ನಿರ್ದೇಶನ; เปลี่ยนทาง; đổi; đổi hướng; alih; lencong; lencongan; 転送; リダイレクト; 넘겨주기; 重定向; 重新導向; "
    "გადამისამართება; վերահղում; айдау; aýdaw; alidirekti; alidirektu; redirecció; birzuzendu; birbideratu; ail-cyfeirio; "
    "ailgyfeirio; athsheoladh; adkas; ridrejto; aanstuur; viruleedung; ווייטערפירן; បញ្ជូនបន្ត; យោងទៅ; යළියොමුව; юнәлтү; yo'naltirish; "
    "ᠴᠢᠭᠯᠡᠭᠦᠯᠬᠦ; birçeýir; i̇stiqamətləndirmə; beralîkirin; omdirigeer; redirección; jaahatse ümbre; дзері; jolda"
)

# Behaviour switches that are written in ASCII letters; of other scripts' see `is_switch`.
_SWITCHES = _names(
    "notoc; forcetoc; toc; noeditsection; newsectionlink; nonewsectionlink; nogallery; hiddencat; expectunusedcategory; "
    "nocontentconvert; nocc; notitleconvert; notc; start; end; index; noindex; staticredirect; nosections; disambig; "
    "expectunusedtemplate; expectwithoutscans; archivedtalk; notalk; noglobal; norealtitle; expected unconnected page; "
    "nochecktoc; noautolink; "
    "keininhaltsverzeichnis; kein inhaltsverzeichnis; inhaltsverzeichnis erzwingen; erzwinge inhaltsverzeichnis; "
    "inhaltsverzeichnis; abschnitte nicht bearbeiten; keine galerie; keinegalerie; versteckte kategorie; indexieren; "
    "nicht indexieren; "
    "aucunsommaire; aucunetdm; forcersommaire; forcertdm; sommaire; tdm; sectionnoneditable; aucunegalerie; aucuneindexation; "
    "sin tdc; notdc; sintdc; forzartdc; forzar tdc; tdc; noeditarseccion; nogaleria; sin galeria; nogalería; "
    "semtdc; semsumario; forcartdc; forcarsumario; sumario; semgaleria; naoeditarsecao; naoindexar; "
    "noindice; forzaindice; indice; nosezioni; nogalleria; "
    "geeninhoud; inhoud dwingen; forceerinhoud; inhoud; nietbewerkbaresectie; geen galerij; nietindexeren; "
    "bezspisu; zespisem; wymuszspis; spis; bezedycjisekcji; bezgalerii; bezobsahu; obsah; bezgalerie; bezsadrzaja; "
    "niciunsumar; nicitabel; fortabel; ingenindholdsfortegnelse; ingeninnholdsfortegnelse; tvinginnholdsfortegnelse; "
    "innholdsfortegnelse; intettoc; sensenvacio; sensetdc; forcatdc; nadasumario; sempercategoria; nenieniahavotabelo; "
    "nincstj; tj; eisisllysluetteloa; nodaftarisi; nirdaftarisi; nirdasi; paksadaftarisi; daftarisi; khongmucluc; mucluc"
)


def is_switch(name: str) -> bool:
    """Whether __name__ is a behaviour switch. One of another script is one if it is all capitals, where there are such."""
    if name.isascii():
        return folded(name) in _SWITCHES
    letters = name.replace("_", "")
    return letters.isalpha() and letters == letters.upper() and not any(map(str.isdigit, letters))


@dataclass(frozen=True)
class Site:
    """What an export says of its wiki. `namespaces`: folded local name -> number, as siteinfo lists them; may be empty."""

    language: str = ""
    namespaces: dict[str, int] = field(default_factory=dict)

    def namespace(self, name: str, title: str) -> int | None:
        """The namespace that a link's or page's prefix names; None: it is none, the colon belongs to the title."""
        name = folded(name)
        if name in self.namespaces:
            return self.namespaces[name]
        if name in FILE_NAMES:
            return FILE if name in ("file", "image") or has_extension(title) else None
        if name in CATEGORY_NAMES:
            return CATEGORY
        if name in MEDIA_NAMES and has_extension(title):
            return MEDIA
        return None


def has_extension(title: str) -> bool:
    """Whether a title ends like a file's name."""
    stem, dot, extension = title.strip().rpartition(".")
    return bool(stem and dot) and 2 <= len(extension) <= 5 and extension.isascii() and extension.isalnum()


def is_redirect(wikitext: str) -> bool:
    """Whether a page begins with the magic word of a redirect, in any language, and a link."""
    start = wikitext[:300].lstrip()
    if not start.startswith(("#", "＃")):
        return False
    word, bracket, _ = start[1:].partition("[[")
    return bool(bracket) and folded(word.strip().rstrip(":：")) in REDIRECT_WORDS

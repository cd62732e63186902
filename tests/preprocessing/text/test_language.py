"""Languages are told apart by a few lines of each."""

import pytest

from preprocessing.text.language import N_CHARACTERS, detect

LINES = {
    "en": "The ship sailed from the harbour at dawn, and nobody on the quay knew where it was going.",
    "de": "Das Schiff verließ den Hafen im Morgengrauen, und niemand am Kai wusste, wohin es fuhr.",
    "fr": "Le navire quitta le port à l'aube, et personne sur le quai ne savait où il allait.",
    "es": "El barco salió del puerto al amanecer y nadie en el muelle sabía adónde iba.",
    "it": "La nave lasciò il porto all'alba e nessuno sulla banchina sapeva dove stesse andando.",
    "nl": "Het schip verliet de haven bij zonsopgang en niemand op de kade wist waar het heen ging.",
    "pl": "Statek opuścił port o świcie i nikt na nabrzeżu nie wiedział, dokąd płynie.",
    "ru": "Корабль вышел из гавани на рассвете, и никто на причале не знал, куда он идёт.",
    "el": "Το πλοίο έφυγε από το λιμάνι την αυγή και κανείς στην προκυμαία δεν ήξερε πού πήγαινε.",
    "zh": "船在黎明时分离开了港口，码头上没有人知道它要去哪里。",
    "ja": "船は夜明けに港を出たが、波止場にいた誰もその行き先を知らなかった。",
}


@pytest.mark.parametrize("code", LINES)
def test_the_language_of_a_line(code: str) -> None:
    assert detect(LINES[code]) == code


def test_the_beginning_decides() -> None:
    english = LINES["en"] * 100
    assert len(english) > N_CHARACTERS
    assert detect(english + LINES["ru"] * 1000) == "en"


@pytest.mark.parametrize("text", ["", "123 456", "\ud800 lone", "\x00"])
def test_any_text_gets_a_code(text: str) -> None:
    code = detect(text)
    assert len(code) == 2 or code == "zxx"  # nothing linguistic
    assert detect(text) == code

"""Language: reports that are not in English, and English ones that look odd."""

import pytest

from tasks.engines.text.language import foreign_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Kein Pneumothorax.", "German"),
        ("Herz normal groß, kein Erguss.", "German"),
        ("Pas de pneumothorax.", "French"),
        ("Poumons clairs.", "French"),
        ("No hay derrame pleural.", "Spanish"),
        ("Sin neumotórax.", "Spanish"),
        ("Não há derrame pleural.", "Portuguese"),
        ("Nessun versamento pleurico.", "Italian"),
        ("Geen pneumothorax.", "Dutch"),
        ("Pnömotoraks izlenmedi.", "Turkish"),
        ("Нет пневмоторакса", "a language in another script"),
    ],
)
def test_other_languages(text, language):
    assert foreign_language(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Cardiomegaly. PTX.",
        "LA and RV enlarged. LAD calcification. Dr. van der Berg notified.",
        "Patient Maria de los Santos. No effusion seen in the chest.",
        "ET tube in situ. S/p MVR.",
        "HU > 20, α = 3°.",
        "Absence of effusion.",
    ],
)
def test_english(text):
    assert foreign_language(text) is None


def test_no_real_report_is_foreign(even_texts):
    assert not [text for text in even_texts if foreign_language(text)]

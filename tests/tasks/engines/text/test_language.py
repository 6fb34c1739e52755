"""Language: reports that are not in English, and English ones that look odd."""

import pytest

from tasks.engines.text.language import foreign_language

OTHERS = {
    "German": """
        Herzgröße normal.
        Kein Nachweis von Infiltraten.
        Lungen frei.
        Pleuraerguss links.
        Unauffälliger Befund.
        Zustand nach Sternotomie.
        Herz und Lunge unauffaellig.
        Keine Stauung, keine Ergüsse.
        ZVK regelrecht.
        Verschattung rechts basal.
        Kein Pneumothorax.
        Herz normal groß, kein Erguss.
    """,
    "French": """
        Poumons clairs.
        Pas d'épanchement pleural.
        Cardiomégalie.
        Absence de foyer.
        Épanchement pleural droit.
        Silhouette cardiaque normale.
        Radiographie du thorax normale.
        Aucune anomalie.
        Opacité basale gauche.
        Pas de pneumothorax.
    """,
    "Spanish": """
        Sin hallazgos patológicos.
        Derrame pleural izquierdo.
        Radiografía de tórax normal.
        Corazón de tamaño normal.
        No se observan infiltrados.
        Campos pulmonares libres.
        Cardiomegalia leve.
        No hay derrame pleural.
        Sin neumotórax.
    """,
    "Portuguese": """
        Pulmões limpos.
        Sem alterações.
        Coração de tamanho normal.
        Derrame pleural à direita.
        Não há derrame pleural.
    """,
    "Italian": """
        Non versamento pleurico.
        Cuore nei limiti.
        Non lesioni pleuro-parenchimali in atto.
        Torace nella norma.
        Addensamento basale destro.
        Nessun versamento pleurico.
    """,
    "Dutch": """
        Geen afwijkingen.
        Hart niet vergroot.
        Longvelden helder.
        Pleuravocht links.
        Geen pneumothorax.
    """,
    "Turkish": """
        Plevral efüzyon izlenmedi.
        Akciğerler normaldir.
        Kalp boyutu normal.
        Her iki akciğer havalanması doğal.
        Pnömotoraks yok.
        Sağda plevral effüzyon.
        Pnömotoraks izlenmedi.
    """,
    "Polish": """
        Płuca bez zmian ogniskowych.
        Serce niepowiększone.
        Bez odmy opłucnowej.
        Nie stwierdza się płynu.
    """,
    "Swedish": """
        Ingen pneumotorax.
        Hjärtat ej förstorat.
    """,
    "a language in another script": """
        Плевральный выпот.
        胸腔积液
        لا يوجد انصباب
        Нет пневмоторакса
    """,
}
ENGLISH = """
ÄR
PTX
1.
12 x 14 mm
No.
Normal.
LLL
CHF
s/p CABG
Status post Whipple.
Effusion.
En face nodule.
Alveolar edema per se.
Situs solitus. Situs inversus totalis.
In toto, no change.
Pneumonia vs. atelectasis, r/o TB.
Cor pulmonale.
Pectus excavatum. Pes planus.
Vena cava filter in situ.
Ductus arteriosus aneurysm.
Café-au-lait.
Müller maneuver.
Sjögren syndrome, Kerley B lines.
Hampton's hump. Fleischner Society.
Aortic arch à gauche.
Le Fort. LeFort II.
Amoxicillin, lisinopril, metoprolol.
Dobhoff tube. Mediport.
Dr. José García Pérez notified.
Patient Juan de la Cruz.
Maria da Silva
Dr. Müller-Schmidt.
HEART AND LUNGS NORMAL.
NO ACUTE DISEASE.
AP CHEST
ETT OK.
Bochdalek hernia. Morgagni hernia.
Chest: normal
Sans effusion.
Cardiomegaly.
Non-contrast CT.
No pneumothorax. Bilateral des.
RA, LA, RV, LV.
LA dilation.
El Niño.
Die-punch fracture.
Van Nuys prognostic.
Con trails.
Non specific.
pneumonia in situ ad hoc et al.
Sub rosa, ante mortem, post mortem, in vivo, ex vacuo.
Hx of Ca prostate.
Coeur en sabot.
Situs ambiguus
Mass, 3 cm, RUL.
α-1 antitrypsin.
5 µm. ±
Ω sign.
Pneumothorax (L).
En bloc resection.
Los Angeles.
Del Rio catheter.
Una Boot.
MRSA
Heart: OK; lungs: OK
X XXXX.
Cardiomegaly. PTX.
LA and RV enlarged. LAD calcification. Dr. van der Berg notified.
Patient Maria de los Santos. No effusion seen in the chest.
ET tube in situ. S/p MVR.
HU > 20, α = 3°.
Absence of effusion.
"""


def lines(table):
    return [line.strip() for line in table.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("language", "text"), [(name, line) for name, table in OTHERS.items() for line in lines(table)]
)
def test_other_languages(text, language):
    assert foreign_language(text) == language


@pytest.mark.parametrize("text", ["", *lines(ENGLISH)])
def test_english(text):
    assert foreign_language(text) is None


def test_no_real_report_is_foreign(even_texts):
    assert not [text for text in even_texts if foreign_language(text)]

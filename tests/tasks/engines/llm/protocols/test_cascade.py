"""The cascade: rules decide what is clear, the model what is hedged."""

from pathlib import Path

from storage.records import Phrase
from storage.store import Store
from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.protocols.by_name import text_engines
from tasks.engines.metering import metered
from tasks.engines.protocols import Failure
from taxonomy.targets import load_taxonomy
from tests.tasks.engines.llm.scripted import ScriptedEngine

TEXT = "No effusion. Opacity may represent pneumonia. Large nodule."
PHRASES = [
    Phrase(3, 11, "pleural effusion"),
    Phrase(13, 20, "pulmonary opacification"),
    Phrase(35, 44, "pneumonia"),
    Phrase(52, 58, "lung nodule"),
]


def cascade(folder: Path, *script: str | Failure):
    caches = ResponseCaches(Store(str(folder)))
    return text_engines("cascade", ScriptedEngine(*script), caches, load_taxonomy(), "x").filter


def test_only_sentences_that_hedge_are_asked_about(tmp_path: Path) -> None:
    with metered() as usage:
        answers = cascade(tmp_path, '{"1":"present","2":"absent"}').classify([TEXT], [PHRASES])
    assert answers == [["absent", "present", "absent", "present"]]
    assert (usage["cascade_rules"], usage["cascade_llm"]) == (2, 2)


def test_what_is_clear_costs_no_request(tmp_path: Path) -> None:
    clear = [PHRASES[0], PHRASES[3]]
    assert cascade(tmp_path).classify([TEXT, ""], [clear, []]) == [["absent", "present"], []]


def test_the_models_failure_is_its_phrases_alone(tmp_path: Path) -> None:
    failure = Failure("timeout", "no answer")
    (answers,) = cascade(tmp_path, failure).classify([TEXT], [PHRASES])
    assert answers == ["absent", failure, failure, "present"]

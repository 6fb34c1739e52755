"""A model's cleaning, held against the meaning of its source; and sentences that it fails at."""

import json
from pathlib import Path

import pytest

from storage.store import Store
from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.protocols.by_name import text_engines
from tasks.engines.llm.protocols.embedded import embedded_steps
from tasks.engines.llm.protocols.inline import fenced
from tasks.engines.llm.protocols.meaning import MeaningCheck
from tasks.engines.llm.settings import OnFailure, ProtocolName
from tasks.engines.metering import metered
from tasks.engines.protocols import CleanedText, Failure, RulesAssertion
from taxonomy.targets import load_taxonomy
from tests.tasks.engines.llm.scripted import ScriptedEngine

TAXONOMY = load_taxonomy()
CHECK = MeaningCheck(TAXONOMY, embedded_steps(TAXONOMY))

OTHER_MEANING = {
    # what is denied or doubted
    ("There is no pneumothorax.", "There is pneumothorax."),
    ("No pneumothorax or effusion.", "Pneumothorax, no effusion."),
    ("Possible pneumonia.", "Pneumonia."),
    ("Pneumonia cannot be excluded.", "Pneumonia."),
    ("Opacity may represent atelectasis, unchanged.", "Opacity represents atelectasis."),
    ("Opacity, atelectasis versus pneumonia.", "Opacity, pneumonia."),
    ("The lungs are not well expanded.", "The lungs are well expanded."),
    ("No new effusion.", "New effusion."),
    ("Pneumothorax has resolved.", "Pneumothorax."),
    ("The left effusion has decreased.", "Left effusion is absent."),
    ("The lungs are clear.", "The lungs are not clear."),
    ("The heart size is within normal limits.", "The heart size is not within normal limits."),
    ("Widely metastatic disease is not excluded.", "Widely metastatic disease is excluded."),
    ("No effusion is seen and the lungs are clear.",
     "No effusion is seen and the lungs are not clear."),
    ("The lungs are clear without effusion.", "The lungs are without clear effusion."),
    ("The lungs may not be clear.", "The lungs are not clear."),
    ("The trachea is not midline, no effusion.", "The trachea is midline, no effusion."),
    # what a structure is like
    ("Lucent lesion in the humerus.", "Sclerotic lesion in the humerus."),
    ("Acute fracture of the right rib.", "Old fracture of the right rib."),
    ("Endotracheal tube tip above the carina.", "Endotracheal tube tip below the carina."),
    ("The heart is normal in size.", "The heart is enlarged in size."),
    ("The heart is enlarged.", "The heart is normal."),
    ("The mediastinum is unremarkable.", "The mediastinum is widened."),
    ("The lungs are clear.", "The lungs are hazy."),
    ("The diaphragm is normal.", "The diaphragm is abnormal."),
    ("The lungs are unclear.", "The lungs are clear."),
    # where
    ("Left effusion, right nodule.", "Right effusion, left nodule."),
    ("Nodule in the left lung and clear right lung.", "Nodule in the right lung, clear left lung."),
    ("Upper lobe opacity, lower lobe atelectasis.", "Lower lobe opacity, upper lobe atelectasis."),
    ("Stable left effusion.", "Effusion."),
    ("Opacity in the right upper lobe is stable.", "Opacity in the right lobe."),
    ("Bibasilar atelectasis, left worse than right.",
     "Bibasilar atelectasis, right worse than left."),
    # how large
    ("A 5 mm nodule in the left lung.", "A 5 cm nodule in the left lung."),
    ("Stable 8 mm nodule.", "Nodule."),
    ("3 mm left nodule, 8 mm right nodule.", "8 mm left nodule, 3 mm right nodule."),
    ("Small effusion and large pneumothorax.", "Large effusion and small pneumothorax."),
    ("Small stable effusion.", "Severe effusion."),
    ("Two stable nodules.", "Three nodules."),
    # what is left
    ("Cardiomegaly and left effusion, unchanged.", "Cardiomegaly."),
    ("No pneumothorax or new effusion.", "No effusion."),
    ("Stable nodule in the left lung.", "The left lung."),
    ("Unchanged fracture of the left clavicle.", "Unchanged left clavicle."),
}  # fmt: skip


@pytest.mark.parametrize(("source", "cleaned"), sorted(OTHER_MEANING))
def test_another_meaning_is_refused(source: str, cleaned: str) -> None:
    fault = CHECK.cleaned(source, cleaned)
    assert isinstance(fault, Failure)
    assert source in fault.detail


SAME_MEANING = {
    ("Compared with the earlier film, the left effusion has grown.", "There is a left effusion."),
    ("The effusion has decreased since the prior.", "Effusion."),
    ("Pneumothorax has resolved.", "No pneumothorax."),
    ("The effusion is no longer seen.", "No effusion is seen."),
    ("Interval resolution of right lower lobe airspace disease.",
     "No right lower lobe airspace disease."),
    ("There is again a possible pneumonia.", "There is a possible pneumonia."),
    ("Stable 5 mm nodule in the left lung.", "A 5 mm nodule is seen in the left lung."),
    ("The 0.8 cm nodule is unchanged.", "There is a 0.8 cm nodule."),
    ("Stable cardiomegaly, no new effusion.", "Cardiomegaly, no effusion."),
    ("Stable cardiomegaly, no new effusion.", "Cardiomegaly."),
    ("Heart size remains enlarged.", "Heart size is enlarged."),
    ("Worsening bibasilar opacities.", "There are bibasilar opacities."),
    ("The endotracheal tube has been pulled back and ends 4 cm above the carina.",
     "The endotracheal tube ends 4 cm above the carina."),
    ("Low lung volumes compared to prior.", "Low lung volumes."),
    ("In the patient with lung cancer, a nodule of 6 mm is observed in the left lower lobe.",
     "A nodule of 6 mm is observed in the left lower lobe."),
    ("No pneumothorax or pleural effusion is seen.", "No pneumothorax. No pleural effusion."),
    ("Lungs are clear without evidence of focal consolidation, effusion, or pneumothorax.",
     "Lungs are clear. No focal consolidation, effusion or pneumothorax."),
    ("The lungs are not well expanded compared to the prior.", "The lungs are not well expanded."),
    ("Neither pneumothorax nor effusion is seen.", "No pneumothorax or effusion is seen."),
    ("Two views of the chest.", ""),
    ("Comparison is made to the prior radiograph.", ""),
    ("Follow-up is recommended.", ""),
    ("The effusion has not changed.", "There is an effusion."),
}  # fmt: skip


@pytest.mark.parametrize(("source", "cleaned"), sorted(SAME_MEANING))
def test_the_same_meaning_in_other_words_is_accepted(source: str, cleaned: str) -> None:
    assert CHECK.cleaned(source, cleaned) == cleaned


@pytest.mark.parametrize(
    "source",
    [
        "There is a large left pneumothorax.",
        "The small effusion has decreased.",
        "Opacity may represent pneumonia.",
        "No pneumothorax.",
        "The heart is normal in size.",
    ],
)
def test_a_drop_of_what_is_stated_now_is_doubted(source: str) -> None:
    with metered() as usage:
        doubt = CHECK.cleaned(source, "")
    assert isinstance(doubt, Failure)
    assert doubt.reason == "drop_doubted"
    assert usage["drops_doubted"] == 1


@pytest.fixture
def caches(tmp_path: Path) -> ResponseCaches:
    return ResponseCaches(Store(str(tmp_path)))


def engines(
    protocol: ProtocolName, caches: ResponseCaches, on_failure: OnFailure, *script: str | Failure
):
    return text_engines(protocol, ScriptedEngine(*script), caches, TAXONOMY, "openi", on_failure)


SIXTEEN = [f"There is a {n} mm nodule in the left lung." for n in range(2, 18)]


@pytest.mark.parametrize("protocol", ["spans", "joint", "cascade"])
def test_a_model_that_drops_a_whole_request_is_asked_once_more_and_not_believed(
    caches: ResponseCaches, protocol: ProtocolName
) -> None:
    everything = json.dumps({str(i): "drop" for i in range(1, 17)})
    chat = ScriptedEngine(everything, *['{"1":"drop"}'] * 15, "{}")
    cleaner = text_engines(protocol, chat, caches, TAXONOMY, "openi").cleaner
    with metered() as usage:
        cleaned = cleaner.clean([" ".join(SIXTEEN)])
    assert cleaned == [CleanedText(" ".join(SIXTEEN), by_rules=tuple(SIXTEEN[:15]))]
    assert len(chat.asked) == 1 + 16
    assert "lung nodule (present)" in chat.data[1]
    assert usage["drops_doubted"] == 16 + 15
    assert (usage["units_failed_drop_doubted"], usage["units_by_rules"]) == (15, 15)


def test_a_drop_that_is_not_believed_may_reject_the_report(caches: ResponseCaches) -> None:
    one = engines("spans", caches, "reject", *['{"1":"drop"}'] * 2)
    (failure,) = one.cleaner.clean(["Small left effusion."])
    assert isinstance(failure, Failure)
    assert failure.reason == "drop_doubted"


def test_a_whole_text_is_held_against_its_source_too(caches: ResponseCaches) -> None:
    text = "No pneumothorax. The left effusion has decreased."
    wrong = ("", "Pneumothorax. Left effusion.", "No pneumothorax.")
    one = engines("inline", caches, "rules", *map(fenced, wrong))
    with metered() as usage:
        (cleaned,) = one.cleaner.clean([text])
    assert isinstance(cleaned, CleanedText)
    assert cleaned.text == "No pneumothorax. Left effusion."
    assert (usage["drops_doubted"], usage["units_by_rules"]) == (1, 1)


TEXT = "Comparison to prior. The left effusion has decreased. No nodule."
CLEANED = "Left effusion. No nodule."
FOUND = [("effusion", "pleural effusion", "left"), ("nodule", "lung nodule", None)]


@pytest.mark.parametrize("protocol", ["spans", "joint", "inline", "cascade"])
def test_a_sentence_that_the_model_fails_at_is_left_to_the_rules_in_every_step(
    caches: ResponseCaches, protocol: ProtocolName
) -> None:
    one = engines(protocol, caches, "rules", *["rubbish"] * 40)
    with metered() as usage:
        (cleaned,) = one.cleaner.clean([TEXT])
    assert isinstance(cleaned, CleanedText)
    assert cleaned.text == CLEANED
    assert " ".join(cleaned.by_rules) == TEXT
    assert usage["units_by_rules"] == usage["units_failed_answer_malformed"] > 0
    (found,) = one.extractor.extract([CLEANED])
    named = [(CLEANED[p.start : p.end], p.target, p.modifiers.laterality) for p in found]
    assert named == FOUND
    assert all(phrase.by_rules for phrase in found)
    asked = "absent" if protocol == "cascade" else RulesAssertion("absent")  # no hedge: not asked
    assert one.filter.classify([CLEANED], [found])[0][1] == asked


@pytest.mark.parametrize("protocol", ["spans", "joint"])
def test_only_what_the_rules_did_is_marked_as_theirs(
    caches: ResponseCaches, protocol: ProtocolName
) -> None:
    wrong = json.dumps({"1": {"rewrite": "Nodule."}})
    effusion: dict[str, object] = {"rewrite": "Left effusion."}
    if protocol == "joint":
        effusion["phrases"] = [["effusion", "=", "present"]]
    answer = json.dumps({"1": "drop", "2": effusion, "3": {"rewrite": "Nodule."}})
    one = engines(protocol, caches, "rules", answer, wrong, wrong)
    (cleaned,) = one.cleaner.clean([TEXT])
    assert isinstance(cleaned, CleanedText)
    assert (cleaned.text, cleaned.by_rules) == (CLEANED, ("No nodule.",))
    if protocol == "joint":  # the other steps of the sentence are the rules' too
        (found,) = one.extractor.extract([CLEANED])
        assert [phrase.by_rules for phrase in found] == [False, True]
        assert one.filter.classify([CLEANED], [found]) == [["present", RulesAssertion("absent")]]


@pytest.mark.parametrize("protocol", ["spans", "joint", "inline"])
def test_what_a_server_may_answer_later_is_not_left_to_the_rules(
    caches: ResponseCaches, protocol: ProtocolName
) -> None:
    later = Failure("not_in_batch", "no answer yet")
    one = engines(protocol, caches, "rules", later, later, later)
    assert one.cleaner.clean(["Small effusion."]) == [later]
    if protocol != "joint":
        assert one.extractor.extract(["Small effusion."]) == [later]


def test_the_policy_is_part_of_the_fingerprint(caches: ResponseCaches) -> None:
    for protocol in ("spans", "joint", "inline", "cascade"):
        rules, reject = (engines(protocol, caches, policy) for policy in ("rules", "reject"))
        for step in ("cleaner", "extractor", "filter"):
            assert getattr(rules, step).fingerprint != getattr(reject, step).fingerprint


@pytest.mark.parametrize(
    ("text", "words", "target"),
    [
        ("Mildly hyperexpanded lungs.", "Mildly hyperexpanded lungs", "hyperinflation"),
        ("Biapical pleural thickening.", "Biapical pleural thickening", "pleural thickening"),
        ("Tortuous thoracic aorta.", "Tortuous thoracic aorta", "tortuous aorta"),
    ],
)
def test_the_same_words_may_be_read_by_the_lexicon(
    caches: ResponseCaches, text: str, words: str, target: str
) -> None:
    one = engines("spans", caches, "reject", json.dumps({"1": [[words, "="]]}))
    with metered() as usage:
        (found,) = one.extractor.extract([text])
    assert [(text[p.start : p.end], p.target) for p in found] == [(words, target)]
    assert usage["targets_by_lexicon"] == 1
    tagged = fenced(text.replace(words, f"[{words}]({words})"))
    (tags,) = engines("inline", caches, "reject", tagged).extractor.extract([text])
    assert [(text[p.start : p.end], p.target) for p in tags] == [(words, target)]


@pytest.mark.parametrize("words", ["Something odd", "effusion and nodule"])
def test_words_of_no_target_or_of_two_are_refused_as_before(
    caches: ResponseCaches, words: str
) -> None:
    text = "Something odd, effusion and nodule."
    one = engines("spans", caches, "reject", json.dumps({"1": [[words, "="]]}))
    (found,) = one.extractor.extract([text])
    assert [f.reason for f in found] == ["unknown_target"]


@pytest.mark.parametrize(
    "listed",
    [
        [["nodule", "lung nodule"], ["nodule", "lung mass"]],
        [["nodule", "lung nodule", "present"]],
        {"nodule": "lung nodule"},
    ],
)
def test_two_meanings_of_the_same_words_and_other_shapes_are_refused(
    caches: ResponseCaches, listed: object
) -> None:
    one = engines("spans", caches, "reject", *[json.dumps({"1": listed})] * 3)
    (failure,) = one.extractor.extract(["A nodule."])
    assert isinstance(failure, Failure)
    assert failure.reason == "answer_malformed"


def test_words_that_are_listed_over_and_over_count_once(caches: ResponseCaches) -> None:
    one = engines("spans", caches, "reject", json.dumps({"1": [["nodule", "lung nodule"]] * 30}))
    with metered() as usage:
        (found,) = one.extractor.extract(["A nodule."])
    assert [p.target for p in found] == ["lung nodule"]
    assert usage["proposals"] == 1

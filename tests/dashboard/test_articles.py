from hypothesis import given
from hypothesis import strategies as st

from dashboard.articles import read_article
from storage.records import GroundedReport, Grounding, Provenance, Tag

TARGETS = ("heart", "lung nodule", "aorta")


@st.composite
def tagged_texts(draw: st.DrawFn) -> GroundedReport:
    """A text with ordered tags that do not overlap, headings and odd letters among it."""
    words = st.one_of(
        st.sampled_from(["Findings: ", "\nImpression: ", "<b>", "&amp;", "🫁", "ע", "\r\n", " "]),
        st.text(max_size=12),
    )
    text, tags = "", []
    for plain, phrase, target in draw(
        st.lists(st.tuples(words, st.text(min_size=1, max_size=9), st.sampled_from(TARGETS)))
    ):
        text += plain
        end = len(text) + len(phrase)
        grounding = Grounding((), None, "not_found")
        tags.append(Tag(len(text), end, phrase, target, "anatomy", grounding))
        text += phrase
    made = Provenance("authored")
    return GroundedReport("d", "test", "s1", "i1", text + draw(words), tuple(tags), made)


@given(tagged_texts())
def test_the_pieces_are_the_text_and_every_tag_is_one_of_them(report: GroundedReport) -> None:
    article = read_article("a", report, [])
    assert "".join(piece.text for piece in article.pieces) == report.text
    tagged = [piece for piece in article.pieces if piece.finding]
    assert [piece.text for piece in tagged] == [tag.phrase for tag in report.tags]
    assert [piece.tag for piece in tagged] == list(range(len(report.tags)))


@given(tagged_texts())
def test_findings_are_numbered_by_first_mention_and_hold_their_phrases(
    report: GroundedReport,
) -> None:
    findings = read_article("a", report, []).findings
    assert [finding.number for finding in findings] == list(range(1, len(findings) + 1))
    firsts = dict.fromkeys(tag.target for tag in report.tags)
    assert [finding.target for finding in findings] == list(firsts)
    for finding in findings:
        wanted = {tag.phrase for tag in report.tags if tag.target == finding.target}
        assert set(finding.phrases) == wanted
        assert report.tags[finding.first_tag].target == finding.target

"""What holds for the studies of every data set that is read, whatever its files."""

from storage.datasets.reader import DatasetReader, Study
from storage.reasons import require_known
from storage.rejects import Reject


def read_studies(reader: DatasetReader) -> tuple[list[Study], list[Reject]]:
    """The studies and the rejects of all records, of which none is lost."""
    records = [*reader.records()]
    found = list(reader.read(records))
    assert len(found) == len(records), f"{len(records)} records gave {len(found)} results"
    assert reader.fingerprint() == reader.fingerprint()
    studies = [one for one in found if isinstance(one, Study)]
    rejects = [one for one in found if isinstance(one, Reject)]
    left_out = [reject for study in studies for reject in study.left_out]
    for reject in (*rejects, *left_out):
        require_known(reject.reason)
        assert "\n" not in reject.detail, f"not one sentence: {reject.detail}"
    for study in studies:
        texts = (study.study_id, study.findings, study.impression, study.patient_id, *study.labels)
        for text in texts:
            assert "\0" not in (text or ""), "a text with NUL"
            (text or "").encode()  # as it is written to Parquet
    return studies, rejects


def same_or_rejected(
    studies: list[Study], rejects: list[Reject], intact: list[Study]
) -> str | None:
    """Require that each intact study is read unchanged or rejected; the reason of a reject."""
    assert all(study in intact for study in studies), "it has another study"
    assert len(studies) + len(rejects) == len(intact), "it has fewer studies, or more"
    return rejects[0].reason if rejects else None

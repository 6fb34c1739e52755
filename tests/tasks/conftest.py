"""Real reports for the tests of the text steps."""

import pytest

from storage.datasets.reader import Study
from storage.datasets.registry import find_declaration
from storage.shards import table_from_rows
from tasks.audit.scores import report_number


@pytest.fixture(scope="session")
def even_studies(real_input):
    """OpenI's reports with even numbers, as `studies`; the odd ones are held out."""
    reader = find_declaration("openi").open(real_input("openi/NLMCXR_reports.tgz").parent)
    records = [r for r in reader.records() if report_number(r.key.removesuffix(".xml")) % 2 == 0]
    studies = [study for study in reader.read(records) if isinstance(study, Study)]
    assert len(studies) == len(records)
    return table_from_rows("studies", [study.row("openi", "train") for study in studies])


@pytest.fixture(scope="session")
def even_texts(even_studies):
    """The sections of those reports."""
    columns = even_studies.select(["findings", "impression"]).to_pydict().values()
    return [text for column in columns for text in column if text]

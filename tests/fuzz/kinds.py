"""The kinds of input that are damaged."""

from tests.fuzz import (
    containers,
    enhanced_ct,
    films,
    manifests,
    masks,
    nifti,
    pictures,
    reports,
    series,
    tables,
)

KINDS = (
    nifti.KIND,
    films.KIND,
    series.KIND,
    enhanced_ct.KIND,
    pictures.KIND,
    containers.KIND,
    reports.KIND,
    tables.KIND,
    masks.KIND,
    manifests.KIND,
)

"""LIDC-IDRI: marks of four readers are fused, wherever the XML files lie."""

import numpy as np
import pytest

from storage.datasets import registry
from storage.datasets.reader import DatasetError, Study
from storage.rejects import Reject
from tests.storage.images.dicom_files import SERIES, decimals, write_ct_slice
from tests.storage.images.volume_writers import write_metaimage

SHAPE = (24, 20, 6)  # columns, rows, slices
SPACING = (0.6, 0.6, 2.5)
HEADER = f"""<?xml version="1.0" encoding="UTF-8"?>
<LidcReadMessage uid="1.3" xmlns="http://www.nih.gov">
<ResponseHeader><Version>1.8.1</Version><SeriesInstanceUid>{SERIES}</SeriesInstanceUid>
</ResponseHeader>"""


def ring(x0, y0, x1, y1):
    """The pixels around a rectangle of pixels x0 to x1, y0 to y1, both ends included."""
    columns = range(x0 - 1, x1 + 2)
    rows = range(y0, y1 + 1)
    top, bottom = [(x, y0 - 1) for x in columns], [(x, y1 + 1) for x in reversed(columns)]
    return [*top, *((x1 + 1, y) for y in rows), *bottom, *((x0 - 1, y) for y in reversed(rows))]


def roi(at, points, inclusion="TRUE"):
    edges = "".join(
        f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points
    )
    return (
        f"<roi><imageZposition>{-100 + SPACING[2] * at}</imageZposition>"
        f"<imageSOP_UID>1.2</imageSOP_UID><inclusion>{inclusion}</inclusion>{edges}</roi>"
    )


def message(*sessions):
    nodules = "".join(
        "<readingSession>"
        + "".join(
            f"<unblindedReadNodule><noduleID>{at}</noduleID>{rois}</unblindedReadNodule>"
            for at, rois in enumerate(session)
        )
        + "<nonNodule><locus><xCoord>3</xCoord></locus></nonNodule></readingSession>"
        for session in sessions
    )
    return f"{HEADER}{nodules}</LidcReadMessage>"


def write_scan(root, xml, xml_at):
    folder = root / "LIDC-IDRI" / "LIDC-IDRI-0007" / "01-01-2000-30178" / "3000566.000000-NA-03192"
    folder.mkdir(parents=True)
    for at in range(SHAPE[2]):
        write_ct_slice(
            folder / f"1-{SHAPE[2] - at:02}.dcm",
            np.zeros((SHAPE[1], SHAPE[0]), np.int16),
            (10, 20, -100 + SPACING[2] * at),
            PixelSpacing=decimals(*SPACING[:2]),
        )
    (folder / "._1-01.dcm").write_bytes(b"Mac OS X")
    path = root / xml_at if xml_at else folder / "069.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(xml)


def place(mask, index):
    """Whether the voxel (column, row, slice) of the series is set in a mask on the RAS+ grid."""
    lps = np.array([10, 20, -100]) + np.array(index) * SPACING
    ras = np.array([-lps[0], -lps[1], lps[2], 1])
    return bool(
        mask.voxels[
            tuple(np.linalg.solve(np.reshape(mask.affine, (4, 4)), ras).round().astype(int)[:3])
        ]
    )


@pytest.mark.parametrize("xml_at", [None, "tcia-lidc-xml/157/158.xml"])
def test_a_nodule_is_what_half_of_its_readers_drew(tmp_path, xml_at) -> None:
    first = roi(2, ring(5, 6, 8, 9)) + roi(3, ring(5, 6, 8, 9))
    hole = roi(2, ring(6, 7, 6, 7), "FALSE")
    write_scan(
        tmp_path,
        message(
            [first, roi(4, [(20, 3)])],
            [roi(2, ring(5, 6, 8, 9)) + hole, roi(5, ring(15, 12, 17, 14))],
            [roi(2, ring(7, 6, 10, 9))],
            [],
        ),
        xml_at,
    )
    lungs = np.zeros(SHAPE, np.uint8)
    lungs[5:9, 5:9] = 3
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = -10, -20, -100
    (tmp_path / "seg-lungs-LUNA16").mkdir()
    write_metaimage(tmp_path / "seg-lungs-LUNA16" / f"{SERIES}.mhd", lungs, affine)

    reader = registry.find_declaration("lidc-idri").open(tmp_path)
    (record,) = reader.records()
    (study,) = reader.read([record])
    assert isinstance(study, Study), study
    assert (study.study_id, study.patient_id) == (SERIES, "LIDC-IDRI-0007")
    assert study.images[0].shape == SHAPE
    assert study.gold is not None
    upper, lower, left, right, trachea = study.gold.masks
    assert (upper.label, upper.target, upper.readers) == ("nodule", "lung nodule", 1)
    assert upper.mask.voxel_count == 9
    assert place(upper.mask, (16, 13, 5))
    # Of three readers two must agree: columns 5 to 8 (two readers) less the hole, which leaves one.
    assert (lower.instance, lower.readers, lower.annotator) == (1, 3, "consensus of 50 %")
    assert place(lower.mask, (5, 6, 2))
    assert not place(lower.mask, (6, 7, 2))
    assert not place(lower.mask, (9, 7, 2))
    assert not place(lower.mask, (5, 6, 3))  # one of three
    assert lower.mask.voxel_count == 15
    assert (left.label, left.mask.voxel_count) == ("left lung", 4 * 4 * 6)
    assert place(left.mask, (5, 5, 0))
    assert right.mask.voxel_count == trachea.mask.voxel_count == 0


def test_a_scan_without_nodules_has_an_empty_mask_unless_small_ones_were_marked(tmp_path) -> None:
    for name, sessions, wanted in (("none", ([], []), [0]), ("small", ([roi(1, [(3, 3)])],), [])):
        write_scan(tmp_path / name, message(*sessions), None)
        reader = registry.find_declaration("lidc-idri").open(tmp_path / name)
        (study,) = reader.read(reader.records())
        assert isinstance(study, Study)
        assert study.gold is not None
        assert [mask.mask.voxel_count for mask in study.gold.masks] == wanted


def test_what_cannot_be_used_is_said(tmp_path) -> None:
    declared = registry.find_declaration("lidc-idri")
    with pytest.raises(DatasetError, match="no XML file"):
        list(declared.open(tmp_path).records())
    outside = roi(9, ring(5, 6, 8, 9))
    for name, xml, reason in (
        ("cut", message([outside])[:-40], "xml_unreadable"),
        ("outside", message([outside]), "xml_unreadable"),
        ("elsewhere", message([]).replace(SERIES, "1.2.3"), "image_not_found"),
    ):
        write_scan(tmp_path / name, xml, "tcia-lidc-xml/1.xml")
        (tmp_path / name / "radiograph.xml").write_text(HEADER.replace("Lidc", "Idri"))
        reader = declared.open(tmp_path / name)
        (reject,) = reader.read(reader.records())
        assert isinstance(reject, Reject)
        assert reject.reason == reason, reject

"""What people marked, as rows of the store's tables."""

import numpy as np

from storage.gold import GOLD_TABLES, Gold, GoldBox, GoldMask, GoldPhrase, Question
from storage.records import Box, Mask
from storage.schemas import SCHEMAS
from storage.shards import table_from_rows

KEY = {"dataset": "archive", "split": "train", "study_id": "1"}


def test_every_kind_becomes_a_row_of_its_table() -> None:
    voxels = np.zeros((3, 4, 5), bool)
    voxels[1, 2, 3] = True
    gold = Gold(
        (GoldPhrase("0", "Left effusion.", "Effusion", "pleural effusion", image_id="a"),),
        (
            GoldBox(
                "a", Box(1, 2, 3, 4, 1.0), "Effusion", "pleural effusion", phrase_id="0", readers=2
            ),
        ),
        (GoldMask("a", Mask.of(voxels, np.eye(4)), "liver", "liver"),),
        (Question("a", 0, "Which plane?", ("axial", "transverse"), "plane"),),
    )
    rows = gold.rows()
    assert set(rows) == set(GOLD_TABLES)
    for table, of_table in rows.items():
        written = table_from_rows(table, [KEY | row for row in of_table]).to_pylist()
        assert len(written) == 1
        given = of_table[0]
        assert {name: written[0][name] for name in given} == given
        assert KEY.keys() | given.keys() <= set(SCHEMAS[table].names)

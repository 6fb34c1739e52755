"""Windows map Hounsfield units to grey."""

import numpy as np

from storage.imaging.windows import Window, window_of, windows


def test_the_ends_of_a_window_are_black_and_white() -> None:
    grey = Window("soft tissue", 40, 400).grey(np.array([-2048, -160, 40, 240, 3000], np.int16))
    assert grey.dtype == np.float32
    assert grey.tolist() == [0, 0, 0.5, 1, 1]


def test_a_group_has_the_window_that_lists_it_and_others_soft_tissue() -> None:
    assert window_of("Spine").name == "bone"
    assert window_of("Heart").name == window_of(None).name == "soft tissue"


def test_a_setting_is_written_as_radiologists_do() -> None:
    assert windows()["lung"].setting == "W\N{NO-BREAK SPACE}1500, L\N{NO-BREAK SPACE}−600"

"""`vividmed predict` and `vividmed model check`, with a small model trained in seconds."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from flows.cli.main import main
from storage.catalogue import query_rows, study_rows
from storage.images.loading import load_volume
from storage.manifests import is_complete, read_manifests
from storage.records import Box, GroundedReport, masks_by_key
from storage.store import Store
from tests.model.inference.memorized import ANSWERS, block, memorized, text_of, write_images
from tests.storage.images.dicom_files import write_ct_slice


@dataclass(frozen=True)
class Printed:
    code: int
    out: str
    err: str


Run = Callable[..., Printed]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process, where PyTorch is loaded already."""
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: object) -> Printed:
        monkeypatch.setattr(sys, "argv", ["vividmed", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Printed(int(ended.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    trained = memorized()
    trained.model.save_pretrained(folder)
    trained.processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_images(tmp_path_factory.mktemp("pictures"))


def sentence_of(printed: Printed) -> str:
    assert printed.code == 1
    assert "Traceback" not in printed.err
    assert printed.err.startswith("error: ")
    return printed.err


def test_images_become_grounded_reports_in_their_own_coordinates(
    run: Run, saved: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    paths = [pictures[name] for name in ANSWERS]
    printed = run("predict", *paths, "--model", saved, "--output", tmp_path, "--json")
    assert printed.code == 0
    film, ct = json.loads(printed.out)
    assert (film["text"], ct["text"]) == (text_of("film.png"), text_of("ct.nii.gz"))
    assert film == json.loads((tmp_path / "film" / "prediction.json").read_text("utf-8"))
    assert (tmp_path / "film" / "overlay.png").is_file()
    [nodule] = film["tags"]
    assert nodule["boxes"][0]["frame"] == "pixels"
    heart, _ = ct["tags"]
    mask = nib.Nifti1Image.from_filename(tmp_path / "ct" / heart["mask"]["file"])
    original = nib.Nifti1Image.from_filename(pictures["ct.nii.gz"])
    np.testing.assert_allclose(mask.affine, original.affine, atol=1e-5)
    voxels = np.asarray(mask.dataobj) > 0
    assert 2 * (voxels & block()).sum() / (voxels.sum() + block().sum()) > 0.9


def test_a_person_reads_text_and_places(run: Run, saved: Path, pictures: dict[str, Path]) -> None:
    printed = run("predict", pictures["ct.nii.gz"], "--model", saved)
    assert printed.code == 0
    assert text_of("ct.nii.gz") in printed.out
    assert "ml" in printed.out
    assert "not for clinical decisions" in printed.out


def test_images_of_one_name_do_not_overwrite_each_other(
    run: Run, saved: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    twin = shutil.copy(pictures["film.png"], tmp_path / "other" / "film.png")
    out = tmp_path / "out"
    printed = run("predict", pictures["film.png"], twin, "--model", saved, "--output", out)
    assert printed.code == 0
    assert sorted(path.name for path in out.iterdir()) == ["film", "film~2"]


def test_the_folder_of_a_series_keeps_its_whole_name(run: Run, saved: Path, tmp_path: Path) -> None:
    series = tmp_path / "1.2.840.11"
    series.mkdir()
    for number, value in enumerate((-900, -800, -700)):
        plane = np.full((9, 11), value, np.int16)
        write_ct_slice(series / f"{number}.dcm", plane, position=(0, 0, 3 * number))
    out = tmp_path / "out"
    assert run("predict", series, "--model", saved, "--output", out).code == 0
    assert (out / "1.2.840.11" / "prediction.json").is_file()
    within = run("predict", series, "--model", saved, "--output", tmp_path)
    assert "which is one of the images" in sentence_of(within)
    assert len(list(series.iterdir())) == 3


def test_an_output_that_cannot_be_written_is_said_before_anything_is_made(
    run: Run, pictures: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("taken")
    for taken in (tmp_path / "file", tmp_path / "file" / "below"):
        # No model is there: it would be missed next.
        printed = run("predict", pictures["film.png"], "--model", tmp_path, "--output", taken)
        assert "cannot be written to" in sentence_of(printed)
        assert printed.out == ""


def test_predictions_in_a_store_are_grounded_reports(
    run: Run, saved: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    store, film, ct = Store(str(tmp_path / "store")), pictures["film.png"], pictures["ct.nii.gz"]
    ask = ("predict", "--model", saved, "--store", store.root)
    assert run(*ask, film, "--pointing", "both").code == 0
    assert run(*ask, ct).code == 0
    assert run(*ask, film, "--pointing", "both").code == 0  # replaces the first

    manifests = read_manifests(store, "predictions")
    assert [(made.stage, made.rows_in, made.rows_out) for made in manifests] == [
        ("predict", 1, 1)
    ] * 2
    assert all(is_complete(store, made) for made in manifests)
    reports = _stored_reports(store)
    assert set(reports) == {text_of(name) for name in ANSWERS}

    of_film = reports[text_of("film.png")]
    assert (of_film.provenance.source, of_film.provenance.model) == ("prediction", str(saved))
    [nodule] = of_film.tags
    assert nodule.grounding.boxes
    assert isinstance(nodule.grounding.boxes[0], Box)
    assert nodule.grounding.mask is not None
    assert nodule.grounding.mask.shape == (110, 80)

    heart, unknown = reports[text_of("ct.nii.gz")].tags
    volume, mask = load_volume(ct), heart.grounding.mask
    assert mask is not None
    assert (heart.grounding.kind, mask.shape) == ("mask", volume.hu.shape)
    assert mask.affine is not None
    np.testing.assert_allclose(np.reshape(mask.affine, (4, 4)), volume.affine, atol=1e-5)
    bright = volume.hu == 200
    assert 2 * (mask.voxels & bright).sum() / (mask.voxels.sum() + bright.sum()) > 0.9
    assert (unknown.grounding.kind, unknown.grounding.reason) == ("none", "not_found")

    page = (tmp_path / "store" / "gallery.html").read_text(encoding="utf-8")
    assert page.count(f"predicted by {saved}") == 2
    assert page.count("data:image/jpeg") >= 3
    shown = run("sql", "SELECT provenance.source, len(tags) FROM grounded_reports", *ask[3:])
    assert "prediction" in shown.out


def _stored_reports(store: Store) -> dict[str, GroundedReport]:
    _, studies = query_rows(store.root, "SELECT study_id FROM grounded_reports")
    found = {}
    for (study_id,) in studies:
        [row] = study_rows(store.root, "grounded_reports", study_id)
        masks = masks_by_key(study_rows(store.root, "masks", study_id))
        report = GroundedReport.from_row(row, masks)
        found[report.text] = report
    return found


def test_a_dataset_built_from_reports_takes_no_predictions(
    run: Run, saved: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    manifest = tmp_path / "manifests/ingest/openi/part-00000.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    film = pictures["film.png"]
    ask = ("predict", film, "--model", saved, "--store", tmp_path, "--dataset", "openi")
    assert "choose another --dataset" in sentence_of(run(*ask))


def test_an_answer_that_had_to_stop_says_so(
    run: Run, saved: Path, pictures: dict[str, Path]
) -> None:
    short = ("predict", pictures["film.png"], "--model", saved, "--max-new-tokens", 2)
    assert "--max-new-tokens allows no more" in run(*short).out
    assert json.loads(run(*short, "--json").out)[0]["complete"] is False
    assert "allows no more" not in run(*short[:-2]).out


def test_a_mistake_gets_one_sentence(
    run: Run, saved: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    film = pictures["film.png"]
    assert "`make overfit` trains a small one" in sentence_of(run("predict", film))
    absent = run("predict", film, "--model", tmp_path / "none")
    assert "there is no model folder" in sentence_of(absent)
    assert "no saved VividMed model" in sentence_of(run("predict", film, "--model", tmp_path))
    without = run("predict", film, "--model", saved, "--task", "vqa")
    assert "needs a question" in sentence_of(without)


def test_an_image_that_cannot_be_read_is_skipped(
    run: Run, saved: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    film, cut, note = pictures["film.png"], tmp_path / "cut.png", tmp_path / "note.txt"
    cut.write_bytes(film.read_bytes()[: film.stat().st_size * 3 // 4])  # its header is whole
    note.write_text("no image")
    images = (tmp_path / "no.png", film, cut, note, film)
    printed = run("predict", *images, "--model", saved, "--output", tmp_path / "out", "--json")
    assert printed.code == 1
    first, second, *skipped = json.loads(printed.out)
    assert first["image"] == second["image"] == str(film)
    assert {entry["image"]: entry["error"] for entry in skipped} == {
        str(images[0]): "image_not_found",
        str(note): "image_unreadable",
        str(cut): "image_unreadable",
    }
    assert printed.err.count("skipped: ") == 3
    assert printed.err.endswith("error: 3 of 5 images could not be read, see above\n")
    written = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.json")
    }
    assert written == {"film/prediction.json", "film~2/prediction.json"}
    assert not (tmp_path / "out" / "cut").exists()

    alone = run("predict", note, "--model", saved)
    assert alone.code == 1
    assert "no DICOM, PNG or JPEG file" in alone.err


def test_a_damaged_or_foreign_model_is_refused(
    run: Run, saved: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    film = pictures["film.png"]
    damaged = shutil.copytree(saved, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "may be damaged" in sentence_of(run("predict", film, "--model", damaged))
    foreign = shutil.copytree(saved, tmp_path / "foreign")
    (foreign / "config.json").write_text('{"model_type": "llama"}')
    assert "a model of type llama" in sentence_of(run("predict", film, "--model", foreign))
    (foreign / "config.json").write_text("{")
    assert "cannot be read" in sentence_of(run("predict", film, "--model", foreign))


@pytest.mark.parametrize("dataset", ["../elsewhere", "", "a/b"])
def test_a_dataset_whose_name_leaves_the_store_is_refused(
    run: Run, saved: Path, pictures: dict[str, Path], tmp_path: Path, dataset: str
) -> None:
    options = ("--model", saved, "--store", tmp_path / "store", "--dataset", dataset)
    assert "a name has letters" in sentence_of(run("predict", pictures["film.png"], *options))
    assert not list(tmp_path.rglob("*"))


def test_one_model_by_two_paths_writes_one_prediction(
    run: Run,
    saved: Path,
    pictures: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(saved.parent)
    for folder in (saved, saved.name):
        made = run("predict", pictures["film.png"], "--model", folder, "--store", tmp_path)
        assert made.code == 0
    _, rows = query_rows(str(tmp_path), "SELECT study_id FROM grounded_reports")
    assert len(rows) == 1


def test_a_model_that_was_trained_further_replaces_its_prediction(
    run: Run, saved: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    folder, store = tmp_path / "model", Store(str(tmp_path / "store"))
    shutil.copytree(saved, folder)
    made = []
    for threshold in (0.5, 0.6):
        ask = ("predict", pictures["film.png"], "--model", folder, "--store", store.root)
        assert run(*ask, "--threshold", threshold).code == 0
        made += read_manifests(store)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    first, second = made  # one prediction at a time
    assert first.part == second.part
    assert first.digest != second.digest
    assert first.recipe["weights"] != second.recipe["weights"]
    assert (second.recipe["threshold"], second.recipe["pointing"]) == (0.6, "by-category")
    assert first.inputs == second.inputs != {}


def test_without_the_model_extra_it_says_how_to_install_it(
    run: Run, pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    printed = run("predict", pictures["film.png"], "--model", "anything")
    assert "needs torch" in sentence_of(printed)
    assert "pip install -c constraints.txt -e '.[model]'" in printed.err


def test_a_checkpoint_is_held_against_the_model(run: Run, saved: Path, tmp_path: Path) -> None:
    fitting = run("model", "check", saved)
    assert fitting.code == 0, fitting.out
    assert "VividMed" in fitting.out
    assert "fits" in fitting.out
    printed = run("model", "check", saved, "--config", "mid", "--json")
    assert printed.code == 1
    report = json.loads(printed.out)
    assert report["mismatched"]
    assert not report["fits"]
    assert "no weights" in sentence_of(run("model", "check", tmp_path))
    assert "no preset 'huge'" in sentence_of(run("model", "check", saved, "--config", "huge"))

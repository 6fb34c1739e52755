"""A checkpoint is recognized, and compared with the model, by its headers alone."""

from __future__ import annotations

import json
import resource
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from model.checkpoints.check import blank_model, check
from model.checkpoints.weights import CheckpointError
from model.config import VividMedConfig, preset
from model.network.vividmed import VividMedForCausalLM
from tests.model.checkpoints.released import (
    TABLES,
    Shapes,
    cogvlm_config,
    shapes,
    tensors,
    write_cogvlm,
)

PUBLISHED = TABLES["published"]
SMALL = TABLES["small"]["cogvlm"]


def write_blank(path: Path, of: Shapes) -> None:
    """Write a safetensors file whose values are a hole, which takes no room on the disk."""
    header, end = {}, 0
    for key, shape in of.items():
        start, end = end, end + 2 * prod(shape)
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)


def test_the_published_cogvlm_is_checked_without_its_35_gigabytes(tmp_path: Path) -> None:
    of = shapes(PUBLISHED["cogvlm"], "cogvlm")
    (tmp_path / "config.json").write_text(json.dumps(cogvlm_config(PUBLISHED["cogvlm"])))
    file = tmp_path / "model.safetensors"
    try:
        write_blank(file, of)
    except OSError as error:
        pytest.skip(f"this file system has no sparse files: {error}")
    assert file.stat().st_size > 35e9
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = check(tmp_path)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    file.unlink()
    assert report.fits
    assert report.parameters == sum(prod(shape) for shape in of.values())
    assert report.dtypes == {"bfloat16": len(of)}
    assert grown_kib < 200 * 1024
    kernel = next(of for of in report.reshaped if of.target.endswith("embedding.proj.weight"))
    assert (kernel.from_shape, kernel.to_shape) == ((1792, 3, 14, 14), (1792, 3, 16, 16, 16))


@pytest.mark.parametrize("size", [768, 1024, 1280])
def test_the_published_sam_tells_its_own_size(tmp_path: Path, size: int) -> None:
    """ViT-B, L and H; a head has 64 or 80 channels."""
    head, blocks = {768: (64, 12), 1024: (64, 24), 1280: (80, 32)}[size]
    sizes = {"hidden": size, "mlp": 4 * size, "blocks": blocks, "head": head}
    write_blank(tmp_path / "sam.safetensors", shapes(sizes, "sam"))
    report = check(tmp_path / "sam.safetensors")
    assert report.fits
    assert report.layout == "SAM"
    assert len(report.reshaped) == 3


def test_the_published_segvol_fits_the_paper(tmp_path: Path) -> None:
    sizes = {**PUBLISHED["localizer"], "hypernets": 4}
    of = {f"model.{key}": shape for key, shape in shapes(sizes, "localizer", "segvol").items()}
    write_blank(tmp_path / "segvol.safetensors", of)
    report = check(tmp_path / "segvol.safetensors")
    assert report.fits
    assert report.layout == "SegVol"


def test_headers_of_pytorch_files_are_enough(tmp_path: Path) -> None:
    weights = tensors(shapes(SMALL, "cogvlm"))
    write_cogvlm(tmp_path, weights)
    torch.save(weights, tmp_path / "all.bin")
    report = check(tmp_path / "all.bin")
    assert report.fits
    assert report.layout == "CogVLM"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    VividMedForCausalLM(preset("tiny")).save_pretrained(folder)
    return folder


def test_our_own_folder_fits_itself(own: Path) -> None:
    report = check(own)
    assert report.fits
    assert report.layout == "VividMed"
    assert not report.absent
    assert not report.reshaped
    assert check(own, str(own)) == report


def test_our_own_folder_does_not_fit_another_size(own: Path) -> None:
    report = check(own, "mid")
    assert not report.fits
    assert report.mismatched
    assert report.missing
    entry = next(of for of in report.mismatched if of.target == "model.norm.weight")
    assert (entry.from_shape, entry.to_shape) == ((128,), (512,))


def test_a_report_says_everything_in_json(own: Path) -> None:
    said = json.loads(check(own, "mid").model_dump_json())
    assert said["fits"] is False
    assert {"path", "layout", "tensors", "parameters", "dtypes", "missing", "absent"} <= set(said)


def test_what_is_left_over_is_unexpected(tmp_path: Path) -> None:
    extra = tensors(shapes(SMALL, "cogvlm")) | {"model.extra.weight": torch.zeros(2)}
    write_cogvlm(tmp_path, extra)
    report = check(tmp_path)
    assert report.unexpected == ["model.extra.weight"]
    assert not report.fits


def blank(path: Path) -> None:
    path.write_bytes(b"")


def noise(path: Path) -> None:
    path.write_bytes(b"this is not a checkpoint at all" * 9)


def cut(path: Path) -> None:
    whole = path.with_suffix(".whole" + path.suffix)
    save = save_file if path.suffix == ".safetensors" else torch.save
    save(tensors({"model.norm.weight": (2000,)}), whole)
    path.write_bytes(whole.read_bytes()[:-3000])


def foreign(path: Path) -> None:
    save = save_file if path.suffix == ".safetensors" else torch.save
    save(tensors({"encoder.layers.0.weight": (3, 2)}), path)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pth"])
@pytest.mark.parametrize("damage", [blank, noise, cut, foreign])
def test_a_bad_file_is_named_in_one_sentence(tmp_path: Path, suffix: str, damage: object) -> None:
    path = tmp_path / f"file{suffix}"
    assert callable(damage)
    damage(path)
    with pytest.raises(CheckpointError, match=str(path)) as raised:
        check(path)
    assert "\n" not in str(raised.value)


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".safetensors", ".bin"]))
def test_no_bytes_end_in_a_trace(content: bytes, suffix: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            check(path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.bin")
    with pytest.raises(CheckpointError, match="no dictionary of weights, but a list"):
        check(tmp_path / "list.bin")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        check(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no weights"):
        check(tmp_path)


def test_a_shard_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    write_cogvlm(tmp_path, tensors(shapes(SMALL, "cogvlm")))
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks model-00002-of-00003"):
        check(tmp_path)


def test_an_index_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    write_cogvlm(tmp_path, tensors(shapes(SMALL, "cogvlm")))
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.extra"] = "model-00001-of-00003.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lacks model\.extra"):
        check(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_a_damaged_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="index"):
        check(tmp_path)


def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "outside.safetensors")
    folder = tmp_path / "inside"
    folder.mkdir()
    text = json.dumps({"weight_map": {"a": "../outside.safetensors"}})
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="lacks outside"):
        check(folder)


@pytest.mark.parametrize("config", ["huge", "tests"])
def test_an_unknown_configuration_is_said(own: Path, config: str) -> None:
    with pytest.raises(CheckpointError, match="config"):
        check(own, config)


def test_the_paper_has_the_published_number_of_parameters() -> None:
    """CogVLM's 17.64 billion, 17.67 with cubic kernels and positions; the two localizers.

    Ours lack what they never use: points, masks given as prompts and the instances' masks.
    """
    model = blank_model(preset("paper"))
    count = parameters
    assert all(of.device.type == "meta" for of in model.parameters())
    assert {count(layer) for layer in model.model.layers} == {404_758_528}
    assert {count(layer) for layer in model.model.vision.transformer.layers} == {67_926_784}
    assert (len(model.model.layers), len(model.model.vision.transformer.layers)) == (32, 63)
    original = shapes(PUBLISHED["cogvlm"], "cogvlm")
    released = sum(prod(shape) for key, shape in original.items() if "inv_freq" not in key)
    assert round(released / 1e9, 2) == 17.64
    assert round((count(model.model) + count(model.lm_head)) / 1e9, 2) == 17.67


def test_the_released_localizers_have_the_published_number_of_parameters() -> None:
    config = preset("paper")
    config.localizers = "separate"
    model = blank_model(config)
    sizes = PUBLISHED["localizer"]
    masks = shapes(sizes, "localizer", "aligned")
    boxes = shapes({**sizes, "mask_tokens": 7}, "localizer", "aligned", "instances")
    assert model.isam_model is not None
    for network, of, published in ((model.sam, masks, 121.6), (model.isam_model, boxes, 123.4)):
        assert round(sum(prod(shape) for shape in of.values()) / 1e6, 1) == published
        ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        assert ours.items() <= of.items()
        unused = " ".join(of.keys() - ours.keys())
        assert unused.count("mlps.1") == 6
        assert sum(prod(of[key]) for key in of.keys() - ours.keys()) < 1.3e6


def parameters(module: torch.nn.Module) -> int:
    return sum(of.numel() for of in module.parameters())


def test_a_configuration_can_be_given(tmp_path: Path) -> None:
    write_cogvlm(tmp_path, tensors(shapes(SMALL, "cogvlm")))
    config = VividMedConfig(**preset("tiny").to_dict())
    assert check(tmp_path, config).mismatched

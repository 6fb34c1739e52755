"""What a user types, and what a mistake gets."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from tests.flows.conftest import BIN, REPOSITORY, Command
from tests.tasks.engines.llm.plain_server import PlainServer

HEAVY = {"prefect", "pyarrow", "duckdb", "scipy", "skimage", "nibabel", "pydicom", "torch"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from flows.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(result.stdout.split())


def _mistake(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that a mistake ends in."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    return result.stderr.strip()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["build", "opni"],
            "there is no data set opni, perhaps openi was meant: choose from ",
        ),
        (["build", "showcase", "--source", "docs"], "showcase is read from the fetched inputs"),
        (["build", "/no/such.yaml"], "/no/such.yaml cannot be read: No such file"),
        (["build", "openi", "--limit", "0"], "limit = 0: input should be greater than"),
        (["build", "openi", "--require-sections", "none"], "input should be 'both' or 'any'"),
        (["build", "openi", "--source", "/no/such/folder"], "there is no folder /no/such/folder"),
        (["build", "openi", "--store", "/proc/store"], "cannot write /proc/store"),
        (["build", "openi", "--store", "gopher://x"], "is not a store"),
        (["build", "openi", "--store", ""], "the store has no name"),
        (["sql", "SELECT 1", "--store", ""], "the store has no name"),
        (["status", "--store", "/no/such/store"], "run `vividmed build` first"),
        (["show", "CXR1", "--store", "/no/such/store"], "holds nothing yet: run `vividmed build`"),
        (["sql", "SELEC 1"], "the query cannot be run"),
        (["sql", ""], "the query is empty"),
        (["sql", "select '[/b]' FROM"], "the query cannot be run"),
        (["build", "openi", "--source", "/no/[/red]x"], "there is no folder /no/[/red]x"),
        (["show", "[/b]", "--store", "/no/such/store"], "holds nothing yet"),
        (["taxonomy", "[/b]"], "no target is called “[/b]”"),
        (["taxonomy", "no such target"], "no target is called “no such target”"),
        (["taxonomy", "plural efussion"], "perhaps pleural effusion was meant"),
        (["audit", "openi", "--store", "/no/such/store"], "run `vividmed build"),
        (["audit", "sentnces", "--store", "/no/such/store"], "perhaps sentences was meant"),
        (["status", "Opneni", "--store", "/no/such/store"], "perhaps openi was meant"),
        (["fetch", "nonsense"], "there is no input nonsense: choose from"),
        (["fetch", "chest-ct"], "there is no input chest-ct, perhaps chest_ct was meant"),
        (["preview"], "give a study's id, or a report with --text FILE"),
        (["preview", "--text", "README.md"], "give a study's id, or a report with --text FILE"),
        (["preview", "a", "--text", "README.md", "--image", "b.png"], "give a study's id, or"),
        (["preview", "a", "--image", "b.png"], "give a study's id, or a report with --text"),
        (["preview", "--text", "README.md", "--image", "LICENSE"], "no DICOM, PNG or JPEG file"),
        (["preview", "--text", "docs", "--image", "a.png"], "--text docs cannot be read: Is a dir"),
        (["preview", "CXR1", "--output", "/proc/x/page.html"], "cannot be written"),
        (["preview", "chest-ct-nodle"], "perhaps chest-ct-nodule was meant"),
        (
            ["plan", "openi", "--config", "configs/llama-3-70b-vllm.yaml", "--shard-size", "0"],
            "shard_size = 0: input should be greater than or equal to 1",
        ),
    ],
)
def test_a_mistake_gets_one_sentence(
    vividmed: Command, arguments: list[str], sentence: str
) -> None:
    assert sentence in _mistake(vividmed(*arguments))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("cleaner: llm", "a step has the engine `llm`, but there is no section `llm`"),
        ("llm: {protocol: joint}", "give one of `server`, `vllm` and `batch`"),
        ("- a list", "must hold settings by name"),
        ("{unclosed: [", "is not YAML (line 1: "),
        ("clean: rules", "clean = 'rules': there is no such setting, perhaps `cleaner` was meant"),
        (
            "{cleaner: llm, extractor: llm, filter: llm, "
            "llm: {server: {model: m, base_urls: ['http://8.8.8.8/v1']}}}",
            "is not on this machine or a private network",
        ),
    ],
)
def test_a_configuration_with_a_mistake_is_refused(
    vividmed: Command, tmp_path: Path, content: str, sentence: str
) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(content)
    store = str(tmp_path / "store")
    assert sentence in _mistake(
        vividmed("build", "openi", "--config", str(config), "--store", store)
    )


@pytest.mark.parametrize("config", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=str)
def test_a_plan_for_each_configuration_that_we_ship(
    vividmed: Command, tmp_path: Path, config: Path
) -> None:
    arguments = ["--config", str(config), "--store", str(tmp_path), "--limit", "40"]
    result = vividmed("plan", "openi", *arguments)
    assert result.returncode == 0, result.stderr
    assert "of GPU time at 20,000 tokens read" in result.stdout


def test_a_batch_file_is_written_for_vllm(vividmed: Command, tmp_path: Path) -> None:
    config, requests = REPOSITORY / "configs" / "llama-3-70b-batch.yaml", tmp_path / "in.jsonl"
    arguments = ["--config", str(config), "--store", str(tmp_path / "store"), "--limit", "40"]
    result = vividmed("batch", "openi", str(requests), *arguments)
    assert result.returncode == 0, result.stderr
    assert "vllm run-batch" in result.stdout
    lines = [json.loads(line) for line in requests.read_text().splitlines()]
    assert len({line["custom_id"] for line in lines}) == len(lines) > 0
    assert all(line["body"]["temperature"] == 0 for line in lines)


def test_a_batch_tells_what_the_answers_so_far_took(vividmed: Command, tmp_path: Path) -> None:
    shipped = yaml.safe_load((REPOSITORY / "configs" / "llama-3-70b-batch.yaml").read_text())
    answers, config = tmp_path / "answers.jsonl", tmp_path / "batch.yaml"
    shipped["llm"]["batch"]["answers"] = str(answers)
    config.write_text(yaml.safe_dump(shipped))
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": "{}"}}
    usage = {"prompt_tokens": 1234, "completion_tokens": 2}
    response = {"status_code": 200, "body": {"choices": [choice], "usage": usage}}
    line = json.dumps({"custom_id": "a", "response": response, "error": None})
    answers.write_text(f"{line}\n{line[:40]}")
    arguments = ["--config", str(config), "--store", str(tmp_path / "store"), "--limit", "4"]
    result = vividmed("batch", "openi", str(tmp_path / "new" / "in.jsonl"), *arguments)
    said = " ".join(result.stdout.split())
    assert "answers so far: 1, of 1,234 tokens in and 2 out; lines that cannot be read: 1" in said


def test_a_taxonomy_with_an_error_is_named(vividmed: Command, tmp_path: Path) -> None:
    broken = tmp_path / "targets.yaml"
    broken.write_text("anatomy: [")
    assert "targets.yaml" in _mistake(vividmed("taxonomy", "--file", str(broken)))


def test_two_taxonomies_are_compared(vividmed: Command, tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    text = (REPOSITORY / "taxonomy" / "targets.yaml").read_text()
    old.write_text(text.replace("synonyms: [windpipe, ", "synonyms: ["))
    assert vividmed("taxonomy", "diff", str(old)).stdout == ("trachea: synonym added: windpipe\n")


def test_a_folder_without_reports_is_refused_before_any_work(
    vividmed: Command, tmp_path: Path
) -> None:
    result = vividmed("build", "openi", "--source", str(tmp_path), "--store", str(tmp_path / "s"))
    assert "holds no OpenI reports" in _mistake(result)


def test_tag_shows_phrases_and_assertions(vividmed: Command) -> None:
    text = "Small right pleural effusion. No pneumothorax. Possible atelectasis in the left base."
    result = vividmed("tag", "-", "--json", stdin=text)
    assert result.returncode == 0, result.stderr
    tagged = json.loads(result.stdout)
    found = {p["target"]: p for p in tagged["phrases"] if p["category"] == "abnormality"}
    assert {t: p["assertion"] for t, p in found.items()} == {
        "pleural effusion": "present",
        "pneumothorax": "absent",
        "atelectasis": "possible",
    }
    assert found["pleural effusion"]["laterality"] == "right"
    for phrase in tagged["phrases"]:
        assert tagged["text"][phrase["start"] : phrase["end"]] == phrase["phrase"]


@pytest.mark.parametrize("text", ["", "   ", "\x00", "🫁" * 40, "[bold]no markup[/]", "<b>&</b>"])
def test_tag_takes_any_text(vividmed: Command, text: str) -> None:
    result = vividmed("tag", "-", stdin=text)
    assert result.returncode == 0, result.stderr


def test_tag_says_why_a_text_is_not_read(vividmed: Command) -> None:
    result = vividmed("tag", "Kein Pneumothorax.")
    assert result.returncode == 0
    assert "German" in result.stdout
    assert "language_not_supported" in result.stdout
    rejected = json.loads(vividmed("tag", "Kein Pneumothorax.", "--json").stdout)["rejected"]
    assert rejected["reason"] == "language_not_supported"


def test_tag_reads_no_finding_from_the_history_of_a_report(vividmed: Command) -> None:
    result = vividmed("tag", "-", "--json", stdin="INDICATION : nodule\nFINDINGS : Effusion.")
    assert [p["target"] for p in json.loads(result.stdout)["phrases"]] == ["pleural effusion"]


def test_tag_takes_bytes_of_another_encoding(environment: dict[str, str]) -> None:
    result = subprocess.run(
        [BIN / "vividmed", "tag", "-", "--json"],
        env=environment,
        cwd=REPOSITORY,
        input=b"Left eff\xfcsion. No nodule.",
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert [p["target"] for p in json.loads(result.stdout)["phrases"]] == [
        "pleural effusion",  # one letter is lost: found by similarity
        "lung nodule",
    ]


def test_a_preview_takes_a_radiograph_through_all_steps(
    vividmed: Command, home: Path, tmp_path: Path
) -> None:
    film, page = home / "inputs" / "radiograph" / "RG1_UNCR.dcm", tmp_path / "page.html"
    arguments = ["--text", "-", "--image", str(film), "--output", str(page)]
    report = "The heart is enlarged. No pneumothorax."
    result = vividmed("preview", *arguments, stdin=report)
    assert result.returncode == 0, result.stderr
    assert re.search(r"cardiomegaly +box \[\d+ \d+ \d+ \d+\]", result.stdout)
    assert re.search(r"pneumothorax +absent", result.stdout)
    assert "data:image/jpeg" in page.read_text("utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        ["tag", "The heart is enlarged."],
        ["taxonomy"],
        ["doctor"],
        ["fetch", "openi"],
        ["plan", "openi", "--config", "configs/llama-3-70b-vllm.yaml", "--limit", "4"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_json_is_all_that_standard_output_holds(vividmed: Command, arguments: list[str]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    result = vividmed(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout, parse_constant=refuse)


@pytest.mark.parametrize(
    ("words", "target", "how"),
    [
        ("granulomas", "lung nodule", "“granulomas” in a report names"),
        ("enlarged hearts", "cardiomegaly", "“enlarged heart” is a synonym of"),
        ("efusion", "pleural effusion", "“efusion” is spelled like a word for"),
        ("nodul", "lung nodule", ""),
    ],
)
def test_a_target_is_found_by_what_reports_call_it(
    vividmed: Command, words: str, target: str, how: str
) -> None:
    found = json.loads(vividmed("taxonomy", words, "--json").stdout)
    assert {entry["name"]: entry["found_as"] for entry in found}[target] == how


def test_every_command_has_a_short_help_and_a_version(vividmed: Command) -> None:
    assert vividmed("--version").stdout == f"vividmed {version('vividmed')}\n"
    for command in ("", "build", "model check"):
        assert "Show this message" in vividmed(*command.split(), "-h").stdout
    assert "'build'" in vividmed("buld").stderr


def test_a_shell_completes_commands_and_data_sets(vividmed: Command) -> None:
    def completed(words: str) -> list[str]:
        count = str(len(words.split()) - 1)
        asked = {"_VIVIDMED_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
        return vividmed(**asked).stdout.split()

    assert completed("vividmed stat") == ["status"]
    assert completed("vividmed build sho") == ["showcase"]


def test_a_closed_pipe_leaves_no_trace(environment: dict[str, str]) -> None:
    command = f"{BIN / 'vividmed'} taxonomy | true"
    result = subprocess.run(
        ["/bin/sh", "-c", command],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    assert result.stderr == b""


def test_an_interrupt_while_modules_are_imported_leaves_no_trace() -> None:
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'flows.cli.build':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from vividmed.__main__ import main\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (130, b"")


def test_a_build_tells_of_images_that_are_a_separate_download(
    vividmed: Command, tmp_path: Path
) -> None:
    no_server = "http://127.0.0.1:9/api"  # so that this build ends at once
    result = vividmed("build", "openi", "--store", str(tmp_path), PREFECT_API_URL=no_server)
    assert result.returncode == 1
    assert "openi: its images are a separate download" in result.stderr
    assert "NLMCXR_png" in result.stderr


def test_doctor_finds_this_machine_ready(vividmed: Command) -> None:
    result = vividmed("doctor")
    assert result.returncode == 0, result.stdout
    assert "fault" not in result.stdout
    assert result.stdout.count("ok") >= 6


def test_doctor_tells_whether_a_language_model_can_be_used(
    vividmed: Command, tmp_path: Path
) -> None:
    def checked(model: str, url: str) -> tuple[int, str]:
        place = {"model": model, "base_urls": [url]}
        steps = {"cleaner": "llm", "extractor": "llm", "filter": "llm"}
        config = tmp_path / "llm.yaml"
        config.write_text(yaml.safe_dump(steps | {"llm": {"server": place}}))
        result = vividmed("doctor", "--config", str(config), "--store", str(tmp_path / "store"))
        return result.returncode, " ".join(result.stdout.replace("│", " ").split())

    with PlainServer() as server:
        code, said = checked("model", server.url)
        assert code == 0
        assert "model is up at http://127.0.0.1" in said
        code, said = checked("modell", server.url)
        assert code == 1
        assert "set `model` to a name that it lists (perhaps model)" in said


def test_doctor_names_a_store_that_cannot_be_written(vividmed: Command) -> None:
    result = vividmed("doctor", "--store", "/proc/store")
    assert result.returncode == 1
    assert "cannot write" in result.stdout


def test_the_gold_sentences_are_scored_without_a_store(vividmed: Command) -> None:
    result = vividmed("audit", "sentences", "--json")
    assert result.returncode == 0, result.stderr
    scores = json.loads(result.stdout)
    assert set(scores["halves"]) == {"dev", "held-out"}
    assert len(scores["dev_by_kind"]) >= 25
    assert 0.5 < scores["halves"]["held-out"]["targets"]["f1"] <= 1

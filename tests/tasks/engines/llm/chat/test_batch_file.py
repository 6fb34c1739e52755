"""vLLM's batch files: written, answered by lines as vLLM writes them, and read back."""

import json
import tracemalloc

import pytest

from tasks.engines.llm.chat.batch_file import BatchAnswers, custom_id, write_requests
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, Message
from tasks.engines.llm.chat.settings import Sampling
from tasks.engines.metering import metered
from tasks.engines.protocols import Failure
from tests.tasks.engines.llm.misbehaving_server import completion
from tests.tasks.engines.llm.scripted import texts_of

SAMPLING = Sampling(model="llama", revision="abc")
SCHEMA = {"type": "object"}


def request(n, schema=SCHEMA):
    return ChatRequest((Message("user", f"Report {n}: “no effusion”"),), 64, schema)


def answered(n, text="[]"):
    body = completion(text)
    response = {"status_code": 200, "request_id": f"vllm-batch-{n}", "body": body}
    key = custom_id(request(n), SAMPLING)
    return {"id": f"vllm-{n}", "custom_id": key, "response": response, "error": None}


def failed(n, message, status=400, kind="BadRequestError"):
    error = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    response = {"status_code": status, "request_id": f"vllm-batch-{n}", "body": None}
    return answered(n) | {"response": response, "error": error}


def lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_each_line_is_what_run_batch_takes(tmp_path):
    path = tmp_path / "requests.jsonl"
    written = write_requests(path, [request(1), request(2), request(1)], SAMPLING)
    assert written == 2
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {
        "custom_id": custom_id(request(1), SAMPLING),
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "llama",
            "messages": [{"role": "user", "content": "Report 1: “no effusion”"}],
            "max_tokens": 64,
            "temperature": 0.0,
            "top_p": 1.0,
            "seed": 0,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
            },
        },
    }
    assert second["custom_id"] == custom_id(request(2), SAMPLING) != first["custom_id"]


def test_an_id_changes_with_whatever_decides_the_answer():
    base = custom_id(request(1), SAMPLING)
    assert base == custom_id(request(1), Sampling(model="llama", revision="abc"))
    assert base != custom_id(request(1, schema=None), SAMPLING)
    for change in ({"seed": 1}, {"temperature": 0.5}, {"model": "other"}, {"revision": "b"}):
        assert base != custom_id(request(1), SAMPLING.model_copy(update=change))


def test_answers_come_back_whatever_their_order(tmp_path):
    path = lines(tmp_path / "out.jsonl", answered(2, "two"), answered(3, "three"), answered(1))
    with metered() as used:
        found = BatchAnswers([path], SAMPLING).complete([request(1), request(2), request(3)])
    assert texts_of(found) == ["[]", "two", "three"]
    assert (used["requests"], used["tokens_in"], used["tokens_out"]) == (3, 21, 9)


def test_every_request_is_accounted_for(tmp_path):
    unsupported = answered(5) | {"response": None, "error": "Unsupported url"}
    path = lines(
        tmp_path / "out.jsonl",
        answered(1),
        failed(2, "This model's maximum context length is 8192 tokens. However, …"),
        failed(3, "The server had an error", 500, "InternalServerError"),
        answered(4) | {"response": {"status_code": 200, "body": {"choices": []}}},
        unsupported,
    )
    found = BatchAnswers([path], SAMPLING).complete([request(n) for n in range(1, 7)])
    assert isinstance(found[0], Completion)
    reasons = [answer.reason for answer in found[1:] if isinstance(answer, Failure)]
    assert reasons == [
        "prompt_too_long",
        "server_error",
        "bad_answer",
        "server_error",
        "not_in_batch",
    ]


def test_a_killed_run_is_taken_up_where_it_ended(tmp_path):
    whole = json.dumps(answered(1)) + "\n" + json.dumps(failed(2, "x", 500)) + "\n"
    torn = json.dumps(answered(3))[:90]
    (tmp_path / "out-1.jsonl").write_text(whole + torn)
    first = BatchAnswers([tmp_path / "out-1.jsonl"], SAMPLING)
    assert first.usage["damaged_lines"] == 1
    batch = [request(n) for n in range(1, 5)]
    reasons = [getattr(answer, "reason", "") for answer in first.complete(batch)]
    assert reasons == ["", "server_error", "not_in_batch", "not_in_batch"]

    lines(tmp_path / "out-2.jsonl", answered(2, "two"), answered(3), answered(4))
    both = BatchAnswers([tmp_path / "out-1.jsonl", tmp_path / "out-2.jsonl"], SAMPLING)
    assert all(isinstance(answer, Completion) for answer in both.complete(batch))
    assert texts_of(both.complete(batch))[1] == "two"


def test_the_first_of_two_completions_stays(tmp_path):
    path = lines(
        tmp_path / "out.jsonl", answered(1, "first"), answered(1, "second"), failed(1, "x")
    )
    answers = BatchAnswers([path], SAMPLING)
    assert texts_of(answers.complete([request(1)])) == ["first"]


def test_what_all_answers_took_is_counted_those_that_were_in_vain_too(tmp_path):
    first = lines(tmp_path / "out-1.jsonl", answered(1), answered(1), failed(2, "x", 500))
    second = lines(tmp_path / "out-2.jsonl", answered(2))
    used = BatchAnswers([first, second], SAMPLING).usage
    assert used == {"requests": 4, "tokens_in": 21, "tokens_out": 9}


@pytest.mark.parametrize("line", ["{", "[]", "7", '{"custom_id": 3}', '{"response": {}}', '"a"'])
def test_lines_that_are_no_answer_are_counted(line, tmp_path):
    (tmp_path / "out.jsonl").write_text(f"\n{line}\n\n{json.dumps(answered(1))}\n")
    answers = BatchAnswers([tmp_path / "out.jsonl"], SAMPLING)
    assert answers.usage["damaged_lines"] == answers.usage["requests"] == 1
    assert isinstance(answers.complete([request(1)])[0], Completion)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(EngineError, match=r"none\.jsonl cannot be read"):
        BatchAnswers([tmp_path / "none.jsonl"], SAMPLING)


def test_the_folder_of_a_batch_file_is_made(tmp_path):
    path = tmp_path / "batch" / "openi" / "requests.jsonl"
    assert write_requests(path, [request(1)], SAMPLING) == len(path.read_text().splitlines()) == 1


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match=r"requests\.jsonl cannot be written"):
        write_requests(tmp_path / "file" / "requests.jsonl", [request(1)], SAMPLING)


def test_memory_does_not_hold_the_batch(tmp_path):
    long_text = "word " * 4000
    count = 1500

    def requests():
        for n in range(count):
            yield ChatRequest((Message("user", f"{n} {long_text}"),), 64, SCHEMA)

    tracemalloc.start()
    write_requests(tmp_path / "in.jsonl", requests(), SAMPLING)
    with (tmp_path / "out.jsonl").open("w") as file:
        for n in range(count):
            file.write(json.dumps(answered(n, long_text)) + "\n")
    answers = BatchAnswers([tmp_path / "out.jsonl"], SAMPLING)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "in.jsonl").stat().st_size > 30e6
    assert peak < 3e6
    assert answers.usage["requests"] == count

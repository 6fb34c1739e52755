"""vLLM's interface, read out of the source in its released wheel, which is never installed.

pip tells where the wheel is; only the members needed are fetched from it, by HTTP range requests
(the whole wheel is hundreds of megabytes).
"""

import ast
import io
import json
import subprocess
import sys
import zipfile

import httpx

MEMBERS = {
    "LLM": "vllm/entrypoints/llm.py",
    "EngineArgs": "vllm/engine/arg_utils.py",
    "SamplingParams": "vllm/sampling_params.py",
    "StructuredOutputsParams": "vllm/sampling_params.py",
    "RequestOutput": "vllm/outputs.py",
    "CompletionOutput": "vllm/outputs.py",
    "RequestStateStats": "vllm/v1/metrics/stats.py",
    "ModelConfig": "vllm/config/model.py",
    "VLLMValidationError": "vllm/exceptions.py",
}


class SourceError(Exception):
    """The wheel cannot be had here; the message says why."""


def fetch_sources(version):
    """The source files of MEMBERS in vLLM's wheel, by path."""
    try:
        with httpx.Client(timeout=30, follow_redirects=True) as client:
            wheel = zipfile.ZipFile(io.BufferedReader(_Remote(client, _url(version)), 1 << 20))
            return {path: wheel.read(path).decode() for path in sorted(set(MEMBERS.values()))}
    except (httpx.HTTPError, zipfile.BadZipFile, KeyError) as error:
        raise SourceError(f"{type(error).__name__}: {error}") from error


def interface(sources):
    """Names that callers may use: parameters of constructors and `chat`, fields, methods."""
    classes = {
        name: _class(ast.parse(sources[path]), name)
        for name, path in MEMBERS.items()
        if name != "VLLMValidationError"
    }
    return {
        "LLM": _parameters(classes["LLM"], "__init__"),
        "LLM.chat": _parameters(classes["LLM"], "chat"),
        "LLM methods": [n.name for n in classes["LLM"].body if isinstance(n, ast.FunctionDef)],
        "RequestOutput": _parameters(classes["RequestOutput"], "__init__"),
    } | {
        name: [ast.unparse(n.target) for n in found.body if isinstance(n, ast.AnnAssign)]
        for name, found in classes.items()
        if name not in {"LLM", "RequestOutput"}
    }


def _class(tree, name):
    return next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)


def _parameters(found, method):
    function = next(n for n in found.body if getattr(n, "name", None) == method)
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [argument.arg for argument in arguments if argument.arg != "self"]


def _url(version):
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps"]
    command += ["--ignore-installed", "--only-binary", "vllm", "--report", "-", f"vllm=={version}"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return json.loads(run.stdout)["install"][0]["download_info"]["url"]
    except (subprocess.TimeoutExpired, ValueError, LookupError) as error:
        raise SourceError(f"the package index has no vllm {version} for this machine") from error


class _Remote(io.RawIOBase):
    """A file behind a URL, read in ranges."""

    def __init__(self, client, url):
        self._client, self._url, self._at = client, url, 0
        answer = client.head(url).raise_for_status()
        self._size = int(answer.headers["content-length"])

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self._at

    def seek(self, offset, whence=io.SEEK_SET):
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer):
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        part = self._client.get(self._url, headers={"Range": f"bytes={self._at}-{end - 1}"})
        if part.status_code != httpx.codes.PARTIAL_CONTENT:
            raise SourceError("the package index does not serve parts of files")
        buffer[: len(part.content)] = part.content
        self._at += len(part.content)
        return len(part.content)

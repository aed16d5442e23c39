"""Pipelines by name: the hub's own client against a small server on this machine."""

import functools
import hashlib
import http.server
import json
import shutil
import socket
import threading
import time

import pytest
import toy as toy_module

from dream_jax import pipeline
from dream_jax.errors import UserError
from dream_jax.generator import hub
from dream_jax.generator.folders import check_generator, generator_folder

NAME, COMMIT = "someone/something", "c0ffee" + 34 * "0"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does: a model's files, its branches and tags, and each file."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        folder, asked = self.server.folder, self.server.asked
        path = self.path.split("?")[0]
        revisions = (COMMIT, "v1", "flax")
        if path == f"/api/models/{NAME}/refs":
            refs = {"branches": ["main", "flax"], "tags": ["v1"]}
            refs = {
                kind: [{"name": n, "ref": n, "targetCommit": COMMIT} for n in names]
                for kind, names in refs.items()
            }
            self.answer(200, json.dumps(refs | {"converts": []}).encode())
        elif path in [f"/api/models/{NAME}/revision/{revision}" for revision in revisions]:
            names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
            siblings = [{"rfilename": name} for name in names]
            self.answer(200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/api/models/{NAME}/"):
            self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
        elif path.startswith("/api/models/"):
            self.answer(404, b"{}", X_Error_Code="RepoNotFound")
        else:
            name = path.removeprefix(f"/{NAME}/resolve/{COMMIT}/")
            body = (folder / name).read_bytes()
            tag = hashlib.sha256(body).hexdigest()
            asked.append(name)
            self.answer(200, body, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def repository(toy_folder, tmp_path):
    """The toy pipeline's files among others that must not be downloaded."""
    folder = shutil.copytree(toy_folder, tmp_path / "repository")
    torch = "diffusion_pytorch_model"
    for extra in (f"unet/{torch}.bin", "sd.ckpt", f"vae/{torch}.fp16.safetensors"):
        (folder / extra).write_bytes(b"never downloaded")
    return folder


@pytest.fixture
def at(monkeypatch, tmp_path):
    """`at(endpoint)`: where the client finds the hub, with an empty cache."""
    import huggingface_hub
    from huggingface_hub import constants

    api = huggingface_hub.HfApi

    def use(endpoint: str) -> None:
        monkeypatch.setattr(huggingface_hub, "HfApi", functools.partial(api, endpoint=endpoint))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    return use


@pytest.fixture
def server(repository, at):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.folder, server.asked = repository, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at(f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


def refusal(call, *args) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    message = str(caught.value)
    assert message.startswith("generator.") and "\n" not in message
    return message


@pytest.mark.parametrize("revision", [COMMIT, "v1"])
def test_download_of_what_is_needed_and_no_more(server, repository, revision):
    assert check_generator(NAME, revision) is None  # nothing downloaded
    assert not server.asked
    folder = generator_folder(NAME, revision)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    expected = {
        path.relative_to(repository).as_posix()
        for path in repository.rglob("*")
        if path.suffix in (".json", ".txt", ".msgpack")
    }
    assert files == expected and "unet/diffusion_flax_model.msgpack" in files

    server.asked.clear()
    assert check_generator(NAME, revision) == generator_folder(NAME, revision) == folder
    assert not server.asked  # from the cache, without the hub


def test_interrupted_download_goes_on(server):
    folder = generator_folder(NAME, COMMIT)
    (folder / "vae" / "diffusion_flax_model.msgpack").unlink()
    assert check_generator(NAME, COMMIT) is None
    assert generator_folder(NAME, COMMIT) == folder
    assert (folder / "vae" / "diffusion_flax_model.msgpack").exists()


def test_weights_in_several_files_are_all_downloaded(server, repository):
    weights = repository / "unet" / "diffusion_flax_model.msgpack"
    shard = weights.with_name("diffusion_flax_model-00001-of-00001.msgpack")
    weights.rename(shard)
    index = weights.with_name("diffusion_flax_model.msgpack.index.json")
    index.write_text(json.dumps({"weight_map": {"conv_in/bias": shard.name}}))
    assert (generator_folder(NAME, COMMIT) / "unet" / shard.name).exists()


def test_weights_must_be_pinned(server):
    for revision in ("", "main"):
        message = refusal(check_generator, NAME, revision)
        assert message.startswith("generator.revision is") and "commit or a tag" in message
    message = refusal(generator_folder, NAME, "flax")
    assert "is a branch, which moves" in message and COMMIT in message
    assert not server.asked


def test_what_the_hub_has_not(server, repository):
    assert "no such revision" in refusal(generator_folder, NAME, "v9")
    assert "no such model" in refusal(generator_folder, "someone/else", "v1")
    weights = repository / "vae" / "diffusion_flax_model.msgpack"
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    (repository / "vae" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    message = refusal(generator_folder, NAME, "v1")
    assert "part vae has no weights" in message and "diffusion_pytorch_model.bin" in message
    assert not server.asked


def test_hub_that_cannot_be_reached(at):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        at(f"http://127.0.0.1:{unused.getsockname()[1]}")
        message = refusal(generator_folder, NAME, "v1")
    assert "cannot be reached" in message
    assert f"hf download {NAME} --revision v1 --local-dir FOLDER" in message


def test_hub_that_does_not_answer(at, monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.perf_counter()
        assert "no answer within 1 seconds" in refusal(generator_folder, NAME, "v1")
        assert time.perf_counter() - begin < 4


def test_run_ends_before_any_work(at, tmp_path):
    config = toy_module.get_config()
    config.generator.path, config.generator.revision = NAME, "v1"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        at(f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert "cannot be reached" in refusal(pipeline.run, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

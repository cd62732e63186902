"""Sharded checkpoints: every rank writes the fragments it owns, the manifest comes last, a rename makes it exist.

    checkpoints/step-00000800/
      rank-00000-of-00002.safetensors   keys "KIND|PARAMETER|OFFSET", 1-D float32: KIND is param or a moment's name
      manifest.json                     step, shapes, the trainer's state, each file's bytes and sha256
    checkpoints/latest                  the newest directory's name

A fragment says where it belongs, so any world size and ZeRO stage can read what any other wrote. Nothing is a pickle.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.json_file import read_object, write_object
from pipeline.optim.optimizer import MOMENTS, PretrainingOptimizer
from pipeline.optim.partitions import Fragment

FORMAT = "sibert-checkpoint-1"
PARAM = "param"


def step_directory(run_dir: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates lives."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


def writing_directory(run_dir: Path, step: int) -> Path:
    """Where it is while it is being written; never read."""
    return run_dir / "checkpoints" / f".writing-step-{step:08d}"


def begin(run_dir: Path, step: int) -> None:
    """Rank 0, before any rank writes: an empty temporary directory (what an earlier, killed save left is replaced)."""
    temporary = writing_directory(run_dir, step)
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)


def abandon(run_dir: Path, step: int) -> None:
    """Rank 0, after a save that failed: give the space of the half-written files back."""
    shutil.rmtree(writing_directory(run_dir, step), ignore_errors=True)


def write_rank(run_dir: Path, step: int, rank: int, world_size: int, optimizer: PretrainingOptimizer) -> dict[str, Any] | None:
    """This rank's fragments and their optimiser state, on disk and synced. Returns {file, bytes, sha256}; None if this
    rank owns nothing that rank 0 does not have too (stage 0)."""
    assert optimizer.partitions is not None
    if optimizer.partitions.replicated and rank > 0:
        return None
    tensors = {}
    for fragment in optimizer.partitions.fragments:
        tensors[_key(PARAM, fragment)] = fragment.master
        if optimizer.all_groups[fragment.group]["rule"] != "sgd":
            for kind, view in zip(MOMENTS, optimizer.moment_views(fragment), strict=True):
                tensors[_key(kind, fragment)] = view
    path = writing_directory(run_dir, step) / f"rank-{rank:05d}-of-{world_size:05d}.safetensors"
    try:
        save_file({key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}, path)
    except SafetensorError as error:  # its name for a full disk
        raise OSError(f"{path}: {error}") from error
    _sync(path)
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}


def commit(run_dir: Path, step: int, files: list[dict[str, Any]], state: Mapping[str, Any]) -> Path:
    """Rank 0, after every rank has written: manifest, rename, latest. Returns the checkpoint's directory."""
    temporary, final = writing_directory(run_dir, step), step_directory(run_dir, step)
    manifest = {"format": FORMAT, "step": step, "files": files, "state": dict(state)}
    write_object(temporary / "manifest.json", manifest)
    _sync(temporary)
    if final.exists():  # this step was saved before, by a checkpoint that the resume found damaged
        shutil.rmtree(final)
    temporary.rename(final)
    pointer = final.parent / ".latest.writing"
    pointer.write_text(final.name + "\n", encoding="utf-8")
    _sync(pointer)
    pointer.rename(final.parent / "latest")
    _sync(final.parent)
    return final


@dataclass(frozen=True)
class Piece:
    """One stored fragment."""

    path: Path
    key: str
    offset: int
    numel: int


class Checkpoint:
    """A checkpoint on disk, opened and verified: sizes and sha256 of every file before any tensor is read.

    Raises ValueError naming the file if one is missing, cut or altered.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        manifest_path = directory / "manifest.json"
        if not manifest_path.is_file():
            raise ValueError(f"{directory}: no manifest.json: not a finished checkpoint")
        manifest = read_object(manifest_path, required=("format", "step", "state", "files"))
        if manifest.get("format") != FORMAT:
            raise ValueError(f"{directory}: format {manifest.get('format')!r}, expected {FORMAT!r}")
        self.step: int = manifest["step"]
        self.state: dict[str, Any] = manifest["state"]
        self._pieces: dict[tuple[str, str], list[Piece]] = {}
        for info in manifest["files"]:
            self._verify(info)
            self._index(directory / info["file"])

    def _verify(self, info: dict[str, Any]) -> None:
        path = self.directory / info["file"]
        if not path.is_file() or path.stat().st_size != info["bytes"]:
            size = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
            raise ValueError(f"{path}: {size}, expected {info['bytes']} bytes: the checkpoint is damaged, use an older one")
        if _sha256(path) != info["sha256"]:
            raise ValueError(f"{path}: sha256 differs from the manifest's: the checkpoint is damaged, use an older one")

    def _index(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a dictionary)
                kind, name, offset = key.split("|")
                piece = Piece(path, key, int(offset), file.get_slice(key).get_shape()[0])
                self._pieces.setdefault((kind, name), []).append(piece)

    def read(self, kind: str, name: str, offset: int, numel: int) -> Tensor:
        """Elements [offset, offset + numel) of a flattened tensor, only those bytes read; ValueError if not all are there."""
        out, found = torch.empty(numel), 0
        for piece in self._pieces.get((kind, name), []):
            low, high = max(offset, piece.offset), min(offset + numel, piece.offset + piece.numel)
            if low < high:
                with safe_open(piece.path, framework="pt") as file:
                    part = file.get_slice(piece.key)[low - piece.offset : high - piece.offset]
                out[low - offset : high - offset] = part
                found += high - low
        if found != numel:
            raise ValueError(f"{self.directory}: {kind} of {name} has {found} of elements {offset}..{offset + numel}")
        return out

    @torch.no_grad()
    def load_parameters(self, model: nn.Module) -> None:
        """Every parameter of the model, before it is handed to an engine."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.read(PARAM, name, 0, parameter.numel()).view_as(parameter))

    @torch.no_grad()
    def load_fragments(self, optimizer: PretrainingOptimizer) -> None:
        """This rank's parts of the fp32 masters, which the engine may have made from bf16 parameters, and of the optimiser's
        moments, after the engine has partitioned them."""
        assert optimizer.partitions is not None
        for fragment in optimizer.partitions.fragments:
            views = {PARAM: fragment.master}
            if optimizer.all_groups[fragment.group]["rule"] != "sgd":
                views |= dict(zip(MOMENTS, optimizer.moment_views(fragment), strict=True))
            for kind, view in views.items():
                view.copy_(self.read(kind, fragment.name, fragment.offset, fragment.numel))


def newest(run_dir: Path, complain: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; each one that is not is complained of. None if there is no checkpoint at all;
    ValueError if there are some and none is whole (starting over in silence would hide the loss)."""
    directories = sorted((run_dir / "checkpoints").glob("step-*"), reverse=True)
    for directory in directories:
        try:
            return Checkpoint(directory)
        except (ValueError, OSError) as error:
            complain(f"checkpoint {directory.name} is not usable: {error}")
    if directories:
        raise ValueError(
            f"{run_dir}/checkpoints: {len(directories)} checkpoints and none is whole; use another --run to start over"
        )
    return None


def _key(kind: str, fragment: Fragment) -> str:
    return f"{kind}|{fragment.name}|{fragment.offset}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

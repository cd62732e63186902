"""A checkpoint on disk: opened, verified, and read in the parts that a rank needs, whatever wrote it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from pipeline.checkpoint.layout import MANIFEST, PROBE, fragment_key, read_manifest, shard_name, step_directory
from pipeline.checkpoint.snapshot import PARAM, RNG, WINDOW, fragment_tensors
from pipeline.optim.optimizer import PretrainingOptimizer
from preprocessing.base.files import file_sha256

BYTES_PER_ELEMENT = 4


class Checkpoint:
    """Opening reads the manifest alone: ValueError naming the file if it is not what was written, or if a file of it is
    missing, has another size, or is not of this checkpoint. `verify` reads every byte; do so before any tensor is loaded.

    `bytes_read` counts what was read of parameters and moments.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest = read_manifest(directory)
        self.step: int = self.manifest["step"]
        self.world_size: int = self.manifest["world_size"]
        if directory.name != step_directory(Path(), self.step).name:
            raise ValueError(f"{directory}: it holds the checkpoint of step {self.step}: renamed, or a copy")
        self.bytes_read = 0
        self._files: dict[str, dict[str, Any]] = {info["file"]: info for info in self.manifest["files"]}
        self._opened: dict[str, Any] = {}
        self._pieces: dict[tuple[str, str], list[tuple[int, int, str]]] = {}  # (kind, parameter): [(offset, elements, file)]
        for info in self.manifest["files"]:
            for key, elements in info["tensors"].items():
                self._index(info["file"], key, elements)
        self._check_files()

    @property
    def size_bytes(self) -> int:
        """Of all its files but the manifest."""
        return sum(info["bytes"] for info in self._files.values())

    def _index(self, file: str, key: str, elements: int) -> None:
        kind, *place = key.split("|")
        if len(place) == 2:
            self._pieces.setdefault((kind, place[0]), []).append((int(place[1]), elements, file))

    def _check_files(self) -> None:
        expected = {shard_name(rank, self.world_size) for rank in range(self.world_size)} | {PROBE}
        if set(self._files) != expected:
            raise ValueError(f"{self.directory / MANIFEST}: its files are not those of {self.world_size} ranks and a probe")
        for entry in self.directory.iterdir():
            if entry.suffix == ".safetensors" and entry.name not in expected:
                raise ValueError(f"{entry}: not a file of this checkpoint, which was written by {self.world_size} ranks")
        for name, info in self._files.items():
            path = self.directory / name
            size = path.stat().st_size if path.is_file() else None
            if size != info["bytes"]:
                found = "no such file" if size is None else f"{size} bytes"
                raise ValueError(f"{path}: {found}, expected {info['bytes']} bytes")

    def verify(self, part: int = 0, parts: int = 1) -> None:
        """Hash every parts-th file from the part-th on; ValueError naming the first whose sha256 is not the manifest's."""
        for name in sorted(self._files)[part::parts]:
            if file_sha256(self.directory / name) != self._files[name]["sha256"]:
                raise ValueError(f"{self.directory / name}: its sha256 is not the manifest's: altered after it was written")

    def check_covers(self, shapes: Mapping[str, list[int]]) -> None:
        """ValueError naming the first parameter whose shape differs, or whose elements are not each stored once."""
        stored: dict[str, list[int]] = self.manifest["parameters"]
        for name in sorted(stored.keys() | shapes.keys()):
            if stored.get(name) != shapes.get(name):
                there, here = (shapes_of.get(name, "missing") for shapes_of in (stored, shapes))
                raise ValueError(f"{self.directory}: parameter {name} is {there} there, {here} here")
        for name, shape in shapes.items():
            end = 0
            for offset, elements, _ in sorted(self._pieces.get((PARAM, name), [])):
                if offset != end:
                    break
                end += elements
            if end != math.prod(shape):
                raise ValueError(
                    f"{self.directory}: {name} has {end} of {math.prod(shape)} elements without a gap or an overlap"
                )

    def read(self, kind: str, name: str, offset: int, numel: int) -> Tensor:
        """Elements [offset, offset + numel) of a flattened tensor, only those bytes read; ValueError if not all are there."""
        out, found = torch.empty(numel), 0
        for start, elements, file in self._pieces.get((kind, name), []):
            low, high = max(offset, start), min(offset + numel, start + elements)
            if low < high:
                out[low - offset : high - offset] = self._slice(
                    file, fragment_key(kind, name, start), low - start, high - start
                )
                found += high - low
        if found != numel:
            raise ValueError(f"{self.directory}: {kind} of {name} has {found} of elements {offset}..{offset + numel}")
        return out

    def _slice(self, file: str, key: str, low: int, high: int) -> Tensor:
        self.bytes_read += BYTES_PER_ELEMENT * (high - low)
        part: Tensor = self._open(file).get_slice(key)[low:high]
        return part

    def _open(self, file: str) -> Any:
        """A memory map, made once: opening parses the names of all tensors in the file."""
        if file not in self._opened:
            self._opened[file] = safe_open(self.directory / file, framework="pt")
        return self._opened[file]

    def whole(self, kind: str, name: str) -> Tensor:
        """A whole parameter, or moment of it, in its shape."""
        shape = self.manifest["parameters"][name]
        return self.read(kind, name, 0, math.prod(shape)).view(shape)

    @torch.no_grad()
    def load_parameters(self, model: nn.Module) -> None:
        """Every parameter of the model, before it is handed to an engine (or used without one)."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.whole(PARAM, name))

    @torch.no_grad()
    def load_fragments(self, optimizer: PretrainingOptimizer) -> None:
        """This rank's parts of the fp32 masters, which the engine may have made from bf16 parameters, and of the optimiser's
        moments, after the engine has partitioned them."""
        assert optimizer.partitions is not None
        for fragment in optimizer.partitions.fragments:
            for kind, numbers in fragment_tensors(optimizer, fragment).items():
                numbers.store(self.read(kind, fragment.name, fragment.offset, fragment.numel))

    def probe(self) -> dict[str, Tensor]:
        """The stored batch; its loss is `manifest["probe"]`."""
        return self._tensors(PROBE, "")

    def rng_states(self, rank: int, world_size: int) -> dict[str, Tensor]:
        """A rank's generators; nothing where the ranks are not those that wrote."""
        return self._tensors(shard_name(rank, world_size), RNG) if world_size == self.world_size else {}

    def window(self, rank: int, world_size: int) -> Tensor:
        """The rank's sums since the last logged step: its own where the ranks are those that wrote; else rank 0 takes all."""
        if world_size == self.world_size:
            return self._tensors(shard_name(rank, world_size), WINDOW)[WINDOW]
        parts = [self._tensors(shard_name(r, self.world_size), WINDOW)[WINDOW] for r in range(self.world_size)]
        return torch.stack(parts).sum(dim=0) * (rank == 0)

    def _tensors(self, file: str, prefix: str) -> dict[str, Tensor]:
        opened = self._open(file)
        return {key: opened.get_tensor(key) for key in opened.keys() if key.startswith(prefix)}  # noqa: SIM118

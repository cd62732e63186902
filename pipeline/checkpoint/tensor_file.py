"""Tensors in a safetensors file: written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from preprocessing.base.files import replacing


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write name -> tensor, and a header of strings. OSError if it cannot be written."""
    try:
        with replacing(path) as temporary:
            save_file(dict(tensors), temporary, dict(metadata) if metadata else None)
    except SafetensorError as error:  # its name for a full disk
        raise OSError(f"{path}: {error}") from error

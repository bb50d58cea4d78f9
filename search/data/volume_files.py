"""Read volumes from NIfTI, MetaImage and NRRD files, and write masks as NIfTI.

Training and deployment share this implementation, see `geometry.py`: it imports nothing from voxnas. MetaImage and
NRRD files need SimpleITK, which is imported only for them.
"""

from __future__ import annotations

import errno
import gzip
import json
import logging
import math
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.imageglobals import logger as nibabel_log
from numpy.typing import NDArray

NIFTI = (".nii.gz", ".nii")
ITK = (".mha", ".mhd", ".nrrd", ".nhdr")
SUFFIXES = (*NIFTI, *ITK)
AFFINE_TOLERANCE = 0.1  # as a fraction of the smallest voxel size, at every corner of the volume
# Header fields that define voxel positions; a mask takes no others (text, intent, display range) from its volume
POSITION_FIELDS = (
    "qform_code sform_code quatern_b quatern_c quatern_d qoffset_x qoffset_y qoffset_z srow_x srow_y srow_z xyzt_units"
)
VOXEL_SIZES_MM = (1e-6, 1e6)  # range of valid voxel sizes
MAX_OFFSET_MM = 1e9
DEFLATE_LIMIT = 1_100  # no gzip file expands by a larger factor
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
nibabel_log.setLevel(logging.CRITICAL)  # remarks on headers without the file; faults are raised


def suffix_of(path: str | os.PathLike[str]) -> str:
    """Return a file's volume suffix as written, or an empty string."""
    name = Path(path).name
    found = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name[len(name) - len(found) :]


def stem_of(path: str | os.PathLike[str]) -> str:
    """Return a file's name without folder and volume suffix."""
    return Path(path).name.removesuffix(suffix_of(path))


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume as stored on disk: float32 (C, X, Y, Z), affine from voxel to RAS mm, NIfTI header, file name."""

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    header: Any
    name: str


def read_volume(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, tolerance: float = AFFINE_TOLERANCE
) -> Volume:
    """Read one file with all channels, or several files with one channel each.

    A NIfTI file is (X, Y, Z), (X, Y, Z, C), or a vector image (X, Y, Z, 1, C), as ITK writes it. `tolerance` is
    that of `grid_difference`. Raises ValueError, naming the file, if a file is missing, unreadable, empty, of another
    number of axes, not finite, without a usable affine, or not on the grid of the first file.
    """
    files = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]
    parts: list[Volume] = []
    for file in files:
        values, affine, header = read_values(file)
        data = _channels_first(values, file)
        if len(files) > 1 and len(data) != 1:
            raise ValueError(
                f"{file}: contains {len(data)} channels, but must contain one, as each channel has its own file"
            )
        parts.append(volume_of(data, affine, header, file))
        first = parts[0]
        difference = grid_difference(first.data.shape[1:], first.affine, data.shape[1:], affine, tolerance=tolerance)
        if difference:
            raise ValueError(f"{file}: {difference}, unlike {files[0].name}")
    if not files:
        raise ValueError("no files given")
    if len(parts) == 1:
        return parts[0]
    return Volume(np.concatenate([part.data for part in parts]), parts[0].affine, parts[0].header, parts[0].name)


def volume_of(data: NDArray[Any], affine: NDArray[np.float64], header: Any, file: Path) -> Volume:
    """Return data (C, X, Y, Z) as a Volume. Raises ValueError if values are not finite."""
    with np.errstate(over="ignore"):
        data = np.ascontiguousarray(data, dtype=np.float32)
    if broken := int(np.count_nonzero(~np.isfinite(data))):
        raise ValueError(f"{file}: contains NaN or infinite values ({broken} of {data.size} voxels)")
    return Volume(data, affine, header, str(file))


def read_values(file: Path) -> tuple[NDArray[Any], NDArray[np.float64], Any]:
    """Return a file's values as stored, (X, Y, Z) with further axes as in the file, its affine and a NIfTI header.

    Values are scaled as the header says; the affine maps voxels to RAS mm. Raises ValueError with the file and the
    problem.
    """
    if suffix_of(file).lower() in ITK:
        return _read_itk(file)
    image, values = load_nifti(file)
    return values, np.asarray(image.affine, dtype=np.float64), image.header


def may(path: Path, mode: int) -> bool:
    """Return whether the effective user may read, write or enter a path (os.R_OK, os.W_OK, os.X_OK)."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def why_no_file(path: Path) -> str:
    """Return why a path leads to no file that can be read ("no such file", "is a folder, ..."); empty if it does.

    A pipe is none: opening it would wait for ever.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "is a link that leads to no file" if path.is_symlink() else "no such file"
    except (OSError, ValueError) as error:  # too long, a loop of links, a NUL
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(mode):
        return "is a folder, not a file"
    if not stat.S_ISREG(mode):
        return "is a pipe, a socket or a device, not a file"
    return "" if may(path, os.R_OK) else f"cannot be read ({os.strerror(errno.EACCES)})"


def load_nifti(file: Path) -> tuple[Any, NDArray[Any]]:
    """Return a NIfTI image and its scaled values; raises ValueError with the file and the problem."""
    if why := why_no_file(file):
        raise ValueError(f"{file}: {why}")
    try:
        image: Any = nibabel.load(file)
        _refuse_impossible_size(image, file)
        values = _checked_values(image, file)
    except Exception as error:  # nibabel, gzip and zlib have no common error class for damaged files
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: cannot be read ({type(error).__name__}: {reason})") from error
    if not isinstance(image, nibabel.Nifti1Pair):
        raise ValueError(f"{file}: is not a NIfTI file but {type(image).__name__}")
    _refuse_values(values, file)
    _refuse_missing_voxel_size(image, file)
    refuse_affine(np.asarray(image.affine, dtype=np.float64), file)
    return image, values


def _refuse_missing_voxel_size(image: Any, file: Path) -> None:
    """Raise ValueError if the affine depends on pixdim and the file has 0 there, for which nibabel assumes 1 mm."""
    name = "header" if "header" in image.file_map else "image"
    with image.file_map[name].get_prepare_fileobj("rb") as opened:
        stated = type(image.header).from_fileobj(opened, check=False)["pixdim"][1:4]
    if int(image.header["sform_code"]) == 0 and not stated.all():
        raise ValueError(f"{file}: states no voxel sizes: pixdim is {stated.tolist()}, and there is no sform")


def _refuse_values(values: NDArray[Any], file: Path) -> None:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{file}: contains values of type {values.dtype}, which are neither intensities nor labels")
    if values.size == 0:
        raise ValueError(f"{file}: is empty, its shape is {values.shape}")


def _checked_values(image: Any, file: Path) -> NDArray[Any]:
    """Return an image's scaled values; a compressed file is read to its end, where its checksum is.

    nibabel stops at the last voxel, so that a changed byte would stay unnoticed.
    """
    if not (file.name.lower().endswith(".gz") and isinstance(image, nibabel.Nifti1Image)):
        return np.asarray(image.dataobj)
    with gzip.open(file) as stream:
        opened = type(image).from_file_map(type(image).make_file_map({"image": stream}))
        values = np.asarray(opened.dataobj)
        try:
            while stream.read(1 << 20):
                pass
        except gzip.BadGzipFile as error:
            if not str(error).startswith("Not a gzipped file"):  # bytes after the end, which do no harm
                raise
    return values


def _refuse_impossible_size(image: Any, file: Path) -> None:
    """Raise ValueError if a file is too small for the shape in its header, before memory is allocated for it."""
    claimed = math.prod(image.shape) * image.get_data_dtype().itemsize
    held = file.stat().st_size * (DEFLATE_LIMIT if file.name.lower().endswith(".gz") else 1)
    if isinstance(image, nibabel.Nifti1Image) and claimed > held:
        raise ValueError(f"the header states shape {image.shape}, but the file has only {file.stat().st_size:,} bytes")


def refuse_affine(affine: NDArray[np.float64], file: Path) -> None:
    """Raise ValueError if an affine is not finite or degenerate, or its voxel sizes are outside VOXEL_SIZES_MM."""
    low, high = VOXEL_SIZES_MM
    with np.errstate(all="ignore"):
        sizes = voxel_sizes(affine)
    if np.isfinite(sizes).all() and not np.isfinite(affine).all():
        raise ValueError(f"{file}: has an affine with NaN or infinite values: {affine.tolist()}")
    if not ((sizes >= low) & (sizes <= high)).all():
        shown = ", ".join(f"{size:.3g}" for size in sizes)
        raise ValueError(f"{file}: has voxels of {shown} mm, but a size must be between {low:g} and {high:g} mm")
    if not (abs(affine[:3, 3]) <= MAX_OFFSET_MM).all():
        raise ValueError(f"{file}: begins at {affine[:3, 3].tolist()} mm, which is no position")
    if not abs(np.linalg.det(affine)) > 1e-6 * sizes.prod():
        raise ValueError(f"{file}: has a degenerate affine: {affine.tolist()}")


def _channels_first(values: NDArray[Any], file: Path) -> NDArray[Any]:
    """Return the values of an image as (C, X, Y, Z)."""
    if values.ndim == 5 and values.shape[3] == 1:
        values = values[:, :, :, 0]
    if values.ndim not in (3, 4):
        raise ValueError(f"{file}: has shape {values.shape}, but a volume must have 3 axes (4 with channels)")
    return np.moveaxis(values[..., None] if values.ndim == 3 else values, 3, 0)


def _read_itk(file: Path) -> tuple[NDArray[Any], NDArray[np.float64], Any]:
    if why := why_no_file(file):
        raise ValueError(f"{file}: {why}")
    try:
        import SimpleITK
    except ModuleNotFoundError as error:
        raise ValueError(f"{file}: needs the package SimpleITK: pip install SimpleITK") from error
    try:
        image: Any = SimpleITK.ReadImage(str(file))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: cannot be read ({type(error).__name__}: {reason})") from error
    if image.GetDimension() != 3:
        raise ValueError(f"{file}: has {image.GetDimension()} axes, but a volume has 3")
    values = SimpleITK.GetArrayFromImage(image)  # (Z, Y, X) or (Z, Y, X, C)
    _refuse_values(values, file)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine = LPS_TO_RAS @ affine
    refuse_affine(affine, file)
    values = values.transpose(2, 1, 0, *range(3, values.ndim))
    return values, affine, nifti_header(values.shape[:3], affine)


def nifti_header(shape: Sequence[int], affine: NDArray[np.float64]) -> Any:
    """Return a NIfTI header in mm for a volume (X, Y, Z) that was not read from NIfTI."""
    header = nibabel.Nifti1Image(np.zeros(shape, dtype=np.uint8), affine).header
    header.set_xyzt_units("mm")
    return header


def grid_difference(
    shape: Sequence[int],
    affine: NDArray[Any],
    other_shape: Sequence[int],
    other_affine: NDArray[Any],
    *,
    tolerance: float = AFFINE_TOLERANCE,
) -> str:
    """Describe how another grid differs from the first ("has shape ..."), or return an empty string.

    Affines are equal if no corner moves by more than `tolerance` times the smallest voxel size.
    """
    if tuple(shape) != tuple(other_shape):
        return f"has shape {tuple(other_shape)} instead of {tuple(shape)}"
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in shape], [1], indexing="ij"), -1).reshape(-1, 4)
    moved_mm = float(np.linalg.norm(corners @ (other_affine - affine).T, axis=1).max())
    allowed_mm = tolerance * float(voxel_sizes(affine).min())
    if moved_mm > allowed_mm:
        return f"has a different affine: corners are up to {moved_mm:.3g} mm apart (allowed: {allowed_mm:.3g} mm)"
    return ""


def write_mask(
    path: str | os.PathLike[str], mask: NDArray[Any], volume: Volume, labels: Sequence[tuple[int, str]] = ()
) -> None:
    """Write a mask (X, Y, Z) as NIfTI on the grid of `volume`, with label names in a header extension.

    The values are uint8, or uint16 if one of them is above 255.
    """
    if mask.shape != volume.data.shape[1:]:
        raise ValueError(f"{path}: the mask has shape {mask.shape}, but its volume has {volume.data.shape[1:]}")
    highest = max([int(mask.max()), *(value for value, _ in labels)])
    save_like(path, np.asarray(mask, dtype=np.uint16 if highest > 255 else np.uint8), volume, labels)


def save_like(
    path: str | os.PathLike[str], values: NDArray[Any], volume: Volume, labels: Sequence[tuple[int, str]] = ()
) -> None:
    """Write values (X, Y, Z) or (X, Y, Z, K) as NIfTI on the grid of `volume`, atomically."""
    path = Path(path)
    suffix = next((suffix for suffix in NIFTI if path.name.endswith(suffix)), None)
    if suffix is None:
        raise ValueError(f"{path}: the file name must end in .nii.gz or .nii")
    kind = nibabel.Nifti2Image if isinstance(volume.header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    header = kind.header_class()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header["pixdim"][:4] = volume.header["pixdim"][:4]
    if not (np.isfinite(header["pixdim"][1:4]) & (header["pixdim"][1:4] > 0)).all():
        header["pixdim"][1:4] = voxel_sizes(volume.affine)
    for field in POSITION_FIELDS.split():
        header[field] = volume.header[field]
    image = kind(values, volume.affine, header)
    image.header.set_slope_inter(1, 0)
    if labels:
        image.header.set_intent("label")
        named = json.dumps({"labels": {str(value): name for value, name in labels}})
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", named.encode()))
    replace_file(path, lambda part: nibabel.save(image, part), suffix=suffix)


def replace_file(path: Path, write: Callable[[Path], object], *, suffix: str) -> None:
    """Write a file under a temporary name with this suffix, then rename it: a partial file never appears as `path`.

    An OSError names `path`, not the temporary file.
    """
    part = path.with_name(f".part-{secrets.token_hex(8)}{suffix}")  # containers that share a folder share process ids
    try:
        write(part)
        os.replace(part, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)

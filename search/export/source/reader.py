"""The end of every `model.py`: loads the network with its weights. NETWORK is replaced by its class."""

import json
from os import PathLike

import torch
from torch import nn

NETWORK = nn.Module


DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def read_safetensors(path: str | PathLike[str]) -> dict[str, torch.Tensor]:
    """Return the tensors of a .safetensors file by name. Raises ValueError if the file is damaged."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    try:
        length = int.from_bytes(data[:8], "little")
        entries = json.loads(data[8 : 8 + length])
        entries.pop("__metadata__", None)
        start, tensors = 8 + length, dict[str, torch.Tensor]()
        for name, each in entries.items():
            first, end = each["data_offsets"]
            dtype, count = DTYPES[each["dtype"]], torch.Size(each["shape"]).numel()
            if end - first != count * dtype.itemsize or start + end > len(data):
                raise ValueError(f"{name} is truncated")
            if count:
                flat = torch.frombuffer(data, dtype=dtype, count=count, offset=start + first)
            tensors[name] = flat.reshape(each["shape"]) if count else torch.empty(each["shape"], dtype=dtype)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not a complete safetensors file ({error})") from error
    return tensors


def load_network(path: str | PathLike[str]) -> nn.Module:
    """Return the network with the weights of a .safetensors file, in eval mode."""
    with torch.device("meta"):
        network = NETWORK()
    network.load_state_dict(read_safetensors(path), assign=True)
    return network.eval().requires_grad_(False)

"""A device of its own for tests: its tensors hold values, and an operation on tensors of two devices fails.

Its values are computed by the processor, so that scores can be compared. It has random numbers of its own. It is made
by torch's registry of backends that are written in Python, for a whole process.
"""

import torch
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "apart"
# Operations between devices; and those that take positions of the processor, as those of CUDA do.
COPIES = ("aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::_copy_from_and_resize")
INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")
random_numbers = torch.Generator()
used = set()
"""Names of the operations that were run on the device."""


class Backend:
    """What torch asks a device for."""

    @staticmethod
    def is_available():
        return True

    @staticmethod
    def is_initialized():
        return True

    @staticmethod
    def device_count():
        return 1

    @staticmethod
    def current_device():
        return 0

    @staticmethod
    def _is_in_bad_fork():
        return False

    @staticmethod
    def manual_seed_all(seed):
        random_numbers.manual_seed(seed)

    @staticmethod
    def manual_seed(seed):
        random_numbers.manual_seed(seed)

    @staticmethod
    def get_rng_state(device=None):
        return random_numbers.get_state()

    @staticmethod
    def set_rng_state(state, device=None):
        random_numbers.set_state(state)

    @staticmethod
    def synchronize(device=None):
        pass

    @staticmethod
    def get_amp_supported_dtype():
        return [torch.bfloat16]


class Apart(torch.Tensor):
    """A tensor of the device, around one of the processor."""

    @staticmethod
    def __new__(cls, raw):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, raw):
        self.raw = raw

    def __repr__(self):
        return f"Apart({self.raw})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


def run(function, args, kwargs):
    """Run an operation on the processor, if all its tensors are on this device."""
    name = function._schema.name
    used.add(name)
    if name not in COPIES:
        bound = args[:1] + args[2:] if name in INDEXED else args
        for value in tree_leaves((bound, kwargs)):
            if isinstance(value, torch.Tensor) and not isinstance(value, Apart) and value.dim():
                raise RuntimeError(f"expected all tensors on {NAME}, but {name} got one on {value.device}")
    target = kwargs.get("device")
    plain = tree_map(raw, kwargs)
    if target is not None:
        plain["device"] = "cpu"
    if "pin_memory" in plain:
        plain["pin_memory"] = False
    if any(argument.name == "generator" for argument in function._schema.arguments):
        plain["generator"] = random_numbers
    result = function(*tree_map(raw, args), **plain)
    if name == "aten::copy_" and not isinstance(args[0], Apart):
        return args[0]
    if target is not None and torch.device(target).type == "cpu":
        return result
    wrapped = tree_map(lambda value: Apart(value) if isinstance(value, torch.Tensor) else value, result)
    if not any(isinstance(value, Apart) for value in tree_leaves((args, kwargs))):
        return wrapped  # a new tensor
    return return_and_correct_aliasing(function, args, kwargs, wrapped)


def raw(value):
    """The tensor of the processor inside one of the device; anything else unchanged."""
    return value.raw if isinstance(value, Apart) else value


def set_up():
    """Register the device in this process; what is returned has to be kept."""
    made = torch.tensor

    def tensor(values, *, device=None, **options):
        # The only way to make a tensor that torch does not hand to backends in Python.
        return made(values, **options) if device is None else made(values, **options).to(device)

    torch.tensor = tensor
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend)
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda function, *args, **kwargs: run(function, args, kwargs), "PrivateUse1")
    return library

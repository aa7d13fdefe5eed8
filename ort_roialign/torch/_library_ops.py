"""Registers `torch.ops.ort_roialign.*`: each operator and its gradient, made from one table.

`torch.ops.ort_roialign.roi_align` takes tensors in the order of the ONNX operator's inputs, then
the ONNX attributes in the order of the library's list, all of them. `roi_align_grad` takes `dy`
before that and gives the gradient for the maps. The maps of a multi-scale operator are a list, as
are their gradients. `pr_roi_pool_grad` and `deform_roi_pool_grad` have a second result, for the
boxes and for the offset, and two last arguments that say which of both is wanted; the other one is
empty.

Under autocast an operator casts its tensors to types that go with the first map's: boxes to float32
beside a half-precision map, else all to its type, which is the result's too. The map itself is not
made float32, as torchvision's `roi_align` does it: the kernels sum in float32 anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ort_roialign._kernels import ABSENT, Attribute, Call, Tensor
from ort_roialign._signatures import OPERATORS, Default, Signature
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError
from ort_roialign.torch._sizes import numbers_of_sizes

NAMESPACE = "ort_roialign"
_DEVICES = ("cpu", "cuda")
_TYPE_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int64: "int64",
}
_FLOATING = "float32, float64, float16 or bfloat16"
_UNREAD = 1  # an address that tells a tensor from one that is left out
_TYPES = {name: type_ for type_, name in _TYPE_NAMES.items()}
_library: Any = torch.library  # its classes have no type hints
_fragment = _library.Library(NAMESPACE, "FRAGMENT")  # whose registrations end with it


class _Forward:
    """An operator of the table, as the functions that PyTorch registers for it.

    Their arguments are those that the schema says: tensors, one list of tensors, attributes.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.name = signature.name
        self.function_name = signature.function_name
        self.inputs = signature.inputs

    def schema(self) -> str:
        """The arguments and results in PyTorch's notation."""
        arguments = [f"{self._input_type(name)} {name.lower()}" for name in self.inputs]
        for name, default in self.signature.attributes.items():
            arguments.append(f"{_attribute_type(default)} {name}")
        return f"({', '.join(arguments + self._further_arguments())}) -> {self._result_type()}"

    def _input_type(self, name: str) -> str:
        if name == "X" and self.signature.variadic:
            return "Tensor[]"
        return "Tensor?" if name in self.signature.optional_inputs else "Tensor"

    def _further_arguments(self) -> list[str]:
        return []

    def _result_type(self) -> str:
        return "Tensor"

    def _wanted(self, arguments: Sequence[Any]) -> list[bool]:
        """Which of the kernel's outputs are to be computed."""
        return [True]

    def _result(self, outputs: list[torch.Tensor]) -> Any:
        """The kernel's outputs in the form that the schema says."""
        return outputs[0]

    def compute(self, *arguments: Any) -> Any:
        """Run the kernel, without a copy of tensors that are contiguous."""
        tensors = self.tensors(arguments)
        device = self._common_device(tensors)
        inputs = [None if tensor is None else tensor.contiguous() for _, tensor in tensors]
        c_inputs = [
            ABSENT if tensor is None else self._c_tensor(name, tensor)
            for (name, _), tensor in zip(tensors, inputs, strict=True)
        ]
        wanted = self._wanted(arguments)
        call = Call(self.name, self._attributes(arguments), c_inputs, len(wanted))
        outputs = [
            torch.empty(each.shape if want else 0, dtype=_TYPES[each.type_name], device=device)
            for each, want in zip(call.infer(), wanted, strict=True)
        ]
        c_outputs = [
            self._c_tensor("Y", output) if want else ABSENT
            for output, want in zip(outputs, wanted, strict=True)
        ]
        if device.type == "cuda":
            with torch.cuda.device(device):
                call.run(c_outputs, cuda_stream=torch.cuda.current_stream().cuda_stream)
        else:
            call.run(c_outputs, threads=torch.get_num_threads())
        return self._result(outputs)

    def tensors(self, arguments: Sequence[Any]) -> list[tuple[str, torch.Tensor | None]]:
        """The inputs' names and tensors, with lists laid flat."""
        given = zip(self.inputs, arguments[: len(self.inputs)], strict=True)
        return [(name, each) for name, value in given for each in _as_list(value)]

    def _attributes(self, arguments: Sequence[Any]) -> dict[str, Attribute]:
        named = zip(self.signature.attributes, arguments[len(self.inputs) :], strict=False)
        return {name: value for name, value in named if value is not None}

    def _common_device(self, tensors: list[tuple[str, torch.Tensor | None]]) -> torch.device:
        # The kernels get bare pointers: one to another device's memory would end the process.
        first_name, first = next((name, each) for name, each in tensors if each is not None)
        for name, tensor in tensors:
            if tensor is not None and tensor.device != first.device:
                raise InvalidArgumentError(
                    f"{self.name}: {name} must be on {first.device}, as {first_name}; "
                    f"got {tensor.device}"
                )
        return first.device

    def under_autocast(self, device: str) -> Callable[..., Any]:
        """The operator as autocast calls it on a device: with types that go together."""

        def cast_and_call(*arguments: Any) -> Any:
            overload = getattr(getattr(torch.ops, NAMESPACE), self.function_name).default
            with torch.autocast(device, enabled=False):
                return overload(*self._cast(arguments))

        return cast_and_call

    def _cast(self, arguments: Sequence[Any]) -> list[Any]:
        types = [x.dtype for name, x in self.tensors(arguments) if name == "X" and x is not None]
        if not types:  # the library refuses a pyramid without maps
            return list(arguments)
        map_type = types[0]
        rois_type = torch.promote_types(map_type, torch.float32)
        wanted = {"X": map_type, "rois": rois_type, "offset": map_type}

        def cast(name: str, value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return [cast(name, each) for each in value]
            floating = isinstance(value, torch.Tensor) and value.is_floating_point()
            return value.to(wanted[name]) if floating and name in wanted else value

        cast_inputs = map(cast, self.inputs, arguments)  # stops where the attributes begin
        return [*cast_inputs, *arguments[len(self.inputs) :]]

    def fake(self, *arguments: Any) -> Any:
        """A tensor of the output's type and shape, whose sizes may be symbols.

        Raises:
            InvalidArgumentError: if the call breaks the operator's contract, as far as types,
                attributes and sizes can tell.
        """
        attributes = self._check_without_memory(arguments)
        inputs = dict(self.tensors(arguments))
        x, rois = inputs["X"], inputs["rois"]
        assert x is not None
        assert rois is not None
        height, width = attributes["output_height"], attributes["output_width"]
        assert isinstance(height, int)
        assert isinstance(width, int)
        channels = x.shape[1]
        if self.signature.channel_per_bin:
            channels = channels // (height * width)
        return x.new_empty((rois.shape[0], channels, height, width))

    def _check_without_memory(self, arguments: Sequence[Any]) -> dict[str, Attribute]:
        """Let the library check a call of tensors without numbers, and return its attributes."""
        attributes, tensors = self._attributes(arguments), self.tensors(arguments)
        self._common_device(tensors)
        height, width = attributes["output_height"], attributes["output_width"]
        assert isinstance(height, int)
        assert isinstance(width, int)
        stand_ins = {
            "C": height * width if self.signature.channel_per_bin else 1,
            "R": 5 if "angle_unit" in attributes else 4,
            **{"T": 2, "P": height, "Q": width},
        }
        shapes = iter(numbers_of_sizes(tensors, stand_ins))
        c_inputs = [
            ABSENT
            if tensor is None
            else Tensor(_UNREAD, self._type_name(name, tensor), next(shapes))
            for name, tensor in tensors
        ]
        Call(self.name, attributes, c_inputs, len(self._wanted(arguments))).infer()
        return attributes

    def _c_tensor(self, name: str, tensor: torch.Tensor) -> Tensor:
        return Tensor(tensor.data_ptr(), self._type_name(name, tensor), tuple(tensor.shape))

    def _type_name(self, name: str, tensor: torch.Tensor) -> str:
        type_name = _TYPE_NAMES.get(tensor.dtype)
        if type_name is None:
            required = "int64" if name == "batch_indices" else _FLOATING
            given = str(tensor.dtype).removeprefix("torch.")
            raise InvalidArgumentError(
                f"{self.name}: {name} must be of type {required}; got {given}"
            )
        return type_name


class _Gradient(_Forward):
    """The gradient operator of an operator of the table, likewise."""

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.name += "Grad"
        self.function_name += "_grad"
        self.inputs = ("dY", *signature.inputs)
        self.second = signature.gradients[1] if len(signature.gradients) > 1 else None

    def _further_arguments(self) -> list[str]:
        return [] if self.second is None else ["bool with_dx", f"bool with_d{self.second}"]

    def _result_type(self) -> str:
        if self.signature.variadic:
            return "Tensor[]"
        return "Tensor" if self.second is None else "(Tensor, Tensor)"

    def _wanted(self, arguments: Sequence[Any]) -> list[bool]:
        if self.second is None:
            return [True for name, _ in self.tensors(arguments) if name == "X"]
        return list(arguments[-2:])

    def _result(self, outputs: list[torch.Tensor]) -> Any:
        if self.signature.variadic:
            return outputs
        return outputs[0] if self.second is None else tuple(outputs)

    def fake(self, *arguments: Any) -> Any:
        """Tensors of the gradients' types and shapes, as that of the operator."""
        self._check_without_memory(arguments)
        inputs = self.tensors(arguments)
        likes = [x for name, x in inputs if name == "X" and x is not None]
        if self.second is not None:
            like = dict(inputs)[self.second]
            if like is None:  # an offset that is left out is one of 0
                dy: torch.Tensor = arguments[0]
                like = dy[:, :1].expand(-1, 2, -1, -1)
            likes.append(like)
        wanted = self._wanted(arguments)
        pairs = zip(likes, wanted, strict=True)
        return self._result([like.new_empty(like.shape if want else 0) for like, want in pairs])


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _attribute_type(default: Default) -> str:
    if default is None:  # the library derives it
        return "int?"
    return "float[]" if isinstance(default, tuple) else type(default).__name__


def _register(signature: Signature) -> None:
    forward, gradient = _Forward(signature), _Gradient(signature)
    for operator in (forward, gradient):
        name = f"{NAMESPACE}::{operator.function_name}"
        torch.library.define(name, operator.schema(), tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(name, _DEVICES)(operator.compute)
        torch.library.register_fake(name)(operator.fake)
    for device in _DEVICES:
        key = f"Autocast{device.upper()}"
        _fragment.impl(forward.function_name, forward.under_autocast(device), key)
    _register_autograd(forward, gradient)


def _register_autograd(forward: _Forward, gradient: _Gradient) -> None:
    overload = getattr(getattr(torch.ops, NAMESPACE), gradient.function_name).default
    num_inputs = len(forward.inputs)

    def save(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.attributes = inputs[num_inputs:]
        named = dict(zip(forward.signature.attributes, ctx.attributes, strict=True))
        # A map whose values are not read is not kept alive, and may change in place.
        keep = forward.signature.gradient_reads_maps(named)
        tensors = forward.tensors(inputs)
        ctx.save_for_backward(*(t if keep or name != "X" else None for name, t in tensors))
        ctx.shapes = [t.shape for name, t in tensors if name == "X" and t is not None and not keep]

    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
        inputs = list(ctx.saved_tensors)
        first_map = forward.inputs.index("X")
        for number, shape in enumerate(ctx.shapes):
            inputs[first_map + number] = dy.new_empty(shape)
        if forward.signature.variadic:
            inputs[num_inputs - 1 :] = [inputs[num_inputs - 1 :]]
        if gradient.second is None:
            gradients = {"X": overload(dy, *inputs, *ctx.attributes)}
        else:
            names = ("X", gradient.second)
            wanted = [ctx.needs_input_grad[forward.inputs.index(name)] for name in names]
            found = overload(dy, *inputs, *ctx.attributes, *wanted)
            gradients = {
                name: each if want else None
                for name, each, want in zip(names, found, wanted, strict=True)
            }
        return tuple(gradients.get(name) for name in forward.inputs) + (None,) * len(ctx.attributes)

    def refuse(ctx: Any, *gradients: Any) -> None:
        raise OrtRoiAlignError(f"{gradient.name}: {forward.name} has no second derivative here")

    torch.library.register_autograd(
        f"{NAMESPACE}::{forward.function_name}", backward, setup_context=save
    )
    torch.library.register_autograd(f"{NAMESPACE}::{gradient.function_name}", refuse)


for _signature in OPERATORS.values():
    _register(_signature)

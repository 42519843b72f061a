"""What `softmax` returns, and its backward pass."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Iterable
from typing import Any, Callable

from . import _ffi
from ._arrays import FIELD, View, view
from ._call import integer, positive
from ._frameworks import root_package
from ._softmax_call import SoftmaxCall
from .errors import InvalidTypeError, InvalidValueError, NotSupportedError
from .report import Info

MODES = {
    "last": _ffi.BACKWARD_LAST,
    "unrolled": _ffi.BACKWARD_UNROLLED,
    "implicit": _ffi.BACKWARD_IMPLICIT,
}
_OF_THE_STEPS = ("init_eps", "tv_tau", "star_tau")  # which do not move the fixed point


class Gradients:
    """Gradients of a scalar loss, each with the shape of the argument it belongs to, None if not computed.

    `features` is of the features' dtype, the others float64 if that is, else float32.

    Attributes:
        features: [B, I, *S].
        eps, init_eps, tv_lam, tv_tau: [1], summed over the batch. Where a step or the start's ε₀ default to a
            multiple of ε their part is in `eps`; `init_eps` exists only if it was given; `tv_tau` is the
            partial derivative, also where τ is the default.
        tv_edge: shape of the edge field that was given.
        volume, volume_lower, volume_upper: [B, I], or [I] (summed over the batch) if given so. With
            mode "implicit" `volume` is fixed only up to a constant per image, since the volumes add up to J.
        td_lam, td_sigma: [1], summed over the batch; `td_sigma` only with the Gaussian kernel.
        td_kernel, td_edge: shape of the kernel and the edge field that were given.
        star_tau: [M], one per star, summed over the batch; the partial derivative, as `tv_tau`.
        star_center: a list, one per star: [B, nd], or [nd] (summed over the batch) if given so.
    """

    features: Any = None
    eps: Any = None
    init_eps: Any = None
    tv_lam: Any = None
    tv_tau: Any = None
    tv_edge: Any = None
    volume: Any = None
    volume_lower: Any = None
    volume_upper: Any = None
    td_lam: Any = None
    td_sigma: Any = None
    td_kernel: Any = None
    td_edge: Any = None
    star_tau: Any = None
    star_center: Any = None

    def __init__(self, read_info: Callable[[], Info] | None = None) -> None:
        self._read_info = read_info
        self._info: Info | None = None

    @property
    def info(self) -> Info | None:
        """Mode "implicit": status, iterations and relative residual of the adjoint solve per image.

        None for the other modes. Read on first use; on CUDA that waits for the stream.
        """
        if self._info is None and self._read_info is not None:
            self._info = self._read_info()
        return self._info

    def __repr__(self) -> str:
        return f"Gradients({', '.join(sorted(name for name in vars(self) if name[0] != '_'))})"


class Result:
    """What `softmax` returns.

    Attributes:
        u: class probabilities [B, I, *S] of the features' dtype; non-negative, sum 1 over I; 0 where masked.
        tv_dual: q [B, I, nd, *S], |q| <= lam * edge; None without the TV prior or with ``duals=False``.
        volume_dual: f [B, I], -inf for an excluded class; None without the prior or with ``duals=False``.
        star_dual: g [B, M, *S], >= 0; None without star classes or with ``duals=False``.

    The result refers to the arrays it was computed from: do not change them in place before `backward`.
    """

    def __init__(
        self,
        call: SoftmaxCall,
        made: dict[str, tuple[Any, View]],
        saved: tuple[Any, int, int],
        info_buffer: tuple[Any, int],
    ) -> None:
        self._call = call
        self._saved = saved
        self._views = {name: target for name, (_, target) in made.items()}
        finished = {name: call.framework.finish(array) for name, (array, _) in made.items()}
        self.u: Any = finished["u"]
        self.tv_dual: Any = finished.get("tv_dual")
        self.volume_dual: Any = finished.get("volume_dual")
        self.star_dual: Any = finished.get("star_dual")
        self._info_buffer = info_buffer
        self._info: Info | None = None

    def __repr__(self) -> str:
        return f"Result(u={list(self._views['u'].shape)} on {self._call.lead.device})"

    @property
    def info(self) -> Info:
        """Status, iterations and residual per image. Read on first use; on CUDA that waits for the stream."""
        if self._info is None:
            self._info = self._call.read_info(self._info_buffer[1], self._call.stream)
        return self._info

    def _applicable(self, mode: str) -> list[str]:
        if mode == "last":
            return ["features"]
        call = self._call
        names = ["features", "eps"]
        names += ["init_eps"] if call.opts.init_eps > 0 else []
        names += ["tv_lam", "tv_tau"] if call.opts.tv else []
        names += ["td_lam"] if call.opts.td else []
        names += ["td_sigma"] if call.opts.td and "td_kernel" not in call.views else []
        names += ["star_tau", "star_center"] if call.star_classes else []
        given = ("tv_edge", "volume", "volume_lower", "volume_upper", "td_kernel", "td_edge")
        names += [name for name in given if name in call.views]
        return [name for name in names if mode == "unrolled" or name not in _OF_THE_STEPS]

    def backward(
        self,
        grad_u: Any,
        mode: str = "unrolled",
        wanted: Iterable[str] | None = None,
        *,
        tol: float | None = None,
        max_iters: int | None = None,
    ) -> Gradients:
        """Gradients of a scalar loss from ``grad_u`` = its gradient with respect to `u`.

        Args:
            grad_u: [B, I, *S], dtype and device of the features; values at masked voxels are not looked at.
            mode: what is differentiated.
                "unrolled": all iterations done, exactly, for every argument; needs the state that `softmax`
                keeps unless ``checkpoint=0``.
                "implicit": the converged map (a fixed point of the iteration), so `softmax` must have
                converged: pass it a `tol`. Its time does not depend on `iters`; it reads only the final
                state, which any ``checkpoint >= 1`` keeps (``checkpoint=iters`` in the least memory).
                Conjugate gradients with TV and volumes alone; with threshold dynamics or star shapes the
                adjoint iteration, as slow as the plain forward. No gradients for steps and `init_eps`, which
                do not move the fixed point. `Gradients.info` says how it ended.
                "last": the last softmax, the duals held constant ("quasi dropout", [VPTV] 5.2), for the
                features only; needs no stored state.
            wanted: names of `Gradients` to compute; None: all that apply. A warm start is a constant.
            tol: only with "implicit": an image stops when its residual, relative to its start, is below
                it; > 0. None: 1e-6. With threshold dynamics or star shapes the residual is the last term
                of a series: where that converges slowly, 1e-6 may leave gradients wrong by some percent.
            max_iters: only with "implicit": cap of its iterations, >= 1. None: 1000.

        On CUDA it runs on the `stream` that was given to `softmax`, else on the framework's current stream at
        this call, which first waits for the stream of `softmax`. With a given stream it is the caller who
        makes other streams wait for it before they use the gradients.

        Raises:
            InvalidValueError, InvalidTypeError: an argument is wrong; the text names it.
            NotSupportedError: `grad_u` is a torch tensor that requires grad. The library has first
                derivatives only: no double backward.
        """
        call, lib = self._call, _ffi.library()
        if not isinstance(mode, str) or mode not in MODES:
            raise InvalidValueError(f"mode is {mode!r}; it must be 'unrolled', 'implicit' or 'last'")
        if mode != "last" and call.opts.checkpoint_interval == 0:
            raise InvalidValueError(
                f"mode {mode!r} needs the state that softmax does not keep with checkpoint=0"
            )
        opts = _ffi.SoftmaxOpts.from_buffer_copy(call.opts)
        opts.backward_mode = MODES[mode]
        for name, value in (("tol", tol), ("max_iters", max_iters)):
            if value is not None and mode != "implicit":
                raise InvalidValueError(f"{name} = {value!r} is for mode 'implicit' only; mode is {mode!r}")
        if tol is not None:
            opts.implicit_tolerance = positive("tol", tol, True)
        if max_iters is not None:
            opts.implicit_iterations = integer("max_iters", max_iters, 1)
        names = self._names(mode, wanted)
        if root_package(grad_u) == "torch" and grad_u.requires_grad:
            raise NotSupportedError(
                "grad_u requires grad, but segprior has first derivatives only (no double backward); "
                "pass grad_u.detach()"
            )
        stream = call.backward_stream()
        incoming = view(grad_u, "grad_u", stream, FIELD)
        if stream != call.stream:
            call.framework.wait(stream, call.stream)
        grads = _ffi.SoftmaxGrads(struct_size=ct.sizeof(_ffi.SoftmaxGrads))
        context = call.context(stream)
        size = ct.c_size_t()
        lib.check(
            lib.softmax_workspace_size(
                context.handle, ct.byref(opts), ct.byref(call.inputs), None, ct.byref(size)
            )
        )
        with call.framework.on_stream(stream):
            made = call.allocate(grads, names)
            info: tuple[Any, int] = (None, 0)
            if mode == "implicit":
                info = call.framework.buffer(ct.sizeof(_ffi.Info) * call.batch)
                grads.info = info[1]
            # Held in a name until the call has been queued; freeing it then is ordered on the same stream.
            workspace, address = call.framework.buffer(size.value)
            _, saved_address, saved_bytes = self._saved
            status = lib.softmax_backward(
                *(context.handle, ct.byref(opts), ct.byref(call.inputs)),
                *(ct.byref(self._views["u"].tensor), ct.byref(incoming.tensor), ct.byref(grads)),
                *(address, size.value, saved_address or None, saved_bytes),
            )
            lib.check(status)
            del workspace
            # `info` in the closure keeps its memory.
            found = Gradients(None if info[0] is None else lambda: call.read_info(info[1], stream))
            for name, (array, _) in made.items():
                setattr(found, name, self._lower(name, array))
        call.hold([*call.arrays, grad_u], stream)
        return found

    def _names(self, mode: str, wanted: Iterable[str] | None) -> list[str]:
        """The gradients to compute, each once."""
        applicable = self._applicable(mode)
        if isinstance(wanted, str) or not (wanted is None or isinstance(wanted, Iterable)):
            raise InvalidTypeError(f"wanted is {wanted!r}; it must be a list of names of gradients")
        names = applicable if wanted is None else list(wanted)
        for name in names:  # before duplicates are dropped: a wrong one may have no hash
            if name not in applicable:
                raise InvalidValueError(
                    f"wanted has {name!r}; mode {mode!r} of this call has gradients for "
                    f"{', '.join(applicable)}"
                )
        return list(dict.fromkeys(names))

    def _lower(self, name: str, array: Any) -> Any:
        """What the caller gets: the lifting of an argument to the whole batch undone, by a sum over it."""
        call = self._call
        framework, given = call.framework, call.given_shapes.get(name)
        if name == "star_center":
            return [
                framework.finish(framework.sum_rows(center) if len(shape) == 1 else center)
                for center, shape in zip(framework.split(array), call.center_shapes)
            ]
        is_lifted = given is not None and len(given) < len(array.shape)
        return framework.finish(framework.sum_rows(array) if is_lifted else array)

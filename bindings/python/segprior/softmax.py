"""The entropic softmax with TV and volume priors: `softmax`, its result and its backward pass."""

from __future__ import annotations

import ctypes as ct
import math
from collections.abc import Iterable, Sequence
from typing import Any

from . import _ffi
from ._arrays import View, is_array, view
from ._call import Call, flag, integer, number, positive
from .errors import InvalidTypeError, InvalidValueError
from .priors import TV, Volume
from .report import Info

_MODES = {"last": _ffi.BACKWARD_LAST, "unrolled": _ffi.BACKWARD_UNROLLED}


class Gradients:
    """Gradients of a scalar loss, each with the shape of the argument it belongs to, None if not computed.

    Attributes:
        features: [B, I, *S].
        eps, init_eps, tv_lam, tv_tau: [1], summed over the batch. Where τ or the start's ε₀ default to a
            multiple of ε their part is in `eps`; `init_eps` exists only if it was given; `tv_tau` is the
            partial derivative, also where τ is the default.
        tv_edge: shape of the edge field that was given.
        volume, volume_lower, volume_upper: [B, I], or [I] (summed over the batch) if given so.
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

    def __repr__(self) -> str:
        return f"Gradients({', '.join(sorted(vars(self)))})"


class Result:
    """What `softmax` returns.

    Attributes:
        u: class probabilities [B, I, *S]; non-negative, sum 1 over I.
        tv_dual: q [B, I, nd, *S], |q| <= lam * edge; None without the TV prior or with ``duals=False``.
        volume_dual: f [B, I], -inf for an excluded class; None without the prior or with ``duals=False``.

    The result refers to the arrays it was computed from: do not change them in place before `backward`.
    """

    def __init__(self, call: Call, made: dict[str, tuple[Any, View]], saved: tuple[Any, int, int]) -> None:
        self._call = call
        self._saved = saved
        self._views = {name: target for name, (_, target) in made.items()}
        finished = {name: call.framework.finish(array) for name, (array, _) in made.items()}
        self.u: Any = finished["u"]
        self.tv_dual: Any = finished.get("tv_dual")
        self.volume_dual: Any = finished.get("volume_dual")
        self._info_buffer: tuple[Any, int] = (None, 0)
        self._info: Info | None = None

    def __repr__(self) -> str:
        return f"Result(u={list(self._views['u'].shape)} on {self._call.features.device})"

    @property
    def info(self) -> Info:
        """Status, iterations and residual per image. Read on first use; on CUDA that waits for the stream."""
        if self._info is None:
            lib, batch = _ffi.library(), self._call.batch
            raw = (_ffi.Info * batch)()
            if not self._call.empty:
                context = self._call.context()
                lib.check(lib.info_read_sync(context.handle, self._info_buffer[1], batch, raw))
            self._info = Info(list(raw))
        return self._info

    def _applicable(self, mode: str) -> list[str]:
        if mode == "last":
            return ["features"]
        call = self._call
        names = ["features", "eps"]
        names += ["init_eps"] if call.opts.init_eps > 0 else []
        names += ["tv_lam", "tv_tau"] if call.opts.tv else []
        return names + [n for n in call.given_shapes if n in call.views]

    def backward(self, grad_u: Any, mode: str = "unrolled", wanted: Iterable[str] | None = None) -> Gradients:
        """Gradients of a scalar loss from ``grad_u`` = its gradient with respect to `u`.

        Args:
            grad_u: [B, I, *S], dtype and device of the features.
            mode: "unrolled": exact adjoint of all iterations done, for every argument; needs the state that
                `softmax` keeps unless ``checkpoint=0``. "last": the duals held constant ("quasi dropout",
                [VPTV] 5.2), for the features only; needs no stored state.
            wanted: names of `Gradients` to compute; None: all that apply. A warm start is a constant.

        On CUDA it runs on the `stream` that was given to `softmax`, else on the framework's current stream at
        this call, which first waits for the stream of `softmax`. With a given stream it is the caller who
        makes other streams wait for it before they use the gradients.

        Raises:
            InvalidValueError, InvalidTypeError: an argument is wrong; the text names it.
        """
        call, lib = self._call, _ffi.library()
        if not isinstance(mode, str) or mode not in _MODES:
            raise InvalidValueError(f"mode is {mode!r}; it must be 'unrolled' or 'last'")
        if mode == "unrolled" and call.opts.checkpoint_interval == 0:
            raise InvalidValueError(
                "mode 'unrolled' needs the state that softmax does not keep with checkpoint=0"
            )
        applicable = self._applicable(mode)
        if isinstance(wanted, str) or not (wanted is None or isinstance(wanted, Iterable)):
            raise InvalidTypeError(f"wanted is {wanted!r}; it must be a list of names of gradients")
        names = applicable if wanted is None else list(wanted)
        for name in names:  # before duplicates are dropped: a wrong one may have no hash
            if name not in applicable:
                raise InvalidValueError(
                    f"wanted has {name!r}; this call has gradients for {', '.join(applicable)}"
                )
        names = list(dict.fromkeys(names))
        stream = call.backward_stream()
        incoming = view(grad_u, "grad_u", stream)
        if stream != call.stream:
            call.framework.wait(stream, call.stream)
        opts = _ffi.SoftmaxOpts.from_buffer_copy(call.opts)
        opts.backward_mode = _MODES[mode]
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
            found = Gradients()
            for name, (array, _) in made.items():
                setattr(found, name, call.framework.finish(self._lower(name, array)))
        call.hold([*call.arrays, grad_u], stream)
        return found

    def _lower(self, name: str, array: Any) -> Any:
        """Undoes the lifting of [I] or [*S] to the whole batch: a sum over it."""
        given = self._call.given_shapes.get(name)
        if given is None or tuple(given) == tuple(array.shape):
            return array
        if name == "tv_edge":
            return self._call.framework.reshape(array, given)
        return self._call.framework.sum_rows(array)


def softmax(
    features: Any,
    eps: Any = 1.0,
    iters: int = 30,
    init_eps: float | None = None,
    tol: float | None = None,
    tv: TV | None = None,
    accelerate: bool | None = None,
    volume: Volume | None = None,
    spacing: Sequence[float] | None = None,
    warm_start: Result | tuple[Any, Any] | None = None,
    *,
    checkpoint: int | None = None,
    check_interval: int = 10,
    duals: bool = True,
    threads: int | None = None,
    stream: int | None = None,
) -> Result:
    """Entropic softmax with a total-variation and a volume prior.

    Approximates, by the dual iteration of [VPTV] Algorithm 1, the minimiser over the simplex of

        -<o, u> + eps <u, ln u> + lam sum_x e(x) |grad u|(x)   subject to   lower_i <= sum_x u_i(x) <= upper_i

    Without priors it is the plain softmax of ``features / eps`` over axis 1.

    Args:
        features: o [B, I, *S], 1 to 3 spatial axes, 1 to 256 classes, float32 or float64, C-contiguous.
            NumPy, or any array with ``__dlpack__`` (torch, CuPy, JAX on the CPU); read in place, never copied.
            Larger means more likely.
        eps: ε > 0, weight of the entropy, in units of the features; a float or a one-element array.
        iters: T >= 0, the number of iterations; their cap if `tol` is given.
        init_eps: ε₀ > 0 of the start ``u0 = S(o / init_eps)``; None: `eps`.
        tol: stop an image when ``max |u_(t+1) - u_t| < tol`` at a check; None: never. An accelerated image
            then does one more iteration, without momentum.
        tv: the total-variation prior; None: without.
        accelerate: Nesterov momentum with restart on the TV dual, instead of the papers' plain iteration.
            None: only when `tol` is given, where reaching the limit is what counts.
        volume: the volume prior, in voxels; None: without.
        spacing: physical voxel size per spatial axis, > 0; None: 1.
        warm_start: an earlier `Result`, or (tv_dual, volume_dual), either None: start from these duals.
        checkpoint: interval at which iterates are kept for ``backward(mode="unrolled")``: 1 all of them, None
            about sqrt(T), 0 none (inference).
        check_interval: iterations between two checks of `tol`.
        duals: whether to return the duals.
        threads: CPU threads; None: the OpenMP default. The result does not depend on it. In a child forked
            by a process that has used several (`multiprocessing`, workers of a torch `DataLoader`) it is
            one: OpenMP's threads do not survive a fork.
        stream: a cudaStream_t as an integer to work on, which lives as long as the result; None: the current
            stream of the features' framework. It waits for that stream's work on the arguments; to make
            others wait for the results is the caller's part.

    Returns:
        `Result`: u, duals, info, and `Result.backward`. Arrays: the features' framework, dtype and device.

    Raises:
        InvalidTypeError (a TypeError): not an array, or not float32/float64.
        InvalidValueError (a ValueError): a value, shape, stride or device; the text names the argument.
        DeviceError, OutOfMemoryError, LibraryError.

    References:
        [VPTV] Li, Liu, Cui, Huang, Tai, "Volume preserving image segmentation with entropic regularization
        optimal transport", arXiv 1909.09931, Algorithm 1. [STD] Liu, Wang, Tai, arXiv 2002.03989, 4.2.
    """
    lib = _ffi.library()
    call = Call(features, stream, threads)
    opts = call.opts
    opts.iterations = integer("iters", iters, 0)
    opts.check_interval = integer("check_interval", check_interval, 1)
    default_checkpoint = max(1, round(math.sqrt(opts.iterations)))
    opts.checkpoint_interval = (
        default_checkpoint if checkpoint is None else integer("checkpoint", checkpoint, 0)
    )
    opts.tolerance = 0.0 if tol is None else positive("tol", tol)
    opts.accelerate = tol is not None if accelerate is None else flag("accelerate", accelerate)
    duals = flag("duals", duals)
    opts.init_eps = 0.0 if init_eps is None else positive("init_eps", init_eps)
    if spacing is not None:
        try:
            count = len(spacing)
        except TypeError as error:
            raise InvalidTypeError(
                f"spacing is {spacing!r}; it must be one number per spatial axis ({len(call.spatial)})"
            ) from error
        if count != len(call.spatial):
            raise InvalidValueError(
                f"spacing has {count} values; features have {len(call.spatial)} axes"
            )
        for axis, step in enumerate(spacing):
            opts.spacing[axis] = number(f"spacing[{axis}]", step)
    call.add_scalar("eps", eps)
    wanted = ["u"]
    if tv is not None:
        if not isinstance(tv, TV):
            raise InvalidTypeError(f"tv is {type(tv).__name__}; it must be segprior.TV or None")
        opts.tv = 1
        call.add_scalar("tv_lam", tv.lam)
        if tv.tau is not None:
            call.add_scalar("tv_tau", tv.tau if is_array(tv.tau) else positive("tv_tau", tv.tau))
        if tv.edge is not None:
            call.add_edge(tv.edge)
        wanted += ["tv_dual"] if duals else []
    if volume is not None:
        if not isinstance(volume, Volume):
            raise InvalidTypeError(f"volume is {type(volume).__name__}; it must be segprior.Volume or None")
        bounds = {"volume": volume.v, "volume_lower": volume.lower, "volume_upper": volume.upper}
        for name, value in bounds.items():
            if value is not None:
                call.add_bounds(name, value)
        wanted += ["volume_dual"] if duals else []
    _add_warm_start(call, warm_start, tv is not None, volume is not None)
    return _forward(lib, call, wanted)


def _add_warm_start(call: Call, start: Any, tv: bool, volume: bool) -> None:
    """A previous result serves whatever priors this call has; a dual given by hand must have its prior."""
    if start is None:
        return
    if isinstance(start, Result):
        pair = (start.tv_dual if tv else None, start.volume_dual if volume else None)
    elif isinstance(start, (tuple, list)) and len(start) == 2:
        pair = (start[0], start[1])
    else:
        raise InvalidTypeError("warm_start must be a Result or a pair (tv_dual, volume_dual)")
    for name, dual in zip(("init_tv_dual", "init_volume_dual"), pair):
        if dual is not None:
            call.add(name, call.view(dual, f"warm_start's {name[5:]}"))


def _forward(lib: _ffi.Library, call: Call, wanted: list[str]) -> Result:
    context = call.context()
    size, saved_size = ct.c_size_t(), ct.c_size_t()
    common = (context.handle, ct.byref(call.opts), ct.byref(call.inputs))
    lib.check(lib.softmax_workspace_size(*common, ct.byref(size), None))
    lib.check(lib.softmax_saved_size(*common, ct.byref(saved_size)))
    outputs = _ffi.SoftmaxOutputs(struct_size=ct.sizeof(_ffi.SoftmaxOutputs))
    with call.framework.on_stream(call.stream):
        made = call.allocate(outputs, wanted)
        info = call.framework.buffer(ct.sizeof(_ffi.Info) * call.batch)
        outputs.info = info[1]
        workspace, address = call.framework.buffer(size.value)
        saved = call.framework.buffer(saved_size.value) if saved_size.value else (None, 0)
        status = lib.softmax_forward(
            *common, ct.byref(outputs), address, size.value, saved[1] or None, saved_size.value
        )
        lib.check(status)
        del workspace
        result = Result(call, made, (*saved, saved_size.value))
    call.hold(call.arrays, call.stream)
    call.arrays += [made["u"][0]] if saved[0] is None else [made["u"][0], saved[0]]
    result._info_buffer = info
    return result
